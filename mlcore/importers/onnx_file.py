"""Reads an ONNX file from outside and writes its graph in the form of a bundle: features → logits, nothing else.

Only operators of `graph_limits` are allowed: no subgraphs, no functions, no custom domains, no other files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mlcore.bundle.graph_limits import MAX_NODES, TREES, find_fault
from mlcore.bundle.onnx_graph import (
    IR_VERSION,
    SCALER_MEAN,
    SCALER_SCALE,
    encode_model,
    list_attribute_tensors,
)
from mlcore.bundle.predictor import INPUT, OUTPUT
from mlcore.constants import CLASSES, N_FEATURES
from mlcore.errors import ImportRefused
from mlcore.features.scaler import Scaler

MAX_NUMBERS = 16 * 2**20
"""Of all initializers and trees together; the built-in network has 62,000."""

_TYPES = {
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.INT32,
    TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL,
}  # fmt: skip
_DOMAINS = {"", "ai.onnx"}
_MAX_TREES_OPSET = 5
RAW_SCORES = (
    "export the raw scores (skl2onnx: options={'raw_scores': True}; trees: post_transform='NONE', as docs/models.md shows),"
    " or put a Log behind them: bots need logits"
)
_LABELS = {TensorProto.INT64, TensorProto.INT32, TensorProto.STRING}
_CARRIERS = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Dropout"}
"""Operators that change no value."""
_SUBGRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_MIN_OPSET, _MAX_OPSET, _MAX_IR = 9, 26, 13
_DEFAULT_OPSET = 17
"""Of ONNX's own operators, for a graph that uses none and so states none, such as XGBoost's."""
_NEITHER = "it is neither a checkpoint that torch.save wrote (since 1.6) nor an ONNX file"


@dataclass(frozen=True)
class ImportedGraph:
    """What a bundle is written from, of an ONNX file or a torch checkpoint."""

    model: bytes
    """Raw features float32 [batch, 72], or windows [batch, L, 5] → logits [batch, 3]."""
    tensors: dict[str, np.ndarray]
    """Every tensor of the graph except the scaler's."""
    scaler: Scaler | None
    """Set if the graph begins with (features - mean) / scale of 72 figures each."""


def read_graph(data: bytes, shape: Sequence[int] = (N_FEATURES,)) -> ImportedGraph:
    """`shape` is that of one row of its input. Raises ImportRefused."""
    model = _parse(data)
    _check_model(model)
    input_name, output_name = _find_ends(model, tuple(shape))
    _keep_ancestors(model, output_name)
    _refuse_probabilities(model, output_name)
    tensors = _read_tensors(model)
    nodes = [_copy(node) for node in model.graph.node if node.op_type != "Constant"]
    _refuse_training(nodes, tensors)
    _rename(nodes, tensors, input_name, output_name)
    scaler = _extract_scaler(nodes, tensors, shape[-1])
    rest = {name: array for name, array in tensors.items() if name not in (SCALER_MEAN, SCALER_SCALE)}
    rest |= list_attribute_tensors(nodes)
    if not rest:
        raise ImportRefused("its graph holds no tensor, so it has learned nothing")
    opsets = {"": _DEFAULT_OPSET} | {
        "" if o.domain in _DOMAINS else o.domain: o.version for o in model.opset_import
    }
    used = {"", *(node.domain for node in nodes)}
    data = encode_model(
        nodes,
        tensors,
        {domain: version for domain, version in opsets.items() if domain in used},
        max(IR_VERSION, model.ir_version),
        shape,
    )
    return ImportedGraph(data, rest, scaler)


def _parse(data: bytes) -> ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise ImportRefused(f"{_NEITHER}, or it is cut off") from error
    if not model.graph.node:
        raise ImportRefused(f"{_NEITHER} with a graph in it")
    return model


def _check_model(model: ModelProto) -> None:
    graph = model.graph
    _check_texts(model)
    if model.functions or model.training_info or graph.sparse_initializer or graph.quantization_annotation:
        raise ImportRefused("its graph holds functions, training or sparse tensors; export a plain one")
    for node in graph.node:  # exporters declare domains that no node uses
        _check_node(node)
    _check_versions(model)
    if len(graph.node) > MAX_NODES:
        raise ImportRefused(f"its graph has {len(graph.node):,} nodes; at most {MAX_NODES:,} are taken")


def _check_versions(model: ModelProto) -> None:
    """An operator set may be stated twice, as skl2onnx does, if it is the same one."""
    own = {o.version for o in model.opset_import if o.domain in _DOMAINS}
    trees = {o.version for o in model.opset_import if o.domain == TREES}
    needs_own = any(node.domain in _DOMAINS for node in model.graph.node)
    if len(own) > 1 or not own <= set(range(_MIN_OPSET, _MAX_OPSET + 1)) or (needs_own and not own):
        raise ImportRefused(
            f"its operator set {_format_versions(own)} is not one that is taken: export it with one from {_MIN_OPSET} to"
            f" {_MAX_OPSET} (torch: opset_version, others: target_opset)"
        )
    if len(trees) > 1 or not trees <= set(range(1, _MAX_TREES_OPSET + 1)):
        raise ImportRefused(
            f"its operator set {_format_versions(trees)} of {TREES} is not one that is taken: export it with one up to"
            f" {_MAX_TREES_OPSET}"
        )
    if model.ir_version > _MAX_IR:
        raise ImportRefused(
            f"its IR version {model.ir_version} is not taken: export it with a version of onnx whose IR is at most {_MAX_IR}"
        )


