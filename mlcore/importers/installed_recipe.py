"""Runs recipes of packages: describes each of them, fits one on prepared rows, or finishes a fit. Run this in a sandbox.

    python -m mlcore.importers.installed_recipe describe [--recipe NAME] --packages DIR --answer ANSWER.json
    python -m mlcore.importers.installed_recipe fit --packages DIR --answer ANSWER.json --request REQUEST.json
    python -m mlcore.importers.installed_recipe finish --answer ANSWER.json --request REQUEST.json

`fit` finds its rows in the current folder, as `write_rows` left them, and leaves the graph there. `finish` reads and tries
that graph like one from outside, and leaves the files of a bundle. It is another process with rows of its own: code of a
package could change whatever is computed beside it.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from mlcore.bundle import writer
from mlcore.bundle.format import MODEL_FILE, SCALER_FILE, WEIGHTS_FILE
from mlcore.bundle.graph_limits import MAX_MODEL_BYTES
from mlcore.bundle.predictor import Predictor, softmax
from mlcore.errors import MlcoreError
from mlcore.features.indicators import Schema, find_schema
from mlcore.features.labels import DEFAULT_LABEL
from mlcore.features.splits import DEFAULT_SHARES
from mlcore.fitting.installed import GRAPH_FILE, ROW_FILES, RecipeRefused, Rows, describe, find_entry_points
from mlcore.importers import onnx_file
from mlcore.importers.convert import try_bundle

_FIT_ROWS = 2048
"""Rows of the fit window that the training loss is computed from: each is run alone."""
_MAX_PROBLEM = 500


def describe_all(path: list[str], only: str | None = None) -> dict[str, Any]:
    """{name: description} of all recipes or of one; {name: {"problem": why}} for one that cannot be loaded."""
    points = find_entry_points(path)
    return {name: _describe_one(points[name][0][0]) for name in points if only in (None, name)}


def _describe_one(point: Any) -> dict[str, Any]:
    try:
        found = describe(point.load())
        json.dumps(found, allow_nan=False)
    except Exception as error:  # noqa: BLE001 - one package must not hide the others
        return {"problem": f"{type(error).__name__}: {error}"[:_MAX_PROBLEM]}
    return found


def fit(request: Mapping[str, Any], path: list[str], folder: Path) -> None:
    """Fits the recipe and writes its graph.

    Raises RecipeRefused for a package that is not the one that was asked for, and for what is no file.
    """
    points = find_entry_points(path).get(request["recipe"], [])
    point = next((point for point, package in points if package == request["package"]), None)
    if point is None:
        raise RecipeRefused(f"{request['package']} is not installed here")
    graph = point.load().fit(_read_rows(request, folder))
    if not isinstance(graph, bytes) or len(graph) > MAX_MODEL_BYTES:
        raise RecipeRefused(f"fit(rows) must return the bytes of an ONNX file, at most {MAX_MODEL_BYTES:,}")
    (folder / GRAPH_FILE).write_bytes(graph)


def finish(request: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """Writes the files of the bundle of a fitted graph; returns loss and accuracy.

    Raises RecipeRefused, ImportRefused and BundleRefused for a graph that cannot be taken.
    """
    schema = find_schema(request["schema"])
    assert schema is not None
    predictor = _write_and_try((folder / GRAPH_FILE).read_bytes(), schema, folder)
    rows = _read_rows(request, folder)
    sample = np.linspace(0, len(rows.labels) - 1, min(_FIT_ROWS, len(rows.labels))).astype(int)
    train_loss, _ = _score(predictor, rows.features[sample], rows.labels[sample])
    loss, accuracy = _score(predictor, rows.stop_features, rows.stop_labels)
    return {"train_loss": train_loss, "validation_loss": loss, "validation_accuracy": accuracy}


def _read_rows(request: Mapping[str, Any], folder: Path) -> Rows:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ROW_FILES}
    return Rows(**arrays, parameters=request["parameters"], seed=request["seed"])


def _write_and_try(data: bytes, schema: Schema, folder: Path) -> Predictor:
    """Writes the files of a bundle, and loads them as a bot does. Raises ImportRefused, BundleRefused."""
    graph = onnx_file.read_graph(data, schema.shape)
    payload = {MODEL_FILE: graph.model, WEIGHTS_FILE: save(graph.tensors)}
    if graph.scaler:
        payload[SCALER_FILE] = writer.encode_scaler(graph.scaler, schema)
    for name, content in payload.items():
        (folder / name).write_bytes(content)
    # The service writes the manifest: this one is for the trial alone.
    unknown = dict.fromkeys(("dataset", "windows", "training", "seed"))
    trial = {
        "coin": "",
        "line": "",
        "simulated": False,
        "code_version": "",
        "parameters": {"network": "onnx"},
    }
    contents = writer.describe_contents(schema, DEFAULT_LABEL, None, DEFAULT_SHARES, 3600, ())
    bundle = writer.write_files(folder / "trial", payload, {**contents, **unknown, **trial})
    try_bundle(bundle)
    return Predictor(bundle.folder)


def _score(predictor: Predictor, features: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean log loss and accuracy, each row alone as the gates measure them. Raises RecipeRefused if it is not finite."""
    logits = predictor.logits_by_row(features)
    if not np.isfinite(logits).all():
        raise RecipeRefused("its graph answers numbers that are not finite")
    with np.errstate(divide="ignore"):
        loss = -np.log(softmax(logits)[np.arange(len(labels)), labels]).mean()
    if not np.isfinite(loss):
        raise RecipeRefused("its graph gives a true class the probability 0, so its loss is not finite")
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def main(arguments: list[str] | None = None) -> int:
    options = _build_parser().parse_args(arguments)
    sys.path += (
        [options.packages] if options.packages else []
    )  # last: a package replaces nothing of the service
    try:
        if options.do == "describe":
            answer: dict[str, Any] = {"recipes": describe_all(sys.path, options.recipe)}
        elif options.do == "fit":
            fit(json.loads(options.request.read_bytes()), sys.path, Path.cwd())
            answer = {}
        else:
            answer = {"figures": finish(json.loads(options.request.read_bytes()), Path.cwd())}
    except MlcoreError as refused:
        answer = {"refused": str(refused)}
    except MemoryError:
        answer = {"refused": "it asks for more memory than a recipe may take"}
    options.answer.write_text(json.dumps(answer))
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlcore.importers.installed_recipe", description="Run recipes of packages."
    )
    parser.add_argument("do", choices=["describe", "fit", "finish"])
    parser.add_argument("--recipe", help="describe only this one")
    parser.add_argument("--packages", default="", help="a folder with packages, beside those of Python")
    parser.add_argument("--request", type=Path, help="recipe, package, input, parameters and seed, as JSON")
    parser.add_argument("--answer", type=Path, required=True, help="where the answer is written, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
