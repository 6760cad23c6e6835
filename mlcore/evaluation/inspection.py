"""What a bundle's files contain, without running them: digests, shapes, scaler, finite numbers.

Nothing here trusts the files or raises for a bad one: a part that cannot be read gives the reason in `problem`.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.numpy import load

from mlcore.bundle import format as bundle_format
from mlcore.bundle.format import MODEL_FILE, SCALER_FILE, WEIGHTS_FILE, Bundle, Layout, read_claim
from mlcore.bundle.onnx_graph import (
    SCALER_MEAN,
    SCALER_SCALE,
    build_model,
    list_attribute_tensors,
    list_tensor_shapes,
)
from mlcore.bundle.predictor import INPUT, Predictor
from mlcore.errors import BundleRefused, MlcoreError
from mlcore.features.indicators import find_schema
from mlcore.features.scaler import Scaler
from mlcore.fitting.installed import NETWORK

FAULTS = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError, OSError, DecodeError,
    SafetensorError,
)  # fmt: skip
"""What reading a damaged or hostile file may raise; MlcoreError is a ValueError."""

_SCALER_FIGURES = ("count", "columns")
_SCALER_FACTS = ("finite_means", "positive_scales", "names_equal_schema", "in_graph")
_Result = TypeVar("_Result")
_ListShapes = Callable[[Iterable[str]], dict[str, tuple[int, ...]]]


@dataclass
class Inspection:
    """The files of one folder, each read once, and what is wrong with them."""

    folder: Path
    expected_digest: str
    problems: list[str] = field(default_factory=list)

    @cached_property
    def bundle(self) -> Bundle | None:
        """By its manifest alone."""
        return self._try(lambda: bundle_format.read(self.folder))

    @cached_property
    def predictor(self) -> Predictor | None:
        """Loaded even if a digest differs: the page then still shows what these bytes would have done."""
        return self._try(lambda: Predictor(self.folder, verify=False))

    def require_predictor(self) -> Predictor:
        if self.predictor is None:
            raise BundleRefused("the bundle does not load, so its predictions could not be measured")
        return self.predictor

    def compute_logits(self, features: np.ndarray) -> np.ndarray:
        """float32 [n, 3]. Each row alone, as a bot asks, unless the graph is the service's own.

        Rows of a batch follow each other in time: a graph of somebody else may answer one from the rows behind it.
        """
        predictor = self.require_predictor()
        return predictor.logits(features) if self.is_own_graph else predictor.logits_by_row(features)

    @cached_property
    def is_own_graph(self) -> bool:
        """Whether the graph is, node for node and number for number, what the service writes of these weights.

        Such a graph answers each row from that row alone. A manifest that claims it is not enough.
        """
        try:
            return _is_own_graph(self.folder, self.bundle)
        except (*FAULTS, MlcoreError):
            return False

    @cached_property
    def digest_matches(self) -> bool:
        return self._try(lambda: bundle_format.verify(self.folder, self.expected_digest)) is not None

    @property
    def is_written_elsewhere(self) -> bool:
        """Imported as an ONNX file, or made by an installed recipe: its tensors are not those of the network."""
        document = self.bundle.manifest.document if self.bundle else {}
        is_of_others = "imported" in document or "recipe" in document
        return is_of_others and read_claim(document, "parameters", "network") == NETWORK

    def _try(self, read: Callable[[], _Result]) -> _Result | None:
        try:
            return read()
        except FAULTS as error:
            self.problems.append(_describe(error))
            return None

    def inspect_bundle(self) -> dict[str, Any]:
        matches, loads = self.digest_matches, self.predictor is not None
        shapes_match = self._try(
            lambda: _compare_shapes(self.folder, self.is_written_elsewhere, self._list_shapes)
        )
        problem = "; ".join(dict.fromkeys(self.problems)) or None
        return {"digest_matches": matches, "loads": loads, "shapes_match": shapes_match, "problem": problem}

    def inspect_scaler(self) -> dict[str, Any]:
        """Whether there is one; and if not, whether the manifest declares that the model needs none."""
        if self.bundle is not None and SCALER_FILE not in self.bundle.manifest.files:
            facts = dict.fromkeys(_SCALER_FACTS, False)
            is_needed = self.bundle.manifest.needs_scaler
            return {"present": False, "count": 0, **facts, "is_needed": is_needed, "problem": None}
        facts = _report(self._inspect_scaler, (*_SCALER_FIGURES, *_SCALER_FACTS))
        return {"present": (self.folder / SCALER_FILE).exists(), **facts}

    def _inspect_scaler(self) -> dict[str, Any]:
        if self.bundle is None:
            raise BundleRefused("the manifest cannot be read, so the feature schema is not known")
        columns = self.bundle.manifest.schema.columns
        names, scaler = read_scaler(self.folder)
        return {
            "count": min(len(scaler.mean), len(scaler.scale)),
            "columns": len(columns),
            "finite_means": bool(np.isfinite(scaler.mean).all()),
            "positive_scales": bool(np.isfinite(scaler.scale).all() and (scaler.scale > 0).all()),
            "names_equal_schema": names == columns,
            "in_graph": _is_scaled_by(_read_model(self.folder), scaler),
        }

    @cached_property
    def weights(self) -> dict[str, Any]:
        """Over every tensor and buffer of the weights file and every initializer of the graph."""
        return _report(self._inspect_weights, ("tensors", "non_finite", "equal_in_graph"))

    def _list_shapes(self, tensors: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Those that the manifest's input and layer widths ask for; the default ones without a manifest."""
        schema = find_schema(self.bundle.manifest.schema_name) if self.bundle else None
        if self.bundle is None or schema is None:
            return list_tensor_shapes(tensors)
        return list_tensor_shapes(tensors, math.prod(schema.shape), self.bundle.manifest.hidden_widths)

    def _inspect_weights(self) -> dict[str, Any]:
        stored, initializers = read_weights(self.folder), _read_initializers(_read_model(self.folder))
        tensors = {f"{WEIGHTS_FILE}:{name}": array for name, array in stored.items()}
        tensors |= {f"{MODEL_FILE}:{name}": array for name, array in initializers.items()}
        expected = _exclude_scaler(initializers) if self.is_written_elsewhere else self._list_shapes(stored)
        return {
            "tensors": len(tensors),
            "non_finite": sorted(name for name, array in tensors.items() if not np.isfinite(array).all()),
            "equal_in_graph": all(_is_same(stored.get(name), initializers.get(name)) for name in expected),
        }


