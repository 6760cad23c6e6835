"""What an ONNX graph may be made of: trees, convolution, recurrence, attention; no loop, custom domain or other file.

The import, the gates and the bot take and refuse the same graphs, and each refusal names the operator and what to change.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mlcore.bundle import graph_limits
from mlcore.bundle.format import Bundle
from mlcore.bundle.predictor import Predictor
from mlcore.bundle.writer import write_files
from mlcore.errors import BundleRefused, MlcoreError
from mlcore.evaluation.inspection import Inspection
from mlcore.importers import convert
from tests.mlcore.graphs import (
    BARS,
    FEATURES,
    TREES,
    WINDOW,
    forest,
    imported,
    linear_with,
    node,
    numbers,
)
from tests.model_files import hostile, onnx_file

HEAD = node("Gemm", "h w b", "y", transB=1)


def window_file(nodes: list[Any], tensors: dict[str, np.ndarray], *, wide: int = 8) -> bytes:
    """Nodes from x [n, 32, 5] to h [n, wide], and a linear layer behind them."""
    held = {**tensors, "w": numbers(3, wide), "b": numbers(3)}
    return with_shape(onnx_file([*nodes, HEAD], held), ["n", BARS, 5])


def with_shape(data: bytes, shape: list[Any]) -> bytes:
    model = onnx.load_model_from_string(data)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))
    return bytes(model.SerializeToString())


def convolution() -> bytes:
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("Conv", "t k", "c", kernel_shape=[3], dilations=[2], pads=[4, 0]),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "g"),
        node("Flatten", "g", "h"),
    ]
    return window_file(nodes, {"k": numbers(8, 5, 3)})


def recurrence(operator: str) -> Callable[[], bytes]:
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[operator]

    def made() -> bytes:
        nodes = [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            node(operator, "t i r", "- last", hidden_size=8),
            node("Squeeze", "last zero", "h"),
        ]
        nodes[1].output[0] = ""
        tensors = {"i": numbers(1, gates * 8, 5), "r": numbers(1, gates * 8, 8), "zero": np.array([0])}
        return window_file(nodes, tensors)

    return made


def attention() -> bytes:
    nodes = [
        node("MatMul", "x q", "a"),
        node("Transpose", "a", "at", perm=[0, 2, 1]),
        node("MatMul", "a at", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("MatMul", "p a", "v"),
        node("ReduceMean", "v", "h", axes=[1], keepdims=0),
    ]
    return window_file(nodes, {"q": numbers(5, 8)})


def scaled_forest() -> bytes:
    model = onnx.load_model_from_string(forest())
    scale = node("Scaler", "x", "scaled", domain="ai.onnx.ml", offset=[0.0] * 72, scale=[2.0] * 72)
    model.graph.node[0].input[0] = "scaled"
    model.graph.node.insert(0, scale)
    return bytes(model.SerializeToString())


def int8() -> bytes:
    tensors = {
        "q": np.random.default_rng(5).integers(-127, 127, (3, 72), np.int8),
        "s": np.array(0.01, np.float32),
        "z": np.array(0, np.int8),
        "b": numbers(3),
    }
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xd"),
        node("DequantizeLinear", "q s z", "w"),
        node("Gemm", "xd w b", "y", transB=1),
    ]
    return onnx_file(nodes, tensors)


def float16() -> bytes:
    nodes = [
        node("Cast", "x", "x16", to=TensorProto.FLOAT16),
        node("Gemm", "x16 w b", "y16", transB=1),
        node("Cast", "y16", "y", to=TensorProto.FLOAT),
    ]
    return onnx_file(nodes, {"w": numbers(3, 72).astype(np.float16), "b": numbers(3).astype(np.float16)})


def own_features() -> bytes:
    """Computed inside the graph, as a notebook would: the move of the last bars and a moving average."""
    nodes = [
        node("Slice", "x start stop axis", "last"),
        node("ReduceMean", "last", "mean", axes=[1], keepdims=0),
        node("Shape", "x", "size"),
        node("Gather", "size first", "n"),
        node("Concat", "n five", "flat", axis=0),
        node("Reshape", "mean flat", "h"),
    ]
    tensors = {name: np.array([value]) for name, value in (("start", -8), ("stop", BARS), ("axis", 1))}
    return window_file(nodes, {**tensors, "first": np.array([0]), "five": np.array([5])}, wide=5)


TAKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "convolution": (convolution, f"window{BARS}"),
    "GRU": (recurrence("GRU"), f"window{BARS}"),
    "LSTM": (recurrence("LSTM"), f"window{BARS}"),
    "RNN": (recurrence("RNN"), f"window{BARS}"),
    "attention": (attention, f"window{BARS}"),
    "own features": (own_features, f"window{BARS}"),
    "trees": (forest, "relative72"),
    "trees that answer a label too": (
        lambda: forest("TreeEnsembleClassifier", has_label=True),
        "relative72",
    ),
    "trees behind a scaler": (scaled_forest, "relative72"),
    "static int8": (int8, "relative72"),
    "float16 inside": (float16, "relative72"),
}


@pytest.mark.parametrize(("make", "schema"), TAKEN.values(), ids=TAKEN)
def test_a_graph_is_taken_and_one_row_is_answered_as_in_a_batch(
    tmp_path: Path, make: Callable[[], bytes], schema: str
) -> None:
    made = imported(make(), tmp_path, schema)
    predictor = Predictor(made.folder)
    rows = WINDOW if schema.startswith("window") else FEATURES
    batch = predictor.logits(rows)
    singles = np.concatenate([predictor.logits(row[np.newaxis]) for row in rows])
    np.testing.assert_allclose(batch, singles, atol=1e-5, rtol=1e-5)
    assert np.ptp(batch, axis=0).max() > 0
    inspection = Inspection(made.folder, made.digest)
    found = {**inspection.inspect_bundle(), **inspection.weights}
    assert (found["shapes_match"], found["equal_in_graph"], found["problem"]) == (True, True, None)


def test_what_a_tree_has_learned_is_searched_for_what_is_not_finite(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(forest())
    next(a for a in model.graph.node[0].attribute if a.name == "target_weights").floats[2] = float("nan")
    made = imported(bytes(model.SerializeToString()), tmp_path, "relative72")
    assert Inspection(made.folder, made.digest).weights["non_finite"] == [
        "model.onnx:logits.target_weights",
        "weights.safetensors:logits.target_weights",
    ]


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "a loop": (lambda: hostile(Path("x"))["ONNX with a loop"][0](), "Loop .*LSTM, GRU or RNN"),
    "a branch": (lambda: hostile(Path("x"))["ONNX with a branch"][0](), "If .*loops and branches"),
    "a custom domain": (
        lambda: linear_with(
            node("FusedGelu", "h", "y", domain="com.microsoft"), opsets={"": 17, "com.microsoft": 1}
        ),
        "com.microsoft .*without custom or fused operators",
    ),
    "a tensor elsewhere": (
        lambda: hostile(Path("x"))["ONNX with its weights elsewhere"][0](),
        "another file; put the weights into the one file",
    ),
    "dynamic quantization": (
        lambda: linear_with(
            node("DynamicQuantizeLinear", "h", "q s z"), node("DequantizeLinear", "q s z", "y")
        ),
        "DynamicQuantizeLinear.*quantize statically",
    ),
    "a map of scores": (
        lambda: linear_with(
            node("ZipMap", "h", "y", domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]), opsets=TREES
        ),
        "ZipMap.*zipmap=False",
    ),
    "chance": (lambda: linear_with(node("RandomNormalLike", "h", "y")), r"RandomNormalLike.*model\.eval"),
    "a size from values": (
        lambda: linear_with(node("NonZero", "h", "z"), node("Identity", "h", "y")),
        "NonZero.*use Where",
    ),
    "memory from values": (
        lambda: linear_with(
            node("Cast", "h", "many", to=TensorProto.INT64),
            node("Expand", "h many", "e"),
            node("ReduceMean", "e", "y", axes=[0], keepdims=0),
        ),
        "Expand takes the size of its output from the values of the rows; use Where",
    ),
    "memory from axes": (
        lambda: linear_with(
            *(node("Slice", "h zero one one", "first"), node("Cast", "first", "axis", to=TensorProto.INT64)),
            *(node("Reshape", "axis flat", "axes"), node("ReduceSum", "long axes", "s", keepdims=1)),
            *(node("Transpose", "s", "t", perm=[1, 0]), node("MatMul", "s t", "m")),
            *(node("ReduceMax", "m", "largest", keepdims=0), node("Add", "h largest", "y")),
            tensors={
                "long": np.ones((20_000, 1), np.float32),
                "zero": np.array([0]),
                "one": np.array([1]),
                "flat": np.array([1]),
            },
        ),
        "ReduceSum takes the size of its output from the values of the rows",
    ),
    "padded axes": (
        lambda: linear_with(
            *(node("Slice", "h zero one one", "first"), node("Cast", "first", "axis", to=TensorProto.INT64)),
            *(node("Reshape", "axis one", "axes"), node("Pad", "h pads - axes", "p")),
            *(node("ReduceMax", "p", "largest", keepdims=0), node("Add", "h largest", "y")),
            tensors={"pads": np.array([1, 1]), "zero": np.array([0]), "one": np.array([1])},
            opsets={"": 18},
        ),
        "Pad takes the size of its output from the values of the rows",
    ),
    "another operator": (lambda: linear_with(node("Det", "h", "y")), r"'Det'.*docs/models\.md"),
    "probabilities": (lambda: linear_with(node("Softmax", "h", "y")), "export the logits.*Log"),
    "probabilities of trees": (
        lambda: forest("TreeEnsembleClassifier", "SOFTMAX", has_label=True),
        "probabilities of TreeEnsembleClassifier.*raw_scores",
    ),
    "a fixed batch": (
        lambda: linear_with(
            node("Reshape", "h one", "y"), tensors={"one": np.array([1, 3])}, shape=(1, 72), answer=(1, 3)
        ),
        "dynamic batch",
    ),
    "float64 at its ends": (
        lambda: with_doubles(linear_with(node("Identity", "h", "y"))),
        "must take floats .*Export it with float32 at both ends",
    ),
    "too many nodes": (
        lambda: linear_with(
            *(node("Neg", f"h{n}" if n else "h", f"h{n + 1}") for n in range(graph_limits.MAX_NODES)),
            node("Identity", f"h{graph_limits.MAX_NODES}", "y"),
        ),
        "at most 4,096",
    ),
    "windows of another length": (lambda: with_shape(convolution(), ["n", 16, 5]), r"\[batch, 72\].*16, 5"),
}


def with_doubles(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_operator_and_what_to_change(
    tmp_path: Path, make: Callable[[], bytes], says: str
) -> None:
    with pytest.raises(MlcoreError, match=says):
        imported(make(), tmp_path, "relative72")


OF_THE_BOT = (
    "a loop", "a branch", "a custom domain", "a tensor elsewhere", "dynamic quantization", "a map of scores",
    "chance", "a size from values", "memory from values", "memory from axes", "padded axes",
    "another operator", "too many nodes",
)  # fmt: skip


@pytest.mark.parametrize("name", OF_THE_BOT)
def test_a_bot_refuses_the_same_graph_before_it_loads_it(
    name: str, v7_bundle: Bundle, tmp_path: Path
) -> None:
    payload = {file: v7_bundle.read_payload(file) for file in v7_bundle.manifest.files}
    document = dict(v7_bundle.manifest.document)
    made = write_files(tmp_path / "b", {**payload, "model.onnx": REFUSED[name][0]()}, document)
    with pytest.raises(
        BundleRefused,
        match=r"model\.onnx: .*(Loop|If|domain|operator|another file|nodes|Expand|ReduceSum|Pad)",
    ):
        Predictor(made.folder)


def test_a_graph_that_is_cut_off_anywhere_is_refused_or_has_fewer_fields() -> None:
    whole = convolution()
    for end in range(0, len(whole), 7):
        try:
            graph_limits.check_graph(whole[:end])
        except BundleRefused as refused:
            assert str(refused).startswith("the graph ")
    graph_limits.check_graph(whole)


def test_a_large_file_is_refused_by_its_size() -> None:
    with pytest.raises(BundleRefused, match="at most 67,108,864"):
        graph_limits.check_graph(bytes(graph_limits.MAX_MODEL_BYTES + 1))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="NOT TESTED: memory without /proc")
def test_memory_that_a_graph_takes_when_it_is_loaded_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file of a few hundred bytes: onnxruntime computes what does not depend on a row once, and keeps it."""
    count, sums = 4, [f"s{n}" if n else "h" for n in range(5)]
    nodes = [
        step
        for n in range(count)
        for step in (
            node("Expand", f"v{n} many", f"c{n}"),
            node("Gather", f"c{n} place", f"g{n}", axis=0),
            node("Add", f"{sums[n]} g{n}", sums[n + 1]),
        )
    ]
    place = (node("ArgMax", "h", "best", axis=1, keepdims=1), node("ReduceMax", "best", "place", keepdims=0))
    tensors = {f"v{n}": np.array([n + 1], np.float32) for n in range(count)}
    data = linear_with(
        *place, *nodes, node("Identity", sums[-1], "y"), tensors={**tensors, "many": np.array([20_000_000])}
    )
    monkeypatch.setattr(convert, "MAX_MEMORY_BYTES", 2**27)
    pages = Path("/proc/self/statm")
    monkeypatch.setattr(convert, "_measure_peak_bytes", lambda: int(pages.read_text().split()[1]) * 4096)
    with pytest.raises(MlcoreError, match=r"takes .* bytes of memory, loaded and for 512 rows"):
        imported(data, tmp_path, "relative72")


