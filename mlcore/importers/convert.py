"""Makes a bundle of a checkpoint from outside: a torch .pt, or an ONNX file.

    python -m mlcore.importers.convert --file FILE --request REQUEST.json --bundle DIR --answer ANSWER.json

What the file does not say is asked for, and never guessed: it is refused, or the bundle goes without (and its gates say
so). Nothing in the file is run but the arithmetic of its layers; run it in a process of its own all the same.
"""

import argparse
import dataclasses
import hashlib
import json
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from mlcore.bundle import format as bundle_format
from mlcore.bundle import onnx_export, writer
from mlcore.bundle.format import MODEL_FILE, SCALER_FILE, WEIGHTS_FILE, Bundle, Layout
from mlcore.bundle.predictor import Predictor
from mlcore.constants import CLASSES
from mlcore.errors import ImportRefused, MlcoreError
from mlcore.features import indicators, labels
from mlcore.features.indicators import Schema
from mlcore.features.scaler import Scaler
from mlcore.importers import archive, onnx_model

if TYPE_CHECKING:
    from mlcore.importers.torch_checkpoint import TorchCheckpoint

_ZIP = b"PK\x03\x04"
_LIBRARIES = ("numpy", "onnx", "safetensors")
_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "subprocess.Popen",
    "socket.",
)
_SAID_BY_SCHEMA = (
    "It names no features: they are taken to be those of {schema}, in its order, because you said so."
)
_WITHOUT_SCALER = "It holds no scaler: the bundle has none, and the scaler gate will fail."


@dataclass(frozen=True)
class Request:
    """What the person who imports a checkpoint says of it."""

    coin: str
    line: str
    schema: str | None
    layout: str | None
    simulated: bool
    code_version: str


@dataclass(frozen=True)
class _Sound:
    """What a file came to: what of a bundle it fills, and what to tell the person."""

    model: bytes
    weights: dict[str, np.ndarray]
    scaler: Scaler | None
    parameters: dict[str, Any]
    notes: list[str]


def import_model(data: bytes, request: Request, folder: Path) -> tuple[Bundle, list[str]]:
    """Writes the bundle; answers it and what the person should know.

    Raises ImportRefused saying what is wrong, or what has to be said before it can be taken.
    """
    schema = _schema(request.schema)
    is_torch = data.startswith(_ZIP)
    sound = (
        _from_torch(data, schema, request.layout) if is_torch else _from_onnx(data, schema, request.layout)
    )
    payload = {MODEL_FILE: sound.model, WEIGHTS_FILE: save(sound.weights)}
    if sound.scaler:
        payload[SCALER_FILE] = writer.encode_scaler(sound.scaler, schema)
    source = {"sha256": hashlib.sha256(data).hexdigest(), "kind": "torch" if is_torch else "onnx"}
    written = writer.write_files(folder, payload, _manifest(request, schema, source, sound.parameters))
    _try(written)
    return written, sound.notes


def _schema(name: str | None) -> Schema:
    if name is None:
        raise ImportRefused(
            f"which features it takes has to be said: {' and '.join(indicators.SCHEMAS)} share their names and mean"
            " other figures. Say the schema"
        )
    if name not in indicators.SCHEMAS:
        raise ImportRefused(f"there is no feature schema {name!r}; choose {' or '.join(indicators.SCHEMAS)}")
    return indicators.SCHEMAS[name]


def _from_torch(data: bytes, schema: Schema, layout: str | None) -> _Sound:
    archive.check_archive(data)
    from mlcore.importers import torch_checkpoint  # torch takes seconds to load: only for what it is to read

    found = torch_checkpoint.read_checkpoint(data)
    if layout is None:
        raise ImportRefused(
            "its weights do not tell whether BatchNorm comes before or after ReLU. Say the layout:"
            f" {' or '.join(Layout)}"
        )
    chosen = _layout(layout)
    ordered = _in_order(found, schema)
    weights = _tempered(ordered.weights, ordered.temperature)
    scaler = _in_graph(ordered.scaler) if ordered.scaler else None
    parameters = {
        "network": "perceptron",
        "layout": chosen.value,
        "temperature": ordered.temperature,
        "feature_names": "in the file" if found.columns else "said",
    }
    model = onnx_export.build_model(weights, scaler, chosen)
    return _Sound(model, weights, scaler, parameters, _notes(found, schema))


def _from_onnx(data: bytes, schema: Schema, layout: str | None) -> _Sound:
    found = onnx_model.read_graph(data)
    if layout is not None:
        raise ImportRefused("an ONNX graph says itself in which order its layers come: leave the layout out")
    notes = [_SAID_BY_SCHEMA.format(schema=schema.name)]
    if found.scaler is None:
        notes.append(
            "Its graph does not begin with (features - mean) / scale of 72 figures each. " + _WITHOUT_SCALER
        )
    parameters = {"network": "onnx", "layout": None, "temperature": None, "feature_names": "said"}
    scaler = _in_graph(found.scaler) if found.scaler else None
    return _Sound(found.model, found.tensors, scaler, parameters, notes)


def _layout(name: str) -> Layout:
    try:
        return Layout(name)
    except ValueError:
        raise ImportRefused(f"there is no layout {name!r}; choose {' or '.join(Layout)}") from None