def _format_versions(versions: set[int]) -> str:
    return " and ".join(map(str, sorted(versions))) or "that it does not state"


def _check_texts(model: ModelProto) -> None:
    """protobuf gives text that is not UTF-8 as bytes."""
    graph = model.graph
    texts = [opset.domain for opset in model.opset_import]
    texts += [tensor.name for tensor in graph.initializer]
    texts += [value.name for value in (*graph.input, *graph.output)]
    for node in graph.node:
        texts += [node.op_type, node.domain, *node.input, *node.output]
        texts += [attribute.name for attribute in node.attribute]
    if not all(isinstance(text, str) for text in texts):
        raise ImportRefused("its graph has a name that is not text; export it again")


def _check_node(node: NodeProto) -> None:
    has_graph = any(
        attribute.type in _SUBGRAPHS or attribute.HasField("g") or attribute.graphs
        for attribute in node.attribute
    )
    if fault := find_fault(node.op_type, node.domain, has_graph=has_graph):
        raise ImportRefused(fault)


def _find_ends(model: ModelProto, shape: tuple[int, ...]) -> tuple[str, str]:
    """Names of the one input [batch, *shape] and of the one output of floats [batch, 3].

    Classifiers answer their label too, as whole numbers or text: it is left out.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    outputs = [value for value in model.graph.output if _describe(value)[0] != "label"]
    forms = [_describe(value) for value in (*inputs, *outputs)]
    if len(inputs) != 1 or forms != [("float", shape), ("float", (len(CLASSES),))]:
        ends = [(value.name, _describe(value)) for value in (*inputs, *model.graph.output)]
        names = ", ".join(
            f"{name[:40]} ({kind}, [batch, {', '.join(map(str, rest))}])" for name, (kind, rest) in ends[:6]
        )
        row = ", ".join(map(str, shape))
        raise ImportRefused(
            f"it must take floats [batch, {row}] and answer floats [batch, {len(CLASSES)}]; it has {names or 'nothing'}."
            " Export it with float32 at both ends and these shapes"
        )
    return inputs[0].name, outputs[0].name


def _describe(value: Any) -> tuple[str, tuple[int, ...]]:
    """The type, and the dimensions after the batch."""
    kind = value.type.tensor_type
    dimensions = tuple(dimension.dim_value for dimension in kind.shape.dim)[1:]
    if kind.elem_type == TensorProto.FLOAT:
        return "float", dimensions
    return ("label" if kind.elem_type in _LABELS and not any(dimensions[1:]) else "other"), dimensions


def _keep_ancestors(model: ModelProto, output_name: str) -> None:
    """Only the nodes and tensors that the answer needs: what a classifier computes for its label is left out."""
    needed, kept = {output_name}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    nodes = [_copy_all(node) for node in reversed(kept)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)


def _refuse_probabilities(model: ModelProto, output_name: str) -> None:
    """Probabilities are no logits: softmax of them would make every answer doubtful."""
    made = {name: node for node in model.graph.node for name in node.output}
    node = made.get(output_name)
    while node is not None and node.op_type in _CARRIERS and node.input:
        node = made.get(node.input[0])
    if node is None:
        return
    ends = {attribute.name: attribute.s for attribute in node.attribute}
    is_share = node.op_type == "Normalizer" and ends.get("norm") == b"L1"
    if is_share or node.op_type == "Softmax" or ends.get("post_transform", b"NONE") not in (b"NONE", b""):
        raise ImportRefused(
            f"it ends with the probabilities of {node.op_type}: export the logits, not the probabilities. {RAW_SCORES}"
        )


def _read_tensors(model: ModelProto) -> dict[str, np.ndarray]:
    """Initializers and Constant nodes, so that the gates search every number for NaN."""
    protos = [(tensor.name, tensor) for tensor in model.graph.initializer]
    protos += [
        (node.output[0], _read_constant(node)) for node in model.graph.node if node.op_type == "Constant"
    ]
    total = sum(_count_numbers(tensor) for _, tensor in protos)
    attributes = [a for node in model.graph.node if node.op_type != "Constant" for a in node.attribute]
    total += sum(
        len(a.floats) + len(a.ints) + (_count_numbers(a.t) if a.HasField("t") else 0) for a in attributes
    )
    if total > MAX_NUMBERS:
        raise ImportRefused(f"its tensors declare {total:,} numbers; at most {MAX_NUMBERS:,} are taken")
    if len({name for name, _ in protos}) < len(protos):
        raise ImportRefused("it holds two tensors with the same name")
    return {name: _read_array(tensor) for name, tensor in protos}


def _read_constant(node: NodeProto) -> TensorProto:
    values = {attribute.name: attribute for attribute in node.attribute}
    if len(values) != 1 or len(node.output) != 1 or node.input:
        raise ImportRefused("it holds a Constant without a single value")
    ((name, attribute),) = values.items()
    if name == "value":
        return attribute.t
    if name in ("value_float", "value_int", "value_floats", "value_ints"):
        dtype = np.float32 if "float" in name else np.int64
        return numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), dtype))
    raise ImportRefused(f"it holds a Constant of the kind {name[:40]!r}")


def _count_numbers(tensor: TensorProto) -> int:
    """The number of values that it declares, before any is read."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ImportRefused(
            f"it keeps {tensor.name[:60]!r} in another file; put the weights into the one file"
        )
    if tensor.data_type not in _TYPES or any(dimension < 0 for dimension in tensor.dims):
        raise ImportRefused(f"its tensor {tensor.name[:60]!r} is of a kind that is not taken")
    return math.prod(tensor.dims)