def _report(inspect: Callable[[], dict[str, Any]], names: Iterable[str]) -> dict[str, Any]:
    """The facts; if they cannot be read, null for each of the names, and the reason in `problem`."""
    try:
        return {**inspect(), "problem": None}
    except FAULTS as error:
        return {**dict.fromkeys(names), "problem": _describe(error)}


def _describe(error: BaseException) -> str:
    message = str(error)[:300]
    return message if isinstance(error, BundleRefused) else f"{type(error).__name__}: {message}"


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of the weights file, unchecked. Raises one of FAULTS."""
    return load((folder / WEIGHTS_FILE).read_bytes())


def read_scaler(folder: Path) -> tuple[tuple[Any, ...], Scaler]:
    """The names and figures of scaler.json, unchecked. Raises one of FAULTS."""
    content = json.loads((folder / SCALER_FILE).read_bytes())
    mean, scale = (np.asarray(content[name], np.float64) for name in ("mean", "scale"))
    return tuple(content["names"]), Scaler(mean, scale)


def _read_model(folder: Path) -> onnx.ModelProto:
    return onnx.load_model_from_string((folder / MODEL_FILE).read_bytes())


def _is_own_graph(folder: Path, bundle: Bundle | None) -> bool:
    schema = find_schema(bundle.manifest.schema_name) if bundle else None
    if bundle is None or schema is None or bundle.manifest.document["parameters"].get("network") == NETWORK:
        return False
    layout = Layout(bundle.manifest.document["parameters"].get("layout") or Layout.RELU_BEFORE_BN)
    scaler = read_scaler(folder)[1] if SCALER_FILE in bundle.manifest.files else None
    own = onnx.load_model_from_string(build_model(read_weights(folder), scaler, layout, schema.shape))
    model = _read_model(folder)
    return bool(model.graph == own.graph and list(model.opset_import) == list(own.opset_import))


def _read_initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Every tensor of numbers in the graph, and those that trees keep in attributes.

    Raises BundleRefused for one in another file.
    """
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise BundleRefused(f"{MODEL_FILE} keeps {tensor.name} in another file, which no digest covers")
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return found | list_attribute_tensors(model.graph.node)


def _compare_shapes(folder: Path, is_written_elsewhere: bool, list_shapes: _ListShapes) -> bool:
    """Whether weights file and graph hold exactly the tensors of the network, each in its shape.

    For a graph that was written elsewhere: whether both hold the same tensors in the same shapes, and at least one.
    """
    stored, tensors = read_weights(folder), _exclude_scaler(_read_initializers(_read_model(folder)))
    in_file = {
        name: array.shape
        for name, array in stored.items()
        if is_written_elsewhere or not name.endswith("num_batches_tracked")
    }
    in_graph = {name: array.shape for name, array in tensors.items()}
    expected = in_graph if is_written_elsewhere else list_shapes(stored)
    return bool(expected) and in_file == expected and in_graph == expected


def _exclude_scaler(initializers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of the network; the scaler's have a file of their own."""
    return {name: array for name, array in initializers.items() if name not in (SCALER_MEAN, SCALER_SCALE)}


def _is_scaled_by(model: onnx.ModelProto, scaler: Scaler) -> bool:
    """Whether the graph's input goes through (x − mean) / scale of these figures, exactly once."""
    value = INPUT
    for operator, name in (("Sub", SCALER_MEAN), ("Div", SCALER_SCALE)):
        readers = [node for node in model.graph.node if value in node.input]
        if [(node.op_type, list(node.input)) for node in readers] != [(operator, [value, name])]:
            return False
        value = readers[0].output[0]
    if sum(name in (SCALER_MEAN, SCALER_SCALE) for node in model.graph.node for name in node.input) != 2:
        return False
    mean, scale = map(_read_initializers(model).get, (SCALER_MEAN, SCALER_SCALE))
    return _is_same(mean, scaler.mean) and _is_same(scale, scaler.scale)


def _is_same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None or a.shape != b.shape:
        return False
    return a.astype(np.float32).tobytes() == b.astype(np.float32).tobytes()