def test_the_operators_named_in_advice_are_not_taken() -> None:
    taken = frozenset().union(*graph_limits.OPERATORS.values())
    assert not taken & set(graph_limits.ADVICE)


NO_SIZE = {
    ("Attention", "nonpad_kv_seqlen"), ("CumSum", "axis"), ("GRU", "sequence_lens"), ("Gather", "indices"),
    ("GatherElements", "indices"), ("LSTM", "sequence_lens"), ("RNN", "sequence_lens"), ("RotaryEmbedding", "position_ids"),
    ("Trilu", "k"), ("ArrayFeatureExtractor", "Y"),
}  # fmt: skip
"""Whole numbers that an operator takes, and that say nothing of the size of its output: onnxruntime checks their bounds."""


def test_every_input_that_determines_a_size_is_known() -> None:
    """An input that holds whole numbers only is a shape, a place or axes."""
    found = {
        (schema.name, value.name)
        for schema in onnx.defs.get_all_schemas_with_history()
        for place, value in enumerate(schema.inputs)
        if schema.name in graph_limits.OPERATORS.get(schema.domain, ())
        and set(value.types) <= {"tensor(int64)", "tensor(int32)"}
        and place not in graph_limits.SIZES.get(schema.name, ())
    }
    assert found == NO_SIZE


def test_every_operator_is_one_that_onnx_has() -> None:
    known = {(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas_with_history()}
    for domain, names in graph_limits.OPERATORS.items():
        assert {(domain, name) for name in names} <= known
