"""Graphs as exporters write them whose packages are too heavy for a test, made with onnx.helper.

Names, operator sets, headers and order of nodes are those of files that the packages wrote: skl2onnx 1.20, onnxmltools 1.16
with LightGBM 4.7 and XGBoost 3.2, CatBoost 1.2.10. tf2onnx's are as its documentation shows them.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.mlcore.graphs import node, numbers, stumps

ML = "ai.onnx.ml"
CLASSES = [0, 1, 2]


def lightgbm(*, zipmap: bool = False) -> bytes:
    """onnxmltools: the scores are multiplied by one, so that its output has the name that is asked for."""
    trees = stumps(transform="SOFTMAX") | {
        "nodes_hitrates": [1.0] * 9,
        "nodes_missing_value_tracks_true": [1, 0, 0] * 3,
    }
    nodes = [
        node("TreeEnsembleClassifier", "x", "label_tensor probability_tensor", domain=ML, **trees),
        node("Identity", "label_tensor", "lgbmlabel"),
        node("Identity", "probability_tensor", "lgbmprobabilities"),
        node("Cast", "lgbmlabel", "label", to=TensorProto.INT64),
    ]
    if zipmap:
        nodes.append(_zipmap("lgbmprobabilities", "probabilities"))
    else:
        nodes.append(node("Mul", "lgbmprobabilities one", "probabilities"))
    outputs = [_whole("label", [1]), _maps("probabilities") if zipmap else _floats("probabilities")]
    tensors = {} if zipmap else {"one": np.array(1, np.float32)}
    return _write(nodes, outputs, [("", 9), (ML, 1)], "OnnxMLTools", ir_version=4, tensors=tensors)


def xgboost() -> bytes:
    """onnxmltools: one node, and no operator set of ONNX's own."""
    trees = stumps(mode="BRANCH_LT", transform="SOFTMAX") | {"base_values": [0.02, 0.54, -0.56]}
    nodes = [node("TreeEnsembleClassifier", "x", "label probabilities", domain=ML, **trees)]
    return _write(nodes, [_whole("label"), _floats("probabilities")], [(ML, 1)], "OnnxMLTools", ir_version=8)


def catboost() -> bytes:
    """`save_model(format="onnx")`: a map of scores without an option to leave it out, and an old IR."""
    trees = stumps(mode="BRANCH_GT", transform="SOFTMAX") | {"nodes_hitrates": [1.0] * 9}
    nodes = [
        node("TreeEnsembleClassifier", "features", "label probability_tensor", domain=ML, **trees),
        _zipmap("probability_tensor", "probabilities"),
    ]
    data = _write(
        nodes,
        [_whole("label"), _maps("probabilities")],
        [(ML, 2)],
        "CatBoost",
        ir_version=3,
        source="features",
    )
    model = onnx.load_model_from_string(data)
    helper.set_model_props(model, {"catboost_version_info": "1.2.10", "params": "{}"})
    return bytes(model.SerializeToString())


def skl2onnx(*, zipmap: bool = False, raw_scores: bool = True) -> bytes:
    """A pipeline of StandardScaler and LogisticRegression. Without a ZipMap it states its operator set twice."""
    coefficients = numbers(3, 72).reshape(-1).tolist()
    linear: dict[str, Any] = {
        "coefficients": coefficients, "intercepts": [0.1, -0.2, 0.1], "classlabels_ints": CLASSES, "multi_class": 1,
    }  # fmt: skip
    end = "probabilities" if raw_scores else "probability_tensor"
    nodes = [
        node("Scaler", "X", "variable", domain=ML, offset=[0.1] * 72, scale=[0.9] * 72),
        node(
            "LinearClassifier", "variable", f"label {end}", domain=ML,
            post_transform="NONE" if raw_scores else "SOFTMAX", **linear,
        ),
    ]  # fmt: skip
    if not raw_scores:
        nodes.append(node("Normalizer", end, "probabilities", domain=ML, norm="L1"))
    if zipmap:
        nodes.append(_zipmap("probabilities", "output_probability"))
    outputs = [_whole("label"), _maps("output_probability") if zipmap else _floats("probabilities")]
    opsets = [("", 9), (ML, 1)] if zipmap else [(ML, 1), ("", 22), ("", 22)]
    return _write(nodes, outputs, opsets, "skl2onnx", ir_version=10, source="X")


def tf2onnx(*, softmax: bool = False) -> bytes:
    """A Keras model of dense layers: names with slashes and colons, and domains that no node uses."""
    name = "StatefulPartitionedCall/sequential/dense"
    tensors = {
        f"{name}/MatMul/ReadVariableOp:0": numbers(72, 8),
        f"{name}/BiasAdd/ReadVariableOp:0": numbers(8),
        f"{name}_1/MatMul/ReadVariableOp:0": numbers(8, 3),
        f"{name}_1/BiasAdd/ReadVariableOp:0": numbers(3),
    }
    end = f"{name}_1/BiasAdd:0" if softmax else "dense_1"
    nodes = [
        node("MatMul", f"input_1 {name}/MatMul/ReadVariableOp:0", f"{name}/MatMul:0"),
        node("Add", f"{name}/MatMul:0 {name}/BiasAdd/ReadVariableOp:0", f"{name}/BiasAdd:0"),
        node("Relu", f"{name}/BiasAdd:0", f"{name}/Relu:0"),
        node("MatMul", f"{name}/Relu:0 {name}_1/MatMul/ReadVariableOp:0", f"{name}_1/MatMul:0"),
        node("Add", f"{name}_1/MatMul:0 {name}_1/BiasAdd/ReadVariableOp:0", end),
    ]
    if softmax:
        nodes.append(node("Softmax", end, "dense_1", axis=-1))
    opsets = [("", 15), (ML, 2), ("com.microsoft", 1)]
    return _write(
        nodes, [_floats("dense_1")], opsets, "tf2onnx", ir_version=8, source="input_1", tensors=tensors
    )


def _zipmap(source: str, target: str) -> onnx.NodeProto:
    return node("ZipMap", source, target, domain=ML, classlabels_int64s=CLASSES)


def _floats(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3])


def _whole(name: str, shape: list[Any] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape or [None])


def _maps(name: str) -> onnx.ValueInfoProto:
    scores = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    return helper.make_value_info(
        name, helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, scores))
    )


def _write(
    nodes: list[onnx.NodeProto],
    outputs: list[onnx.ValueInfoProto],
    opsets: list[tuple[str, int]],
    producer: str,
    *,
    ir_version: int,
    source: str = "x",
    tensors: dict[str, np.ndarray] | None = None,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        f"graph of {producer}",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, [None, 72])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in (tensors or {}).items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*opset) for opset in opsets],
        ir_version=ir_version,
        producer_name=producer,
    )
    return bytes(model.SerializeToString())
