"""Reads an ONNX file from outside, and writes its graph anew in our form: features → logits, and nothing besides.

Only known operators of plain arithmetic are taken: no subgraphs, no functions, no domains of others, no other files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mlcore.bundle.onnx_export import SCALER_MEAN, SCALER_SCALE
from mlcore.bundle.predictor import INPUT, OUTPUT
from mlcore.errors import ImportRefused
from mlcore.features.scaler import Scaler

MAX_NODES = 512
MAX_NUMBERS = 16 * 2**20
"""In all initializers together: the network itself has 62,000."""

OPERATORS = frozenset({
    "Add", "Sub", "Mul", "Div", "Neg", "Identity", "Dropout", "Cast", "Constant", "Gemm", "MatMul",
    "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Gelu", "Celu", "Clip", "Sigmoid", "HardSigmoid",
    "HardSwish", "Tanh", "Softplus", "Softsign", "Erf", "Sqrt", "Exp", "Log", "Pow", "Reciprocal", "Abs",
    "Max", "Min", "BatchNormalization", "LayerNormalization", "ReduceMean", "Flatten", "Reshape",
    "Squeeze", "Unsqueeze", "Transpose",
})  # fmt: skip
_TYPES = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}
_SUBGRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_MIN_OPSET, _MAX_OPSET, _MAX_IR = 9, 26, 13


@dataclass(frozen=True)
class ImportedGraph:
    model: bytes
    """Our form: raw features float32 [batch, 72] → logits [batch, 3]."""
    tensors: dict[str, np.ndarray]
    """Every tensor of the graph but the scaler's."""
    scaler: Scaler | None
    """Where the graph begins with (features - mean) / scale, of 72 figures each: read, not guessed."""


def read_graph(data: bytes) -> ImportedGraph:
    """Raises ImportRefused."""
    model = _parsed(data)
    _check_model(model)
    source, target = _ends(model)
    tensors = _tensors(model)
    nodes = [_copy(node) for node in model.graph.node if node.op_type != "Constant"]
    _rename(nodes, tensors, source, target)
    scaler = _scaler(nodes, tensors)
    rest = {name: array for name, array in tensors.items() if name not in (SCALER_MEAN, SCALER_SCALE)}
    if not rest:
        raise ImportRefused("its graph holds no tensor: there is nothing learned in it")
    return ImportedGraph(_written(nodes, tensors, model), rest, scaler)


def _parsed(data: bytes) -> ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise ImportRefused(
            "it is neither a checkpoint that torch.save wrote (since 1.6) nor an ONNX file, or it is cut off"
        ) from error
    if not model.graph.node:
        raise ImportRefused(
            "it is neither a checkpoint that torch.save wrote (since 1.6) nor an ONNX file with a graph in it"
        )
    return model


def _check_model(model: ModelProto) -> None:
    if (
        model.functions
        or model.training_info
        or model.graph.sparse_initializer
        or model.graph.quantization_annotation
    ):
        raise ImportRefused("its graph holds functions, training or sparse tensors; export a plain one")
    foreign = sorted({o.domain for o in model.opset_import} | {node.domain for node in model.graph.node})
    if outside := [domain for domain in foreign if domain not in ("", "ai.onnx")]:
        raise ImportRefused(f"it needs operators of {', '.join(outside)[:120]}; only ONNX's own are taken")
    opsets = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if len(opsets) != 1 or not _MIN_OPSET <= opsets[0] <= _MAX_OPSET or model.ir_version > _MAX_IR:
        raise ImportRefused(
            f"its operator set {opsets} or IR version {model.ir_version} is not one that is taken"
        )
    if len(model.graph.node) > MAX_NODES:
        raise ImportRefused(f"its graph has {len(model.graph.node):,} nodes; at most {MAX_NODES} are taken")
    for node in model.graph.node:
        _check_node(node)


def _check_node(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type in _SUBGRAPHS or attribute.HasField("g") or attribute.graphs:
            raise ImportRefused(
                f"its {node.op_type} holds a graph of its own; loops and branches are not taken"
            )
    if node.op_type not in OPERATORS:
        raise ImportRefused(
            f"its graph has the operator {node.op_type[:60]!r}, which a network of plain layers does not need"
            + ("; export the logits, not the probabilities" if "Softmax" in node.op_type else "")
        )


def _ends(model: ModelProto) -> tuple[str, str]:
    """Names of the one input [batch, 72] and the one output [batch, 3], both of floats."""
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in held]
    found = [(_described(value), value.name) for value in (*inputs, *model.graph.output)]
    if len(inputs) != 1 or [form for form, _ in found] != [("float", 2, 72), ("float", 2, 3)]:
        said = ", ".join(f"{name[:40]} {form}" for form, name in found[:6])
        raise ImportRefused(
            f"it must take floats [batch, 72] and answer floats [batch, 3]; it has {said or 'nothing'}"
        )
    return found[0][1], found[1][1]


def _described(value: Any) -> tuple[str, int, int]:
    kind = value.type.tensor_type
    dimensions = [dimension.dim_value for dimension in kind.shape.dim]
    word = "float" if kind.elem_type == TensorProto.FLOAT else "other"
    return word, len(dimensions), dimensions[-1] if dimensions else 0


