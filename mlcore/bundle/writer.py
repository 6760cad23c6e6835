"""Writes a bundle: all of it or nothing, the same bytes for the same training wherever it is written."""

import hashlib
import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from mlcore.bundle import format as bundle_format
from mlcore.bundle import onnx_export
from mlcore.bundle.format import (
    MANIFEST_FILE,
    MODEL_FILE,
    SCALER_FILE,
    WEIGHTS_FILE,
    Bundle,
    to_canonical_json,
)
from mlcore.constants import CLASSES
from mlcore.errors import BundleRefused
from mlcore.features import indicators, labels
from mlcore.features.scaler import Scaler
from mlcore.fitting.trained import Trained

_LIBRARIES = ("numpy", "polars", "torch", "scikit-learn", "onnx", "safetensors")


def write_bundle(
    folder: Path, trained: Trained, *, coin: str, dataset_digest: str, simulated: bool, code_version: str
) -> Bundle:
    """Writes to a folder beside it first, then renames: `folder` is never half a bundle.

    Raises BundleRefused when the folder already holds something.
    """
    payload = _payload(trained)
    document = _manifest(trained) | {
        "coin": coin,
        "dataset": dataset_digest,
        "simulated": simulated,
        "code_version": code_version,
    }
    return write_files(folder, payload, document)


def write_files(folder: Path, payload: Mapping[str, bytes], document: dict[str, Any]) -> Bundle:
    """These files and the manifest that lists them, whatever they came from. Raises like `write_bundle`."""
    entries = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in payload.items()
    }
    manifest = to_canonical_json({**document, "files": entries})
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


def _payload(trained: Trained) -> dict[str, bytes]:
    scaler = trained.scaler if trained.recipe.keeps_scaler else None
    files = {
        MODEL_FILE: onnx_export.build_model(trained.weights, scaler),
        WEIGHTS_FILE: save({name: np.ascontiguousarray(array) for name, array in trained.weights.items()}),
    }
    if scaler:
        files[SCALER_FILE] = encode_scaler(scaler, indicators.SCHEMAS[trained.recipe.schema])
    return files


def encode_scaler(scaler: Scaler, schema: indicators.Schema) -> bytes:
    """scaler.json. Raises ValueError for a figure that is not finite."""
    figures = {"names": list(schema.columns), "mean": scaler.mean.tolist(), "scale": scaler.scale.tolist()}
    return to_canonical_json(figures)


def _manifest(trained: Trained) -> dict[str, Any]:
    """Everything but what the caller knows. Nothing that changes from one writing to the next: no time, no path."""
    schema = indicators.SCHEMAS[trained.recipe.schema]
    examples = trained.prepared.examples
    windows = {
        name: examples.window_with_digest(getattr(examples.split, name)) for name in ("fit", "stop", "gate")
    }
    return {
        "format": bundle_format.FORMAT,
        "line": trained.recipe.line,
        "parameters": trained.recipe.parameters(),
        "schema": {"name": schema.name, "digest": schema.digest, "lookback": schema.lookback},
        "classes": list(CLASSES),
        "labels": {
            "horizon": labels.HORIZON_BARS,
            "volatility_bars": labels.VOLATILITY_BARS,
            "cuts": list(trained.cuts),
        },
        "windows": windows,
        "seen": _seen(trained),
        "training": {
            "epochs": len(trained.epochs),
            "best_epoch": trained.best_epoch,
            "device": trained.device,
            "majority_share": trained.prepared.majority_share,
            "validation": _validation(trained),
        },
        "seed": trained.seed,
        "libraries": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    }


def _seen(trained: Trained) -> dict[str, list[float]]:
    """Least and greatest value of each feature, unscaled, in the fit window: beyond them a prediction is a guess."""
    examples = trained.prepared.examples
    fit = examples.features[examples.split.fit]
    return {"least": fit.min(axis=0).tolist(), "greatest": fit.max(axis=0).tolist()}


def _validation(trained: Trained) -> dict[str, Any]:
    """Of the very weights in the bundle, on the stop window; measuring recomputes it (`provenance.reload`)."""
    kept = trained.epochs[trained.best_epoch - 1]
    return {
        "loss": kept.validation_loss,
        "accuracy": kept.validation_accuracy,
        "rows": len(trained.prepared.stop_labels),
        "epoch": kept.number,
    }


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
