"""Writes a bundle, completely or not at all. The same training gives the same bytes on any machine."""

import hashlib
import os
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from mlcore.bundle import format as bundle_format
from mlcore.bundle import onnx_graph
from mlcore.bundle.format import MANIFEST_FILE, MODEL_FILE, NO_SCALER, SCALER_FILE, WEIGHTS_FILE, Bundle
from mlcore.constants import CLASSES
from mlcore.errors import BundleRefused
from mlcore.features import labels
from mlcore.features.indicators import Schema
from mlcore.features.labels import Label
from mlcore.features.scaler import Scaler
from mlcore.features.splits import Shares
from mlcore.fitting.installed import InstalledRecipe
from mlcore.fitting.prepared import Trained

_LIBRARIES = ("numpy", "polars", "torch", "scikit-learn", "onnx", "safetensors")


def write_bundle(
    folder: Path, trained: Trained, *, coin: str, dataset_digest: str, simulated: bool, code_version: str
) -> Bundle:
    """Writes to a folder next to it and renames that, so `folder` is never half a bundle.

    Raises BundleRefused if the folder already holds something.
    """
    files = _build_files(trained) if trained.payload is None else trained.payload
    facts = {"coin": coin, "dataset": dataset_digest, "simulated": simulated, "code_version": code_version}
    return write_files(folder, files, _build_manifest(trained) | facts)


def _build_files(trained: Trained) -> dict[str, bytes]:
    scaler = trained.scaler if trained.recipe.keeps_scaler else None
    files = {
        MODEL_FILE: onnx_graph.build_model(trained.weights, scaler, shape=trained.recipe.input.shape),
        WEIGHTS_FILE: save({name: np.ascontiguousarray(array) for name, array in trained.weights.items()}),
    }
    if scaler:
        files[SCALER_FILE] = encode_scaler(scaler, trained.recipe.input)
    return files


def write_files(folder: Path, payload: Mapping[str, bytes], document: dict[str, Any]) -> Bundle:
    """Writes these files and a manifest that lists them. Raises like `write_bundle`."""
    entries = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in payload.items()
    }
    manifest = bundle_format.to_canonical_json({**document, "files": entries})
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        for name, data in {**payload, MANIFEST_FILE: manifest}.items():
            _write_durably(unfinished / name, data)
        unfinished.rename(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise BundleRefused(f"{folder.name} cannot be written ({error.strerror})") from error
    return bundle_format.verify(folder)


def describe_contents(
    schema: Schema,
    label: Label,
    cuts: Sequence[float] | None,
    shares: Shares,
    interval_seconds: int,
    libraries: Iterable[str],
) -> dict[str, Any]:
    """The fields of a manifest that trained and imported models share."""
    return {
        "format": bundle_format.FORMAT,
        "interval_seconds": interval_seconds,
        "schema": {"name": schema.name, "digest": schema.digest, "lookback": schema.lookback},
        "classes": list(CLASSES),
        "labels": {
            **label.describe(),
            "volatility_bars": labels.VOLATILITY_BARS,
            "cuts": cuts and list(cuts),
        },
        "split": asdict(shares),
        "libraries": {"python": platform.python_version(), **_list_versions(libraries)},
    }


def _list_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Of those that are installed: a notebook fits its V5 without torch."""
    found = {}
    for name in libraries:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def encode_scaler(scaler: Scaler, schema: Schema) -> bytes:
    """scaler.json. Raises ValueError for a figure that is not finite."""
    figures = {"names": list(schema.columns), "mean": scaler.mean.tolist(), "scale": scaler.scale.tolist()}
    return bundle_format.to_canonical_json(figures)


def _build_manifest(trained: Trained) -> dict[str, Any]:
    """Holds no time and no path: nothing that differs between two writings.

    `seen`: a prediction outside the fit window's range is a guess. `provenance.measure_reload` recomputes `validation`.
    """
    examples, epoch = trained.prepared.examples, trained.epochs[trained.best_epoch - 1]
    schema, recipe = trained.recipe.input, trained.recipe
    return {
        **describe_contents(
            schema,
            recipe.label,
            trained.prepared.cuts,
            recipe.shares,
            examples.interval_seconds,
            _LIBRARIES,
        ),
        **_describe_recipe(trained),
        "line": trained.recipe.line,
        "parameters": trained.recipe.parameters(),
        "windows": examples.windows_with_digests(),
        "seen": None if schema.is_window else _describe_range(examples.features[examples.split.fit]),
        "training": {
            "epochs": len(trained.epochs),
            "best_epoch": trained.best_epoch,
            "device": trained.device,
            "majority_share": trained.prepared.majority_share,
            "validation": {
                "loss": epoch.validation_loss,
                "accuracy": epoch.validation_accuracy,
                "rows": len(trained.prepared.stop_labels),
                "epoch": epoch.number,
            },
        },
        "seed": trained.seed,
    }


def _describe_recipe(trained: Trained) -> dict[str, Any]:
    """What only a manifest of an installed recipe states. Its fit got unscaled rows: a graph without a scaler needs none."""
    if not isinstance(trained.recipe, InstalledRecipe) or trained.payload is None:
        return {}
    needs_none = {} if SCALER_FILE in trained.payload else {"scaler": NO_SCALER}
    return {"recipe": {"name": trained.recipe.name, "package": trained.recipe.package}, **needs_none}


def _describe_range(rows: np.ndarray) -> dict[str, list[float]]:
    return {"least": rows.min(axis=0).tolist(), "greatest": rows.max(axis=0).tolist()}


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
