"""Graphs that would end a process or never return: divisions of whole numbers, and trees with a way back.

The import and the bot refuse them by the same check, before the graph is loaded.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mlcore.bundle import graph_limits
from mlcore.bundle.format import Bundle
from mlcore.bundle.graph_limits import OPERATORS
from mlcore.bundle.operator_limits import OTHER_TYPE, OWN_RULE, SAME_TYPE_ANSWERS
from mlcore.bundle.predictor import Predictor
from mlcore.bundle.writer import write_files
from mlcore.errors import BundleRefused, MlcoreError
from tests.mlcore.graphs import FEATURES, forest, imported, linear_with, node
from tests.model_files import onnx_file


def with_trees(change: Callable[[dict[str, list[Any]]], object], data: bytes | None = None) -> bytes:
    """The forest with some of its lists of numbers changed in place."""
    model = onnx.load_model_from_string(data or forest())
    tree = model.graph.node[0]
    lists: dict[str, list[Any]] = {
        a.name.removeprefix("nodes_"): list(a.ints) for a in tree.attribute if a.name.endswith("ids")
    }
    change(lists)
    for attribute in tree.attribute:
        if (changed := lists.get(attribute.name.removeprefix("nodes_"))) is not None:
            attribute.ints[:] = changed
    return bytes(model.SerializeToString())


def deep_trees() -> bytes:
    """Two branches, the second behind the first."""
    model = onnx.load_model_from_string(forest())
    for attribute in model.graph.node[0].attribute:
        if attribute.name == "nodes_modes":
            attribute.strings[2] = b"BRANCH_LEQ"
    return bytes(model.SerializeToString())


def newer_trees(*, goes_round: bool = False) -> bytes:
    """As operator set 5 writes them: a branch, two behind it, and four leaves."""
    count = 3
    tree = node(
        "TreeEnsemble", "x", "y", domain="ai.onnx.ml",
        nodes_truenodeids=[1, 0, 2], nodes_trueleafs=[0, 0 if goes_round else 1, 1],
        nodes_falsenodeids=[2, 1, 3], nodes_falseleafs=[0, 1, 1],
        nodes_featureids=[3] * count, tree_roots=[0], n_targets=3,
        nodes_modes=onnx.numpy_helper.from_array(np.zeros(count, np.uint8), "modes"),
        nodes_splits=onnx.numpy_helper.from_array(np.zeros(count, np.float32), "splits"),
        leaf_targetids=[0, 1, 2, 0],
        leaf_weights=onnx.numpy_helper.from_array(np.array([0.1, 0.2, 0.3, 0.4], np.float32), "weights"),
    )  # fmt: skip
    return onnx_file([tree], {}, opsets={"": 17, "ai.onnx.ml": 5})


def whole_division(*nodes: Any, **tensors: np.ndarray) -> bytes:
    """h as whole numbers, divided, and as floats again."""
    ends = node("Cast", "h", "i", to=TensorProto.INT64), node("Cast", "d", "y", to=TensorProto.FLOAT)
    return linear_with(ends[0], *nodes, ends[1], tensors=tensors)


def with_sparse_attribute() -> bytes:
    model = onnx.load_model_from_string(linear_with(node("Identity", "h", "y")))
    sparse = onnx.SparseTensorProto()
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32), "v"))
    model.graph.node[1].attribute.append(
        onnx.AttributeProto(name="s", type="SPARSE_TENSOR", sparse_tensor=sparse)
    )
    return bytes(model.SerializeToString())


HANGS_OR_ENDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a division by -1": (
        lambda: whole_division(node("Div", "i m", "d"), m=np.array([-1])),
        "Div divides whole numbers.*stored tensor without 0 and -1",
    ),
    "a division by 0 in one place": (
        lambda: whole_division(node("Div", "i m", "d"), m=np.array([2, 0, 3], np.int64)),
        "Div divides whole numbers",
    ),
    "a division by values": (
        lambda: whole_division(node("Div", "i i", "d")),
        "Div divides whole numbers.*cast both sides to float",
    ),
    "a division of bytes": (
        lambda: linear_with(
            node("QuantizeLinear", "h s z", "q"),
            node("Div", "q q", "d"),
            node("DequantizeLinear", "d s z", "y"),
            tensors={"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)},
        ),
        "Div divides whole numbers",
    ),
    "a rest by values": (lambda: whole_division(node("Mod", "i i", "d")), "Mod divides whole numbers"),
    "a rest by -1": (
        lambda: whole_division(node("Mod", "i m", "d", fmod=1), m=np.array([-1])),
        "Mod divides whole numbers",
    ),
    "a value made twice": (
        lambda: linear_with(node("Identity", "h", "y"), node("Identity", "h", "y")),
        "the value 'logits' twice|the value 'y' twice",
    ),
    "a tree that goes round": (
        lambda: with_trees(lambda t: t["truenodeids"].__setitem__(2, 0), deep_trees()),
        "TreeEnsembleRegressor reach a node in two ways, or go round",
    ),
    "a circle that no root reaches": (
        lambda: with_trees(lambda t: t["truenodeids"].__setitem__(2, 2), deep_trees()),
        "TreeEnsembleRegressor reach a node in two ways, or go round",
    ),
    "a leaf of two branches": (
        lambda: with_trees(lambda t: t["falsenodeids"].__setitem__(0, 1)),
        "TreeEnsembleRegressor reach a node in two ways",
    ),
    "a node that there is not": (
        lambda: with_trees(lambda t: t["truenodeids"].__setitem__(0, 9)),
        "TreeEnsembleRegressor lead to a node that there is not",
    ),
    "two nodes of one number": (
        lambda: with_trees(lambda t: t["nodeids"].__setitem__(1, 0)),
        "TreeEnsembleRegressor name a node twice",
    ),
    "trees of a classifier that go round": (
        lambda: with_trees(
            lambda t: t["truenodeids"].__setitem__(0, 0), forest("TreeEnsembleClassifier", has_label=True)
        ),
        "TreeEnsembleClassifier reach a node in two ways, or go round",
    ),
    "newer trees that go round": (
        lambda: newer_trees(goes_round=True),
        "TreeEnsemble reach a node in two ways",
    ),
    "sparse tensors": (with_sparse_attribute, "holds sparse tensors"),
    "a dropout that is on": (
        lambda: linear_with(
            node("Dropout", "h half on", "y"), tensors={"half": np.array(0.5, np.float32), "on": np.array(True)}
        ),
        "Dropout is in training mode",
    ),
    "a dropout that values turn on": (
        lambda: linear_with(
            node("ReduceMax", "h", "most", keepdims=0), node("Greater", "most half", "on"),
            node("Dropout", "h half on", "y"), tensors={"half": np.array(0.5, np.float32)},
        ),
        "Dropout is in training mode",
    ),
    "a normalization in training": (
        lambda: linear_with(
            node("BatchNormalization", "h one zero zero one", "y m v", training_mode=1),
            tensors={"one": np.ones(3, np.float32), "zero": np.zeros(3, np.float32)},
        ),
        "BatchNormalization is in training mode",
    ),
}  # fmt: skip
TAKEN: dict[str, Callable[[], bytes]] = {
    "a division of floats": lambda: linear_with(node("Div", "h h", "one"), node("Mul", "h one", "y")),
    "a division by stored numbers": lambda: whole_division(node("Div", "i m", "d"), m=np.array([2, 5, -3])),
    "a rest by a stored number": lambda: whole_division(node("Mod", "i m", "d"), m=np.array([3])),
    "a rest of floats": lambda: linear_with(
        node("Mod", "h m", "y", fmod=1), tensors={"m": np.array([0.5], np.float32)}
    ),
    "newer trees": newer_trees,
    "a dropout that is off": lambda: linear_with(
        node("Dropout", "h half off", "y"),
        tensors={"half": np.array(0.5, np.float32), "off": np.array(False)},
    ),
}


@pytest.mark.parametrize(("make", "says"), HANGS_OR_ENDS.values(), ids=HANGS_OR_ENDS)
def test_what_would_end_a_process_or_never_return_is_not_imported(
    make: Callable[[], bytes], says: str, tmp_path: Path
) -> None:
    with pytest.raises(MlcoreError, match=says):
        imported(make(), tmp_path, "relative72")


@pytest.mark.parametrize(("make", "says"), HANGS_OR_ENDS.values(), ids=HANGS_OR_ENDS)
def test_a_bot_does_not_load_it_either(
    make: Callable[[], bytes], says: str, v7_bundle: Bundle, tmp_path: Path
) -> None:
    payload = {file: v7_bundle.read_payload(file) for file in v7_bundle.manifest.files}
    made = write_files(tmp_path / "b", {**payload, "model.onnx": make()}, dict(v7_bundle.manifest.document))
    with pytest.raises(BundleRefused, match=says):
        Predictor(made.folder)


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_divisions_and_trees_that_end_are_taken(make: Callable[[], bytes], tmp_path: Path) -> None:
    predictor = Predictor(imported(make(), tmp_path, "relative72").folder)
    assert np.isfinite(predictor.logits_by_row(np.abs(FEATURES))).all()


def test_a_field_number_that_other_readers_cut_off_is_refused() -> None:
    """They drop the bits above 32, and would see the field of a graph."""
    whole = linear_with(node("Identity", "h", "y"))
    key, number = bytearray(), (1 << 32) | (7 << 3 | 2)
    while number > 127:
        key.append(number & 127 | 128)
        number >>= 7
    with pytest.raises(BundleRefused, match="damaged"):
        graph_limits.check_graph(bytes([*key, number, 0]) + whole)
    with pytest.raises(BundleRefused, match="written in parts"):
        graph_limits.check_graph(whole + whole)


def test_an_operator_that_keeps_a_type_keeps_that_of_its_first_input() -> None:
    """In every version that is taken: what is known to be a float must be one."""
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.since_version > 26 or schema.domain not in OPERATORS:
            continue
        if schema.name not in OPERATORS[schema.domain] or schema.name in OTHER_TYPE | OWN_RULE:
            continue
        followed = schema.outputs if schema.name in SAME_TYPE_ANSWERS else schema.outputs[:1]
        assert {output.type_str for output in followed} == {schema.inputs[0].type_str}, schema.name


def test_the_types_of_both_sides_of_a_division_are_the_same() -> None:
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.name in ("Div", "Mod"):
            assert len({value.type_str for value in (*schema.inputs, *schema.outputs)}) == 1