def _read_array(tensor: TensorProto) -> np.ndarray:
    try:
        # Not np.ascontiguousarray: that gives a scalar a dimension.
        return np.array(numpy_helper.to_array(tensor), order="C")
    except (ValueError, TypeError) as error:
        raise ImportRefused(f"its tensor {tensor.name[:60]!r} is damaged ({str(error)[:120]})") from error


def _refuse_training(nodes: list[NodeProto], tensors: dict[str, np.ndarray]) -> None:
    """A layer in training mode answers by chance, or by the other rows of its batch."""
    for node in nodes:
        mode = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
        switched = [attribute.i for attribute in node.attribute if attribute.name == "training_mode"]
        is_off = not mode or (mode in tensors and not tensors[mode].any())
        if not is_off or any(switched):
            raise ImportRefused(
                f"its {node.op_type} is in training mode; call model.eval() and export the graph again"
            )


def _copy(node: NodeProto) -> NodeProto:
    """Operator, names and attributes; no doc strings, which may hold paths of another machine."""
    domain = "" if node.domain in _DOMAINS else node.domain
    copy = NodeProto(
        op_type=node.op_type, domain=domain, input=node.input, output=node.output, attribute=node.attribute
    )
    for attribute in copy.attribute:
        attribute.ClearField("doc_string")
    return copy


def _copy_all(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _rename(
    nodes: list[NodeProto], tensors: dict[str, np.ndarray], input_name: str, output_name: str
) -> None:
    """Gives input and output the names of a bundle. Other values with these names get a prefix."""
    if input_name == output_name:
        raise ImportRefused("its output is its input")
    names = {name for node in nodes for name in (*node.input, *node.output)} | set(tensors)
    taken = {
        name: _find_free_name(name, names) for name in names & {INPUT, OUTPUT, SCALER_MEAN, SCALER_SCALE}
    }
    new = {**taken, input_name: INPUT, output_name: OUTPUT}
    for node in nodes:
        for values in (node.input, node.output):
            values[:] = [new.get(name, name) for name in values]
    for name in sorted(set(tensors) & set(new)):
        tensors[new[name]] = tensors.pop(name)


def _find_free_name(name: str, names: set[str]) -> str:
    """This name with a prefix, so that no other value has it."""
    while name in names:
        name = f"imported.{name}"
    return name


def _extract_scaler(nodes: list[NodeProto], tensors: dict[str, np.ndarray], columns: int) -> Scaler | None:
    """The scaler that the graph begins with, and its tensors renamed; None if the graph begins otherwise."""
    centre = _find_only_reader(nodes, INPUT, "Sub", tensors, columns)
    scale = _find_only_reader(nodes, centre.output[0], "Div", tensors, columns) if centre else None
    if centre is None or scale is None:
        return None
    for node, name in ((centre, SCALER_MEAN), (scale, SCALER_SCALE)):
        array = tensors[node.input[1]].reshape(-1).astype(np.float32)
        if not any(node.input[1] in other.input for other in nodes if other is not node):
            del tensors[node.input[1]]
        tensors[name] = array
        node.input[1] = name
    return Scaler(*(tensors[name].astype(np.float64) for name in (SCALER_MEAN, SCALER_SCALE)))


def _find_only_reader(
    nodes: list[NodeProto], value: str, operator: str, tensors: dict[str, np.ndarray], columns: int
) -> NodeProto | None:
    """The only node that reads `value`, if it is this operator with a stored figure for each column as second input."""
    readers = [node for node in nodes if value in node.input]
    if len(readers) != 1 or readers[0].op_type != operator or readers[0].input[0] != value:
        return None
    stored = tensors.get(readers[0].input[1])
    is_scaler = stored is not None and stored.size == columns == stored.shape[-1]
    return readers[0] if is_scaler else None
