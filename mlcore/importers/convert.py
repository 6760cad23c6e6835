"""Makes a bundle of an imported model: a torch checkpoint (.pt) or an ONNX file.

    python -m mlcore.importers.convert --file FILE --request REQUEST.json --bundle DIR --answer ANSWER.json

Nothing is guessed. What the file does not say must be in the request, or the import is refused, or the bundle lacks it
and its gates say so. Only the arithmetic of the layers is run; even so, run this in a process of its own.
"""

import argparse
import dataclasses
import hashlib
import json
import resource
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from mlcore.bundle import onnx_graph, writer
from mlcore.bundle.format import MODEL_FILE, SCALER_FILE, WEIGHTS_FILE, Bundle, Layout
from mlcore.bundle.predictor import Predictor
from mlcore.constants import CLASSES
from mlcore.errors import BundleRefused, ImportRefused, MlcoreError
from mlcore.features.indicators import SCHEMAS, Schema, describe_inputs, find_schema
from mlcore.features.labels import DEFAULT_LABEL
from mlcore.features.scaler import Scaler
from mlcore.features.splits import DEFAULT_SHARES
from mlcore.importers import onnx_file
from mlcore.importers.declaration import Declaration
from mlcore.importers.onnx_file import RAW_SCORES, ImportedGraph
from mlcore.importers.other_files import refuse_other_file

if TYPE_CHECKING:
    from mlcore.importers.torch_file import TorchCheckpoint

MAX_MEMORY_BYTES = 2**30
"""Beyond what the process has already, for a batch of `_TRIED_ROWS`."""
MAX_ROW_SECONDS = 1.0
"""The gate *latency* asks for far less; a graph that is slower than this hinders the gates themselves."""
_TRIED_ROWS, _TIMED_ROWS = 512, 5
_SUM_TOLERANCE = 5e-3
"""How far from 1 the three probabilities of a row add up to, in float16 at worst."""

_ZIP = b"PK\x03\x04"
_LIBRARIES = ("numpy", "onnx", "safetensors")
_FORBIDDEN_EVENTS = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.",
)  # fmt: skip
_SCHEMA_NOTE = "It names no features: as you said, they are taken to be those of {schema}, in its order."
_SCALER_NOTE = "It holds no scaler: the bundle has none, and the scaler gate will fail."


@dataclass(frozen=True)
class Request:
    """What the person who imports a model says about it."""

    coin: str
    line: str
    schema: str | None
    layout: str | None
    simulated: bool
    interval_seconds: int
    """Of the bars that it was trained on: the file does not say."""
    code_version: str
    declaration: Mapping[str, Any] | None = None
    """What it was trained on and with which figures (`declaration`); None if nothing is declared."""


_Import = tuple[ImportedGraph, dict[str, Any], list[str]]
"""The parts of a bundle that the file contains, the manifest's parameters, and notes for the person."""


def import_model(data: bytes, request: Request, folder: Path) -> tuple[Bundle, list[str]]:
    """Writes the bundle and returns it with notes for the person.

    Raises ImportRefused, which says what is wrong or what the request must add.
    """
    schema_unsaid = (
        f"the file does not name its feature schema: {' and '.join(SCHEMAS)} share feature names with different"
        " meanings. Say the schema"
    )
    schema = _choose_schema(request.schema, schema_unsaid)
    declared = None if request.declaration is None else Declaration.parse(request.declaration)
    refuse_other_file(data)
    is_torch = data.startswith(_ZIP)
    if is_torch and schema.is_window:
        raise ImportRefused(
            "a checkpoint's network takes 72 features; export a model of windows as an ONNX file"
        )
    graph, parameters, notes = (_import_torch if is_torch else _import_onnx)(data, schema, request.layout)
    payload = {MODEL_FILE: graph.model, WEIGHTS_FILE: save(graph.tensors)}
    if graph.scaler:
        if declared and not declared.needs_scaler:
            raise ImportRefused("the declaration says that it needs no scaler, and its graph begins with one")
        _refuse_non_finite(graph.scaler)
        payload[SCALER_FILE] = writer.encode_scaler(graph.scaler, schema)
    source = {"sha256": hashlib.sha256(data).hexdigest(), "kind": "torch" if is_torch else "onnx"}
    if declared and not declared.needs_scaler:
        notes = [note for note in notes if _SCALER_NOTE not in note]
    document = _build_manifest(request, schema, declared, source, parameters)
    bundle = writer.write_files(folder, payload, document)
    try_bundle(bundle)
    return bundle, notes


def _choose_schema(name: str | None, unsaid: str) -> Schema:
    schema = find_schema(name) if name else None
    if name is None or schema is None:
        raise ImportRefused(
            unsaid
            if name is None
            else f"there is no feature schema {name[:40]!r}; choose {describe_inputs()}"
        )
    return schema