def _in_order(found: "TorchCheckpoint", schema: Schema) -> "TorchCheckpoint":
    """With the first layer's columns, and the scaler's, where the schema has them. They were named: nothing is guessed."""
    if found.columns is None or found.columns == schema.columns:
        return found
    _check_names(found.columns, schema)
    places = [found.columns.index(name) for name in schema.columns]
    weights = {**found.weights, "fc1.weight": np.ascontiguousarray(found.weights["fc1.weight"][:, places])}
    scaler = found.scaler and Scaler(found.scaler.mean[places], found.scaler.scale[places])
    return dataclasses.replace(found, weights=weights, scaler=scaler)


def _check_names(columns: tuple[str, ...], schema: Schema) -> None:
    if unknown := sorted(set(columns) - set(schema.columns)):
        raise ImportRefused(f"{schema.name} has no features named {_listed(unknown)}")
    if missing := [name for name in schema.columns if name not in columns]:
        raise ImportRefused(f"its feature names lack {_listed(missing)}")
    if len(columns) != len(schema.columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise ImportRefused(f"its feature names hold {_listed(twice)} more than once")


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _tempered(weights: dict[str, np.ndarray], temperature: float | None) -> dict[str, np.ndarray]:
    """Logits divided by the temperature are the logits of a last layer divided by it."""
    if temperature is None:
        return weights
    last = {name: weights[name] for name in ("fc4.weight", "fc4.bias")}
    with np.errstate(over="ignore"):
        divided = {
            name: (array.astype(np.float64) / temperature).astype(np.float32) for name, array in last.items()
        }
    for name, array in divided.items():
        if np.isinf(array).any() and not np.isinf(last[name]).any():
            raise ImportRefused(f"its temperature of {temperature:g} takes {name} beyond what float32 holds")
    return {**weights, **divided}


def _in_graph(scaler: Scaler) -> Scaler:
    """Raises ImportRefused for figures that a scaler.json cannot hold: they would be lost, not judged."""
    for name, figures in (("mean", scaler.mean), ("scale", scaler.scale)):
        if not np.isfinite(figures).all():
            raise ImportRefused(f"its scaler's {name} holds figures that are not finite")
    return scaler


def _notes(found: "TorchCheckpoint", schema: Schema) -> list[str]:
    notes = []
    if found.columns is None:
        notes.append(_SAID_BY_SCHEMA.format(schema=schema.name))
    elif found.columns != schema.columns:
        notes.append(f"Its features were named in another order; they are put in {schema.name}'s.")
    if found.scaler is None:
        notes.append(_WITHOUT_SCALER)
    if found.temperature is not None:
        notes.append(f"Its logits are divided by its temperature, {found.temperature:g}.")
    if found.ignored:
        notes.append(f"Not used: {_listed(list(found.ignored))}.")
    return notes


def _manifest(
    request: Request, schema: Schema, source: dict[str, str], parameters: dict[str, Any]
) -> dict[str, Any]:
    """What is not known of a bundle from outside is null: windows, seed, training, the candles it learned from."""
    return {
        "format": bundle_format.FORMAT,
        "coin": request.coin,
        "line": request.line,
        "parameters": parameters,
        "schema": {"name": schema.name, "digest": schema.digest, "lookback": schema.lookback},
        "classes": list(CLASSES),
        "labels": {"horizon": labels.HORIZON_BARS, "volatility_bars": labels.VOLATILITY_BARS, "cuts": None},
        "dataset": None,
        "windows": None,
        "training": None,
        "seed": None,
        "simulated": request.simulated,
        "imported": source,
        "code_version": request.code_version,
        "libraries": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    }


def _try(written: Bundle) -> None:
    """It loads as the bot would load it, and answers one row and several. Raises BundleRefused."""
    predictor = Predictor(written.folder)
    rng = np.random.default_rng(0)
    for rows in (1, 7):
        found = predictor.logits(rng.normal(size=(rows, len(predictor.schema.columns))))
        if found.shape != (rows, len(CLASSES)):
            raise ImportRefused(
                f"its graph answers {rows} rows with {found.shape}, not with three logits a row"
            )


def _forbid_programs(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: whatever finds a way to run something, finds no way to start a program or to call out."""
    if event.startswith(_FORBIDDEN):
        raise PermissionError(f"{event} is forbidden while a checkpoint is read")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    sys.addaudithook(_forbid_programs)
    try:
        request = Request(**json.loads(options.request.read_bytes()))
        written, notes = import_model(options.file.read_bytes(), request, options.bundle)
        answer: dict[str, Any] = {"digest": written.digest, "notes": notes}
    except MlcoreError as refused:
        answer = {"refused": str(refused)}
    except MemoryError:
        answer = {"refused": "it asks for more memory than a checkpoint may take"}
    options.answer.write_text(json.dumps(answer))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlcore.importers.convert", description="Make a bundle of a checkpoint."
    )
    parser.add_argument("--file", type=Path, required=True, help="the checkpoint")
    parser.add_argument("--request", type=Path, required=True, help="what is said of it, as JSON")
    parser.add_argument("--bundle", type=Path, required=True, help="the folder that the bundle becomes")
    parser.add_argument("--answer", type=Path, required=True, help="where the answer goes, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
