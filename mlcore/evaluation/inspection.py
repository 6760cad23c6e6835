"""What a bundle's files say without being run: digests, shapes, scaler, finite numbers.

Nothing here trusts the files, and nothing here raises for a bad one: a part that cannot be read says why in `problem`.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.numpy import load

from mlcore.bundle import format as bundle
from mlcore.bundle import onnx_export
from mlcore.bundle.format import MODEL_FILE, SCALER_FILE, WEIGHTS_FILE, Bundle
from mlcore.bundle.onnx_export import SCALER_MEAN, SCALER_SCALE
from mlcore.bundle.predictor import INPUT, Predictor
from mlcore.errors import BundleRefused

FAULTS = (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, DecodeError, SafetensorError)
"""What reading a damaged or hostile file raises; MlcoreError is a ValueError."""

_SCALER_FACTS = ("finite_means", "positive_scales", "names_equal_schema", "in_graph")


@dataclass
class Inspection:
    """The files of one folder, each read once, and what is wrong with them."""

    folder: Path
    expected_digest: str
    problems: list[str] = field(default_factory=list)

    @cached_property
    def bundle(self) -> Bundle | None:
        """By its manifest alone."""
        return self._tried(lambda: bundle.read(self.folder))

    @cached_property
    def predictor(self) -> Predictor | None:
        """Loaded even when a digest differs: the page then still shows what those bytes would have done."""
        return self._tried(lambda: Predictor(self.folder, verify=False))

    @cached_property
    def digest_matches(self) -> bool:
        return self._tried(lambda: bundle.verify(self.folder, self.expected_digest)) is not None

    @property
    def is_any_graph(self) -> bool:
        """Imported as an ONNX file: its tensors are whatever they are, and not those of the network."""
        document = self.bundle.manifest.document if self.bundle else {}
        parameters = document.get("parameters")
        return "imported" in document and isinstance(parameters, dict) and parameters.get("network") == "onnx"

    def _tried(self, reading: Any) -> Any:
        try:
            return reading()
        except FAULTS as error:
            self.problems.append(_said(error))
            return None

    def bundle_part(self) -> dict[str, Any]:
        matches, loads = self.digest_matches, self.predictor is not None
        shapes_match = self._tried(lambda: _shapes_match(self.folder, self.is_any_graph))
        problem = "; ".join(dict.fromkeys(self.problems)) or None
        return {"digest_matches": matches, "loads": loads, "shapes_match": shapes_match, "problem": problem}

    def scaler_part(self) -> dict[str, Any]:
        if self.bundle is not None and SCALER_FILE not in self.bundle.manifest.files:
            return {"present": False, "count": 0, **dict.fromkeys(_SCALER_FACTS, False), "problem": None}
        try:
            return {"present": True, **_scaler_facts(self.folder, self._columns()), "problem": None}
        except FAULTS as error:
            unknown = dict.fromkeys(("count", *_SCALER_FACTS))
            return {"present": (self.folder / SCALER_FILE).exists(), **unknown, "problem": _said(error)}

    @cached_property
    def weights_part(self) -> dict[str, Any]:
        """Over every tensor and buffer of the weights file and every initializer of the graph."""
        try:
            stored, initializers = read_weights(self.folder), _initializers(_model(self.folder))
        except FAULTS as error:
            return {"tensors": None, "non_finite": None, "equal_in_graph": None, "problem": _said(error)}
        everything = {f"{WEIGHTS_FILE}:{name}": array for name, array in stored.items()}
        everything |= {f"{MODEL_FILE}:{name}": array for name, array in initializers.items()}
        non_finite = sorted(name for name, array in everything.items() if not np.isfinite(array).all())
        expected = _own(initializers) if self.is_any_graph else onnx_export.list_tensor_shapes(stored)
        equal = all(_is_same(stored.get(name), initializers.get(name)) for name in expected)
        return {
            "tensors": len(everything),
            "non_finite": non_finite,
            "equal_in_graph": equal,
            "problem": None,
        }

    def _columns(self) -> tuple[str, ...]:
        if self.bundle is None:
            raise BundleRefused("the manifest cannot be read, so the feature schema is not known")
        return self.bundle.manifest.schema.columns


def _said(error: BaseException) -> str:
    return (
        str(error)[:300]
        if isinstance(error, BundleRefused)
        else f"{type(error).__name__}: {str(error)[:300]}"
    )


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of the weights file, whatever they are worth. Raises one of FAULTS."""
    return load((folder / WEIGHTS_FILE).read_bytes())


def _model(folder: Path) -> onnx.ModelProto:
    return onnx.load_model_from_string((folder / MODEL_FILE).read_bytes())


def _initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Every tensor of numbers in the graph. Raises BundleRefused for one kept in a file of its own."""
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise BundleRefused(f"{MODEL_FILE} keeps {tensor.name} in another file, which no digest covers")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _shapes_match(folder: Path, is_any_graph: bool) -> bool:
    """Weights file and graph hold exactly the tensors of the network, each in its shape.

    Of any other graph: both hold the same tensors, some, and each in the same shape.
    """
    stored, own = read_weights(folder), _own(_initializers(_model(folder)))
    in_file = {
        name: array.shape
        for name, array in stored.items()
        if is_any_graph or not name.endswith("num_batches_tracked")
    }
    in_graph = {name: array.shape for name, array in own.items()}
    expected = in_graph if is_any_graph else onnx_export.list_tensor_shapes(stored)
    return bool(expected) and in_file == expected and in_graph == expected


def _own(initializers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of the network itself: the scaler's stand in a file of their own."""
    return {name: array for name, array in initializers.items() if name not in (SCALER_MEAN, SCALER_SCALE)}


def _scaler_facts(folder: Path, columns: tuple[str, ...]) -> dict[str, Any]:
    figures = json.loads((folder / SCALER_FILE).read_bytes())
    mean, scale = np.asarray(figures["mean"], np.float64), np.asarray(figures["scale"], np.float64)
    return {
        "count": min(len(mean), len(scale)),
        "finite_means": bool(np.isfinite(mean).all()),
        "positive_scales": bool(np.isfinite(scale).all() and (scale > 0).all()),
        "names_equal_schema": tuple(figures["names"]) == columns,
        "in_graph": _scales_by(_model(folder), mean, scale),
    }


def _scales_by(model: onnx.ModelProto, mean: np.ndarray, scale: np.ndarray) -> bool:
    """The graph's input goes through (x − mean) / scale of just these figures, once, and nowhere else."""
    readers = [node for node in model.graph.node if INPUT in node.input]
    if [(node.op_type, list(node.input)) for node in readers] != [("Sub", [INPUT, SCALER_MEAN])]:
        return False
    centred = readers[0].output[0]
    readers = [node for node in model.graph.node if centred in node.input]
    if [(node.op_type, list(node.input)) for node in readers] != [("Div", [centred, SCALER_SCALE])]:
        return False
    if sum(name in (SCALER_MEAN, SCALER_SCALE) for node in model.graph.node for name in node.input) != 2:
        return False
    held = _initializers(model)
    return _is_same(held.get(SCALER_MEAN), mean) and _is_same(held.get(SCALER_SCALE), scale)


def _is_same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return one.astype(np.float32).tobytes() == other.astype(np.float32).tobytes()