def _require_choice(kind: str, chosen: str | None, choices: Sequence[str], unsaid: str) -> str:
    if chosen is None:
        raise ImportRefused(unsaid)
    if chosen not in choices:
        raise ImportRefused(f"there is no {kind} {chosen!r}; choose {' or '.join(choices)}")
    return chosen


def _import_torch(data: bytes, schema: Schema, layout_name: str | None) -> _Import:
    from mlcore.importers import torch_file  # imported here because torch takes seconds to load

    checkpoint = torch_file.read_checkpoint(data)
    layout_unsaid = (
        "its weights do not tell whether BatchNorm comes before or after ReLU. Say the layout:"
        f" {' or '.join(Layout)}"
    )
    layout = Layout(_require_choice("layout", layout_name, tuple(Layout), layout_unsaid))
    ordered = _order_columns(checkpoint, schema)
    weights = _apply_temperature(ordered.weights, ordered.temperature)
    parameters = {
        "network": "perceptron",
        "layout": str(layout),
        "temperature": ordered.temperature,
        "feature_names": "in the file" if checkpoint.columns else "in the request",
    }
    model = onnx_graph.build_model(weights, ordered.scaler, layout)
    return ImportedGraph(model, weights, ordered.scaler), parameters, _write_notes(checkpoint, schema)


def _import_onnx(data: bytes, schema: Schema, layout_name: str | None) -> _Import:
    graph = onnx_file.read_graph(data, schema.shape)
    if layout_name is not None:
        raise ImportRefused("leave the layout out: an ONNX graph states the order of its layers")
    notes = [_SCHEMA_NOTE.format(schema=schema.name)]
    if graph.scaler is None:
        notes.append(
            f"Its graph does not begin with (features - mean) / scale of {len(schema.columns)} figures each."
            f" {_SCALER_NOTE}"
        )
    parameters = {"network": "onnx", "layout": None, "temperature": None, "feature_names": "in the request"}
    return graph, parameters, notes


def _order_columns(checkpoint: "TorchCheckpoint", schema: Schema) -> "TorchCheckpoint":
    """Puts the columns of the first layer and of the scaler in the schema's order, by their names."""
    if checkpoint.columns is None or checkpoint.columns == schema.columns:
        return checkpoint
    _check_names(checkpoint.columns, schema)
    order = [checkpoint.columns.index(name) for name in schema.columns]
    first = np.ascontiguousarray(checkpoint.weights["fc1.weight"][:, order])
    scaler = checkpoint.scaler and Scaler(checkpoint.scaler.mean[order], checkpoint.scaler.scale[order])
    return dataclasses.replace(checkpoint, weights={**checkpoint.weights, "fc1.weight": first}, scaler=scaler)


def _check_names(columns: tuple[str, ...], schema: Schema) -> None:
    if unknown := sorted(set(columns) - set(schema.columns)):
        raise ImportRefused(f"{schema.name} has no features named {_format_names(unknown)}")
    if missing := [name for name in schema.columns if name not in columns]:
        raise ImportRefused(f"its feature names lack {_format_names(missing)}")
    if len(columns) != len(schema.columns):
        repeated = sorted(name for name, count in Counter(columns).items() if count > 1)
        raise ImportRefused(f"its feature names hold {_format_names(repeated)} more than once")


