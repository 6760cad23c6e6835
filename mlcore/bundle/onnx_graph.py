"""The ONNX graph of a trained coin, written node by node: the same weights give the same bytes on any machine.

torch's exporter would write source paths and its own version into them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mlcore.bundle.format import Layout
from mlcore.bundle.graph_limits import TREES
from mlcore.bundle.predictor import INPUT, OUTPUT
from mlcore.constants import CLASSES, HIDDEN_WIDTHS, N_FEATURES
from mlcore.features.scaler import Scaler

SCALER_MEAN = "scaler.mean"
SCALER_SCALE = "scaler.scale"
IR_VERSION = 8

_OPSET = 17
_BATCH_NORM_EPSILON = 1e-5
_BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
_LAYERS = len(HIDDEN_WIDTHS) + 1


def list_tensor_shapes(
    tensors: Iterable[str], inputs: int = N_FEATURES, hidden: Sequence[int] = HIDDEN_WIDTHS
) -> dict[str, tuple[int, ...]]:
    """The required shape of every tensor: of the regression if its tensor is among the names, else of the network."""
    if "coef.weight" in tensors:
        return {"coef.weight": (len(CLASSES), inputs), "coef.bias": (len(CLASSES),)}
    widths = (inputs, *hidden, len(CLASSES))
    expected: dict[str, tuple[int, ...]] = {}
    for layer in range(1, _LAYERS + 1):
        width = widths[layer]
        expected |= {f"fc{layer}.weight": (width, widths[layer - 1]), f"fc{layer}.bias": (width,)}
        if layer < _LAYERS:
            expected |= {f"bn{layer}.{tensor}": (width,) for tensor in _BATCH_NORM_TENSORS}
    return expected


def build_model(
    weights: Mapping[str, np.ndarray],
    scaler: Scaler | None,
    layout: Layout = Layout.RELU_BEFORE_BN,
    shape: Sequence[int] = (N_FEATURES,),
) -> bytes:
    """Raw features float32 [batch, 72], or windows [batch, L, 5] → logits [batch, 3].

    `shape` is that of one row. Without a scaler, features are not scaled.
    """
    tensors = {name: array for name, array in weights.items() if not name.endswith("num_batches_tracked")}
    nodes, start = list[NodeProto](), INPUT
    if scaler:
        nodes.append(helper.make_node("Sub", [INPUT, SCALER_MEAN], ["centred"], name="centre"))
        nodes.append(helper.make_node("Div", ["centred", SCALER_SCALE], ["scaled"], name="scale"))
        start = "scaled"
        tensors |= {SCALER_MEAN: scaler.mean, SCALER_SCALE: scaler.scale}
    if len(shape) > 1:
        nodes.append(helper.make_node("Flatten", [start], ["flat"], name="flatten"))
        start = "flat"
    if "coef.weight" in weights:
        nodes.append(_build_linear("coef", start, OUTPUT))
    else:
        nodes += _build_perceptron(start, layout)
    return encode_model(
        nodes, {name: array.astype(np.float32) for name, array in tensors.items()}, shape=shape
    )


def encode_model(
    nodes: Sequence[NodeProto],
    tensors: Mapping[str, np.ndarray],
    opsets: Mapping[str, int] = MappingProxyType({"": _OPSET}),
    ir_version: int = IR_VERSION,
    shape: Sequence[int] = (N_FEATURES,),
) -> bytes:
    """The bytes of a model from rows [batch, *shape] to logits [batch, 3]."""
    graph = helper.make_graph(
        nodes,
        "candidate",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", len(CLASSES)])],
        [numpy_helper.from_array(tensors[name], name) for name in sorted(tensors)],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*opset) for opset in sorted(opsets.items())],
        ir_version=ir_version,
        producer_name="",
    )
    return bytes(model.SerializeToString(deterministic=True))


def list_attribute_tensors(nodes: Iterable[NodeProto]) -> dict[str, np.ndarray]:
    """What nodes of trees and linear models have learned, which lies in their attributes: {output.attribute: numbers}."""
    found: dict[str, np.ndarray] = {}
    for node in nodes:
        if node.domain != TREES:
            continue
        for attribute in node.attribute:
            name = f"{node.output[0]}.{attribute.name}"
            if attribute.floats:
                found[name] = np.array(attribute.floats, np.float32)
            elif attribute.ints:
                found[name] = np.array(attribute.ints, np.int64)
            elif attribute.HasField("t"):
                found[name] = numpy_helper.to_array(attribute.t)
    return found


def _build_perceptron(value: str, layout: Layout) -> Iterator[NodeProto]:
    steps = (_build_relu, _build_batch_norm)
    if layout is Layout.BN_BEFORE_RELU:
        steps = steps[::-1]
    for layer in range(1, _LAYERS):
        node = _build_linear(f"fc{layer}", value, f"linear{layer}")
        yield node
        for step in steps:
            node = step(layer, node.output[0])
            yield node
        value = node.output[0]
    yield _build_linear(f"fc{_LAYERS}", value, OUTPUT)


def _build_relu(layer: int, value: str) -> NodeProto:
    return helper.make_node("Relu", [value], [f"relu{layer}"], name=f"relu{layer}")


def _build_batch_norm(layer: int, value: str) -> NodeProto:
    inputs = [value, *(f"bn{layer}.{tensor}" for tensor in _BATCH_NORM_TENSORS)]
    return helper.make_node(
        "BatchNormalization", inputs, [f"normal{layer}"], name=f"bn{layer}", epsilon=_BATCH_NORM_EPSILON
    )


def _build_linear(name: str, value: str, output: str) -> NodeProto:
    return helper.make_node("Gemm", [value, f"{name}.weight", f"{name}.bias"], [output], name=name, transB=1)
