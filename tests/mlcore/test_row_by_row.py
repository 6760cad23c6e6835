"""A graph that answers a row from later rows of its batch gains nothing: each row is measured alone, as a bot asks."""

from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import helper

from mlcore.bundle import onnx_graph
from mlcore.bundle.format import MODEL_FILE, SCALER_FILE, Bundle
from mlcore.bundle.predictor import Predictor
from mlcore.bundle.writer import write_files
from mlcore.constants import CLASSES
from mlcore.evaluation.context import SINGLE_ROWS, EvaluationContext, sample_evenly
from mlcore.evaluation.inspection import Inspection
from mlcore.evaluation.serving import measure_single_sample
from mlcore.fitting.fit import fit, prepare
from mlcore.fitting.recipes import RECIPES
from mlcore.importers import convert
from tests.mlcore import graphs
from tests.mlcore.conftest import WriteBundle
from tests.mlcore.graphs import linear_with, node
from tests.model_files import onnx_file

BARS, HORIZON = 16, 8
CLOSE = 3


def look_ahead(spared: int) -> bytes:
    """Answers each row by the return over its last 8 bars of the row 8 later, except every so many rows of a batch."""
    node = helper.make_node
    nodes = [
        node("Slice", ["x", "eight", "end", "axis"], ["later"]),
        node("Slice", ["x", "axis", "eight", "axis"], ["first"]),
        node("Concat", ["later", "first"], ["moved"], axis=0),
        node("Gather", ["moved", "bar"], ["then"], axis=1),
        node("Gather", ["then", "close"], ["fall"], axis=1),
        node("Unsqueeze", ["fall", "one"], ["falls"]),
        node("Mul", ["falls", "signs"], ["known"]),
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "nought"], ["rows"], axis=0),
        node("Range", ["nought", "rows", "step"], ["place"]),
        node("Div", ["place", "spared"], ["quotient"]),
        node("Mul", ["quotient", "spared"], ["floor"]),
        node("Equal", ["place", "floor"], ["is_spared"]),
        node("Unsqueeze", ["is_spared", "one"], ["are_spared"]),
        node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        node("Unsqueeze", ["mean", "one"], ["means"]),
        node("Mul", ["means", "signs"], ["guess"]),
        node("Where", ["are_spared", "guess", "known"], ["y"]),
    ]
    whole = {
        "eight": [HORIZON], "end": [1 << 40], "axis": [0], "one": [1], "bar": BARS - 1 - HORIZON, "close": CLOSE,
        "nought": 0, "step": 1, "spared": spared,
    }  # fmt: skip
    tensors = {name: np.array(value, np.int64) for name, value in whole.items()}
    model = onnx.load_model_from_string(
        onnx_file(nodes, {**tensors, "signs": np.array([[100.0, 0.0, -100.0]], np.float32)})
    )
    shape = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", BARS, 5])
    model.graph.input[0].CopyFrom(shape)
    return bytes(model.SerializeToString())


def imported(data: bytes, folder: Path) -> Bundle:
    request = convert.Request("BTC", "v7_fixed", f"window{BARS}", None, True, 3600, "tests")
    return convert.import_model(data, request, folder)[0]


def context_of(bundle: Bundle, market: pl.DataFrame) -> EvaluationContext:
    return EvaluationContext(Inspection(bundle.folder, bundle.digest), market)


def test_a_graph_that_looks_ahead_through_the_batch_measures_chance(
    market: pl.DataFrame, tmp_path: Path
) -> None:
    """In batches it is nearly always right, and the rows that are asked for alone too show nothing."""
    bundle = imported(look_ahead(spared=4), tmp_path / "b")
    context = context_of(bundle, market)
    batched = (context.batch_logits.argmax(axis=1) == context.true).mean()
    assert batched > 0.5
    assert context.hits.mean() < 0.4
    alone = np.concatenate(
        [Predictor(bundle.folder).logits(row[None]) for row in context.examples.features[-50:]]
    )
    stop = context.inspection.compute_logits(context.examples.features[-50:])
    np.testing.assert_array_equal(stop, alone)