def _format_names(names: list[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _apply_temperature(weights: dict[str, np.ndarray], temperature: float | None) -> dict[str, np.ndarray]:
    """Dividing the last layer by the temperature divides the logits by it."""
    if temperature is None:
        return weights
    divided = dict(weights)
    for name in ("fc4.weight", "fc4.bias"):
        with np.errstate(over="ignore"):
            divided[name] = (weights[name].astype(np.float64) / temperature).astype(np.float32)
        if np.isinf(divided[name]).any() and not np.isinf(weights[name]).any():
            raise ImportRefused(f"its temperature of {temperature:g} takes {name} beyond what float32 holds")
    return divided


def _refuse_non_finite(scaler: Scaler) -> None:
    """scaler.json cannot hold these figures: they would be lost, not judged."""
    for name, figures in (("mean", scaler.mean), ("scale", scaler.scale)):
        if not np.isfinite(figures).all():
            raise ImportRefused(f"its scaler's {name} holds figures that are not finite")


def _write_notes(checkpoint: "TorchCheckpoint", schema: Schema) -> list[str]:
    notes = []
    if checkpoint.columns is None:
        notes.append(_SCHEMA_NOTE.format(schema=schema.name))
    elif checkpoint.columns != schema.columns:
        notes.append(f"Its features were in another order; they were put in {schema.name}'s order.")
    if checkpoint.scaler is None:
        notes.append(_SCALER_NOTE)
    if checkpoint.temperature is not None:
        notes.append(f"Its logits are divided by its temperature, {checkpoint.temperature:g}.")
    if checkpoint.ignored:
        notes.append(f"Not used: {_format_names(list(checkpoint.ignored))}.")
    return notes


def _build_manifest(
    request: Request,
    schema: Schema,
    declared: Declaration | None,
    source: dict[str, str],
    parameters: dict[str, Any],
) -> dict[str, Any]:
    """What is not declared is null: windows, training, label cuts, and the candles of the training."""
    label, shares = (declared.label, declared.shares) if declared else (DEFAULT_LABEL, DEFAULT_SHARES)
    cuts, seconds = declared.cuts if declared else None, request.interval_seconds
    return {
        **writer.describe_contents(schema, label, cuts, shares, seconds, _LIBRARIES),
        **dict.fromkeys(("dataset", "windows", "training", "seed")),
        **(declared.describe() if declared else {}),
        "coin": request.coin,
        "line": request.line,
        "parameters": parameters,
        "simulated": request.simulated,
        "imported": source,
        "code_version": request.code_version,
    }


def try_bundle(bundle: Bundle) -> None:
    """Loads it as the bot does, and predicts one row and several. Raises BundleRefused, ImportRefused.

    Memory counts from before it is loaded: what a few numbers of the graph expand to is computed then, and kept.
    """
    before = _measure_peak_bytes()
    predictor = Predictor(bundle.folder)
    rng = np.random.default_rng(0)
    for rows in (1, 7, _TRIED_ROWS):
        batch = rng.normal(size=(rows, *predictor.schema.shape)).astype(np.float32)
        try:
            logits = predictor.logits(batch)
        except BundleRefused as refused:
            advice = "if its first dimension is fixed, export it with a dynamic batch"
            raise ImportRefused(f"{refused}; {advice}") from refused
        if logits.shape != (rows, len(CLASSES)):
            raise ImportRefused(
                f"its graph answers {rows} rows with {logits.shape}, not with three logits a row"
            )
    _refuse_probabilities(logits)
    if (taken := _measure_peak_bytes() - before) > MAX_MEMORY_BYTES:
        raise ImportRefused(
            f"its graph takes {taken:,} bytes of memory, loaded and for {_TRIED_ROWS} rows; at most {MAX_MEMORY_BYTES:,} are"
            " allowed: make it smaller"
        )
    _time_single_rows(predictor)


def _refuse_probabilities(logits: np.ndarray) -> None:
    """However the graph is written: logits of many rows do not all lie between 0 and 1 and add up to 1."""
    is_share = (logits >= 0).all() and (logits <= 1).all()
    if is_share and np.abs(logits.sum(axis=1) - 1).max() < _SUM_TOLERANCE:
        raise ImportRefused(
            f"it answers {len(logits)} rows with probabilities: export the logits. {RAW_SCORES}"
        )


def _measure_peak_bytes() -> int:
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _time_single_rows(predictor: Predictor) -> None:
    """Raises ImportRefused if the quickest of a few single rows takes longer than a row may."""
    row = np.zeros((1, *predictor.schema.shape), np.float32)
    seconds = []
    for _ in range(_TIMED_ROWS):
        start = perf_counter()
        predictor.logits(row)
        seconds.append(perf_counter() - start)
    if min(seconds) > MAX_ROW_SECONDS:
        raise ImportRefused(
            f"one row takes {min(seconds):.2g} s; at most {MAX_ROW_SECONDS:g} s are allowed: make it smaller"
        )


def _forbid_programs(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: code that a file manages to run can start no program and open no connection."""
    if event.startswith(_FORBIDDEN_EVENTS):
        raise PermissionError(f"{event} is forbidden while a model is imported")


def main(arguments: list[str] | None = None) -> int:
    options = _build_parser().parse_args(arguments)
    sys.addaudithook(_forbid_programs)
    try:
        request = Request(**json.loads(options.request.read_bytes()))
        bundle, notes = import_model(options.file.read_bytes(), request, options.bundle)
        answer: dict[str, Any] = {"digest": bundle.digest, "notes": notes}
    except MlcoreError as error:
        answer = {"refused": str(error)}
    except MemoryError:
        answer = {"refused": "it asks for more memory than a model may take"}
    options.answer.write_text(json.dumps(answer))
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlcore.importers.convert", description="Make a bundle of an imported model."
    )
    parser.add_argument("--file", type=Path, required=True, help="the torch checkpoint or ONNX file")
    parser.add_argument("--request", type=Path, required=True, help="what the person says about it, as JSON")
    parser.add_argument("--bundle", type=Path, required=True, help="the new bundle's folder")
    parser.add_argument("--answer", type=Path, required=True, help="where the answer is written, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
