"""The ONNX graph of a trained coin, written node by node: the same weights give the same bytes, on any machine.

torch's exporter would write source paths and its own version into them.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mlcore.bundle.format import Layout
from mlcore.bundle.predictor import INPUT, OUTPUT
from mlcore.features.scaler import Scaler

SCALER_MEAN = "scaler.mean"
SCALER_SCALE = "scaler.scale"

_OPSET = 17
_IR_VERSION = 8
_BATCH_NORM_EPSILON = 1e-5
_BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
_WIDTHS = (72, 256, 128, 64, 3)
_LAYERS = len(_WIDTHS) - 1


def list_tensor_shapes(tensors: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The shape every tensor must have, of the regression if there is one among the names, else of the network."""
    if "coef.weight" in tensors:
        return {"coef.weight": (_WIDTHS[-1], _WIDTHS[0]), "coef.bias": (_WIDTHS[-1],)}
    expected: dict[str, tuple[int, ...]] = {}
    for layer in range(1, _LAYERS + 1):
        width = _WIDTHS[layer]
        expected |= {f"fc{layer}.weight": (width, _WIDTHS[layer - 1]), f"fc{layer}.bias": (width,)}
        if layer < _LAYERS:
            expected |= {f"bn{layer}.{tensor}": (width,) for tensor in _BATCH_NORM_TENSORS}
    return expected


def build_model(
    weights: Mapping[str, np.ndarray], scaler: Scaler | None, layout: Layout = Layout.RELU_BEFORE_BN
) -> bytes:
    """Raw features float32 [batch, 72] → logits [batch, 3]; without a scaler, features go in as they are."""
    nodes = list(_scaling() if scaler else ())
    start = nodes[-1].output[0] if nodes else INPUT
    nodes += _regression(start) if "coef.weight" in weights else _perceptron(start, layout)
    tensors = {name: array for name, array in weights.items() if not name.endswith("num_batches_tracked")}
    if scaler:
        tensors |= {SCALER_MEAN: scaler.mean, SCALER_SCALE: scaler.scale}
    return _model(nodes, tensors).SerializeToString(deterministic=True)


def _scaling() -> Iterator[NodeProto]:
    yield helper.make_node("Sub", [INPUT, SCALER_MEAN], ["centred"], name="centre")
    yield helper.make_node("Div", ["centred", SCALER_SCALE], ["scaled"], name="scale")


def _regression(start: str) -> Iterator[NodeProto]:
    yield _linear("coef", start, OUTPUT)


def _perceptron(value: str, layout: Layout) -> Iterator[NodeProto]:
    steps = (_relu, _normal) if layout is Layout.RELU_BEFORE_BN else (_normal, _relu)
    for layer in range(1, _LAYERS):
        node = _linear(f"fc{layer}", value, f"linear{layer}")
        yield node
        for step in steps:
            node = step(layer, node.output[0])
            yield node
        value = node.output[0]
    yield _linear(f"fc{_LAYERS}", value, OUTPUT)


def _relu(layer: int, value: str) -> NodeProto:
    return helper.make_node("Relu", [value], [f"relu{layer}"], name=f"relu{layer}")


def _normal(layer: int, value: str) -> NodeProto:
    inputs = [value, *(f"bn{layer}.{tensor}" for tensor in _BATCH_NORM_TENSORS)]
    return helper.make_node(
        "BatchNormalization", inputs, [f"normal{layer}"], name=f"bn{layer}", epsilon=_BATCH_NORM_EPSILON
    )


def _linear(name: str, value: str, output: str) -> NodeProto:
    return helper.make_node("Gemm", [value, f"{name}.weight", f"{name}.bias"], [output], name=name, transB=1)


def _model(nodes: list[NodeProto], tensors: Mapping[str, np.ndarray]) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "candidate",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", _WIDTHS[0]])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", _WIDTHS[-1]])],
        [numpy_helper.from_array(tensors[name].astype(np.float32), name) for name in sorted(tensors)],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name=""
    )