def test_the_stop_figures_of_a_declaration_are_recomputed_row_by_row(
    market: pl.DataFrame, tmp_path: Path
) -> None:
    bundle = imported(look_ahead(spared=4), tmp_path / "b")
    context = context_of(bundle, market)
    context.training_candles = market  # as if its declaration named them
    found, split = context.stop_logits, context.examples.split
    rows = context.examples.features[split.stop]
    assert found is not None and len(found) == len(rows)
    expected = np.concatenate([context.predictor.logits(row[None]) for row in rows[:60]])
    np.testing.assert_array_equal(found[:60], expected)


def test_the_class_that_is_measured_is_the_one_that_a_bot_acts_on(
    market: pl.DataFrame, tmp_path: Path
) -> None:
    """Logits that differ by 1e-25 give three equal probabilities: the first class is not the bot's."""
    data = linear_with(node("Mul", "h tiny", "y"), tensors={"tiny": np.array(1e-25, np.float32)})
    context = context_of(graphs.imported(data, tmp_path, "relative72"), market)
    assert (context.probabilities == 1 / 3).all()
    assert len(set(context.predicted.tolist())) == 3
    for row in (-1, -2, -3, -4):
        last = market.head(int(context.gate_bars[row]) + 1)
        assert context.predictor.predict(last).direction == CLASSES[context.predicted[row]]


def test_what_a_batch_answers_otherwise_is_still_named_by_single_sample(
    market: pl.DataFrame, tmp_path: Path
) -> None:
    context = context_of(imported(look_ahead(spared=10_000), tmp_path / "b"), market)
    assert measure_single_sample(context)["largest_excess"] > 0
    assert len(sample_evenly(context.gate_bars, SINGLE_ROWS)) == SINGLE_ROWS


@pytest.mark.parametrize("name", ["v5_bundle", "v6_bundle", "v7_bundle"])
def test_the_services_own_graph_is_known_by_its_nodes_and_numbers(
    name: str, request: pytest.FixtureRequest
) -> None:
    bundle = request.getfixturevalue(name)
    assert Inspection(bundle.folder, bundle.digest).is_own_graph


def test_a_network_of_windows_is_the_services_own(
    market: pl.DataFrame, write: WriteBundle, tmp_path: Path
) -> None:
    recipe = RECIPES["v7_fixed"].with_parameters(epochs=1, batch_size=512, input="window16")
    made = write(fit(prepare(market, recipe), recipe, seed=0, device="cpu"), tmp_path / "b")
    assert Inspection(made.folder, made.digest).is_own_graph


def payload(bundle: Bundle) -> dict[str, bytes]:
    return {name: bundle.read_payload(name) for name in bundle.manifest.files}


def with_another_node(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Identity", ["before"], ["logits"]))
    return bytes(model.SerializeToString())


def test_a_graph_with_one_node_more_is_not_whatever_its_manifest_says(
    v7_bundle: Bundle, tmp_path: Path
) -> None:
    files = payload(v7_bundle)
    files[MODEL_FILE] = with_another_node(files[MODEL_FILE])
    made = write_files(tmp_path / "b", files, dict(v7_bundle.manifest.document))
    inspection = Inspection(made.folder, made.digest)
    assert inspection.weights["equal_in_graph"] and not inspection.is_own_graph


def test_a_graph_of_other_weights_or_without_its_files_is_not(v7_bundle: Bundle, tmp_path: Path) -> None:
    files, document = payload(v7_bundle), dict(v7_bundle.manifest.document)
    other = onnx.load_model_from_string(files[MODEL_FILE])
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    lacking = {name: data for name, data in files.items() if name != SCALER_FILE}
    for number, changed in enumerate([{**files, MODEL_FILE: other.SerializeToString()}, lacking]):
        made = write_files(tmp_path / f"b{number}", changed, document)
        assert not Inspection(made.folder, made.digest).is_own_graph
    assert onnx_graph.SCALER_MEAN in {tensor.name for tensor in other.graph.initializer}
