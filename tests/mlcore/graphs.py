"""Small ONNX graphs as people export them, and their import."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from mlcore.bundle.format import Bundle
from mlcore.importers import convert
from tests.model_files import linear_tensors, onnx_file

BARS = 32
WINDOW = np.random.default_rng(5).normal(size=(6, BARS, 5)).astype(np.float32)
FEATURES = np.random.default_rng(6).normal(size=(6, 72)).astype(np.float32)
TREES = {"": 17, "ai.onnx.ml": 3}


def numbers(*shape: int) -> np.ndarray:
    """The same ones for the same shape."""
    return (np.random.default_rng(shape).normal(size=shape) / 10).astype(np.float32)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Names are separated by spaces; "-" stands for an input that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, outputs.split(), **attributes)


def stumps(kind: str = "class", *, mode: str = "BRANCH_LEQ", transform: str = "NONE") -> dict[str, Any]:
    """The attributes of two stumps for each class; `kind` is "class" of a classifier or "target" of a regressor."""
    ids = list(range(3))
    common: dict[str, Any] = {
        "nodes_treeids": [tree for tree in ids for _ in range(3)],
        "nodes_nodeids": [0, 1, 2] * 3,
        "nodes_featureids": [5, 0, 0, 9, 0, 0, 11, 0, 0],
        "nodes_modes": [mode, "LEAF", "LEAF"] * 3,
        "nodes_values": [0.1, 0.0, 0.0] * 3,
        "nodes_truenodeids": [1, 0, 0] * 3,
        "nodes_falsenodeids": [2, 0, 0] * 3,
        "post_transform": transform,
    }
    leaves = {"treeids": [0, 0, 1, 1, 2, 2], "nodeids": [1, 2] * 3, "ids": [0, 0, 1, 1, 2, 2]}
    weights = [0.5, -0.5, 0.2, -0.2, -0.3, 0.3]
    common |= {f"{kind}_{name}": value for name, value in leaves.items()}
    common |= {f"{kind}_weights": weights}
    return common | ({"n_targets": 3} if kind == "target" else {"classlabels_int64s": ids})


def forest(
    operator: str = "TreeEnsembleRegressor", transform: str = "NONE", *, has_label: bool = False
) -> bytes:
    kind = "target" if operator.endswith("Regressor") else "class"
    common = stumps(kind, transform=transform)
    outputs = "y" if kind == "target" else "label y"
    tree = node(operator, "x", outputs, domain="ai.onnx.ml", **common)
    data = onnx_file([tree], {}, opsets=TREES)
    if has_label:
        model = onnx.load_model_from_string(data)
        model.graph.output.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
        data = bytes(model.SerializeToString())
    return data


def imported(data: bytes, folder: Path, schema: str) -> Bundle:
    said = {"coin": "BTC", "line": "v7_fixed", "layout": None, "simulated": True, "interval_seconds": 3600}
    request = convert.Request(**said, schema=schema, code_version="tests")  # type: ignore[arg-type]
    return convert.import_model(data, request, folder / "bundle")[0]


def linear_with(*nodes: Any, tensors: dict[str, np.ndarray] | None = None, **options: Any) -> bytes:
    """A linear layer from x to h, and nodes from h to y."""
    gemm = node("Gemm", "x w b", "h", transB=1)
    return onnx_file([gemm, *nodes], {**linear_tensors(), **(tensors or {})}, **options)