def _tensors(model: ModelProto) -> dict[str, np.ndarray]:
    """Initializers, and Constant nodes with them: what the gates look for NaN in is then all there is."""
    protos = [(tensor.name, tensor) for tensor in model.graph.initializer]
    protos += [(node.output[0], _constant(node)) for node in model.graph.node if node.op_type == "Constant"]
    total = sum(_numbers(tensor) for _, tensor in protos)
    if total > MAX_NUMBERS:
        raise ImportRefused(f"its tensors declare {total:,} numbers; at most {MAX_NUMBERS:,} are taken")
    if len({name for name, _ in protos}) < len(protos):
        raise ImportRefused("it holds two tensors of one name")
    return {name: _array(tensor) for name, tensor in protos}


def _constant(node: NodeProto) -> TensorProto:
    values = {attribute.name: attribute for attribute in node.attribute}
    if len(values) != 1 or len(node.output) != 1 or node.input:
        raise ImportRefused("it holds a Constant that is none")
    ((name, attribute),) = values.items()
    if name == "value":
        return attribute.t
    if name in ("value_float", "value_int", "value_floats", "value_ints"):
        dtype = np.float32 if "float" in name else np.int64
        return numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), dtype))
    raise ImportRefused(f"it holds a Constant of the kind {name[:40]!r}")


def _numbers(tensor: TensorProto) -> int:
    """How many it declares, before any is read."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ImportRefused(
            f"it keeps {tensor.name[:60]!r} in another file; put the weights into the one file"
        )
    if tensor.data_type not in _TYPES or any(dimension < 0 for dimension in tensor.dims):
        raise ImportRefused(f"its tensor {tensor.name[:60]!r} is of a kind that is not taken")
    count = 1
    for dimension in tensor.dims:
        count *= dimension
    return count


def _array(tensor: TensorProto) -> np.ndarray:
    try:
        return np.ascontiguousarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise ImportRefused(f"its tensor {tensor.name[:60]!r} is damaged ({str(error)[:120]})") from error


def _copy(node: NodeProto) -> NodeProto:
    """Operator, names and attributes; no remarks, which may hold another machine's paths."""
    kept = NodeProto(op_type=node.op_type, input=node.input, output=node.output, attribute=node.attribute)
    for attribute in kept.attribute:
        attribute.ClearField("doc_string")
    return kept


def _rename(nodes: list[NodeProto], tensors: dict[str, np.ndarray], source: str, target: str) -> None:
    """Input and output get our names; whatever else has one of ours is numbered out of the way."""
    if source == target:
        raise ImportRefused("its output is its input")
    names = {name for node in nodes for name in (*node.input, *node.output)} | set(tensors)
    taken = {name: _free(name, names) for name in names & {INPUT, OUTPUT, SCALER_MEAN, SCALER_SCALE}}
    new = {**taken, source: INPUT, target: OUTPUT}
    for node in nodes:
        for values in (node.input, node.output):
            values[:] = [new.get(name, name) for name in values]
    for name in sorted(set(tensors) & set(new)):
        tensors[new[name]] = tensors.pop(name)


def _free(name: str, names: set[str]) -> str:
    """A name near this one that nothing has."""
    while name in names:
        name = f"imported.{name}"
    return name


def _scaler(nodes: list[NodeProto], tensors: dict[str, np.ndarray]) -> Scaler | None:
    """The scaler that the graph begins with, its tensors renamed to ours; None where it begins otherwise."""
    centre = _only_reader(nodes, INPUT, "Sub", tensors)
    scale = _only_reader(nodes, centre.output[0], "Div", tensors) if centre else None
    if centre is None or scale is None:
        return None
    for node, name in ((centre, SCALER_MEAN), (scale, SCALER_SCALE)):
        array = tensors[node.input[1]].reshape(-1).astype(np.float32)
        if not any(node.input[1] in other.input for other in nodes if other is not node):
            del tensors[node.input[1]]
        tensors[name] = array
        node.input[1] = name
    return Scaler(*(tensors[name].astype(np.float64) for name in (SCALER_MEAN, SCALER_SCALE)))


def _only_reader(
    nodes: list[NodeProto], value: str, operator: str, tensors: dict[str, np.ndarray]
) -> NodeProto | None:
    """The node that alone reads `value`, if it is this operator with 72 stored figures as its second input."""
    readers = [node for node in nodes if value in node.input]
    if len(readers) != 1 or readers[0].op_type != operator or readers[0].input[0] != value:
        return None
    stored = tensors.get(readers[0].input[1])
    return readers[0] if stored is not None and stored.shape in ((72,), (1, 72)) else None


def _written(nodes: list[NodeProto], tensors: dict[str, np.ndarray], model: ModelProto) -> bytes:
    graph = helper.make_graph(
        nodes,
        "candidate",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 72])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", 3])],
        list(_initializers(tensors)),
    )
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    written = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=max(8, model.ir_version),
        producer_name="",
    )
    return bytes(written.SerializeToString(deterministic=True))


def _initializers(tensors: dict[str, np.ndarray]) -> Iterator[TensorProto]:
    for name in sorted(tensors):
        yield numpy_helper.from_array(tensors[name], name)
