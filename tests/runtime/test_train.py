"""The kit for notebooks, without a service: the rows that it prepares, and the declaration of a model of them."""

from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest

from crpbot_runtime import NotEnoughBars
from crpbot_runtime.errors import Misconfigured
from crpbot_runtime.train import Gate, Rows, prepare
from crpbot_runtime.train.local_gates import NOT_RUN, Check
from gates.catalogue.registry import GATES
from gates.policy import BASELINE_POLICY, FULL_POLICY
from mlcore.bundle.onnx_graph import build_model
from mlcore.data import candles as candle_values
from mlcore.data.simulate import simulate
from mlcore.errors import BundleRefused, ImportRefused, InvalidParameter
from mlcore.fitting import fit
from mlcore.fitting.recipes import RECIPES
from mlcore.importers.declaration import Declaration

SETTINGS: dict[str, dict[str, Any]] = {
    "as V7": {},
    "windows": {"input": "window16", "label": "percent", "cut": 0.5, "horizon": 4},
    "another split": {"input": "raw72", "horizon": 24, "fit_percent": 60, "stop_percent": 20},
}


@pytest.fixture(scope="module")
def market() -> pl.DataFrame:
    return simulate("BTC", bars=2_500, drift=1.2, seed=3)


def rows_of(market: pl.DataFrame, **settings: Any) -> Rows:
    listed = {"digest": candle_values.compute_digest(market), "coin": "BTC", "is_simulated": True}
    return prepare(market, listed, **settings)


def constant(rows: Rows, *, values: int = 3, fill: float = 0.0) -> bytes:
    """A graph that answers the shares of the classes, whatever its row."""
    numbers = int(np.prod(rows.schema.shape))
    weights = {
        "coef.weight": np.full((values, numbers), fill, np.float32),
        "coef.bias": np.log(np.bincount(rows.fit.labels, minlength=3) / len(rows.fit.labels)).astype(
            np.float32
        ),
    }
    return build_model(weights, None, shape=rows.schema.shape)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_rows_are_those_that_a_worker_and_the_gates_compute(
    market: pl.DataFrame, settings: dict[str, Any]
) -> None:
    rows = rows_of(market, **settings)
    prepared = fit.prepare(market, RECIPES["v7_fixed"].with_parameters(**settings))
    split = prepared.examples.split
    for window, part in ((rows.fit, split.fit), (rows.stop, split.stop)):
        assert window.features.tobytes() == np.ascontiguousarray(prepared.examples.features[part]).tobytes()
        assert window.labels.tolist() == prepared.labels[part].tolist()
    assert (rows.cuts, rows.windows) == (prepared.cuts, prepared.examples.windows_with_digests())
    assert rows.scaler.mean.tolist() == prepared.scaler.mean.tolist()
    assert rows.class_weights.tolist() == prepared.class_weights.tolist()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_declaration_is_whole_and_holds_the_figures_of_the_graph(
    market: pl.DataFrame, settings: dict[str, Any]
) -> None:
    rows = rows_of(market, **settings)
    declared = rows.declare(constant(rows), has_scaler=False)
    read = Declaration.parse(declared)
    assert (read.label, read.shares, read.cuts) == (rows.examples.label, rows.shares, rows.cuts)
    assert not read.needs_scaler and "scaler" not in rows.declare(constant(rows), has_scaler=True)
    shares = np.bincount(rows.fit.labels, minlength=3) / len(rows.fit.labels)
    assert declared["stop"]["loss"] == pytest.approx(-np.log(shares[rows.stop.labels]).mean(), abs=1e-6)
    assert declared["stop"]["accuracy"] == (rows.stop.labels == shares.argmax()).mean()


@pytest.mark.parametrize(
    ("settings", "error", "why"),
    [
        ({"input": "daily"}, Misconfigured, "no input 'daily'; choose"),
        ({"label": "quintiles"}, InvalidParameter, "no label 'quintiles'"),
        ({"horizon": 97}, InvalidParameter, "1 to 96"),
        ({"fit_percent": 90}, InvalidParameter, "fit window"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_refused(
    market: pl.DataFrame, settings: dict[str, Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        rows_of(market, **settings)


def test_too_few_candles_are_refused(market: pl.DataFrame) -> None:
    with pytest.raises(NotEnoughBars):
        rows_of(market[:600])


def linear(rows: Rows) -> bytes:
    """A regression on a few hundred rows: it has learned something."""
    from sklearn.linear_model import LogisticRegression  # slow to load

    some = slice(None, 600)
    features = rows.scaler.transform(rows.fit.features[some]).reshape(600, -1)
    model = LogisticRegression(solver="newton-cholesky").fit(features, rows.fit.labels[some])
    weights = {"coef.weight": model.coef_, "coef.bias": model.intercept_}
    return build_model(
        {name: array.astype(np.float32) for name, array in weights.items()},
        rows.scaler,
        shape=rows.schema.shape,
    )


def check(rows: Rows, graph: bytes, **options: Any) -> Check:
    with Gate("http://localhost", "token") as gate:
        return gate.check(rows, graph, **{"policy": {"document": FULL_POLICY}, "has_scaler": True, **options})


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_gates_run_here_on_the_stop_window(settings: dict[str, Any]) -> None:
    rows = rows_of(simulate("BTC", bars=4_500, drift=1.2, seed=3), **settings)
    graph = linear(rows)
    found = check(rows, graph)
    declared, figures = rows.declare(graph, has_scaler=True), found.figures
    assert figures["window"]["first_at"] == declared["windows"]["stop"]["first_at"]
    assert figures["accuracy"]["rows"] == len(rows.stop.labels)
    assert figures["accuracy"]["point"] == pytest.approx(declared["stop"]["accuracy"])
    assert {outcome.gate for outcome in found.outcomes} == set(GATES) - set(NOT_RUN)
    assert "error" not in {str(outcome.verdict) for outcome in found.outcomes}, str(found)
    honest = ("bundle", "scaler", "finite_weights", "single_sample", "lookahead", "schema", "reload")
    verdicts = {outcome.gate: str(outcome.verdict) for outcome in found.outcomes}
    assert {gate: verdicts[gate] for gate in honest} == dict.fromkeys(honest, "passed"), str(found)
    assert set(found.not_run) == set(NOT_RUN) and "attempts: not run here; only the service" in str(found)


def test_the_check_says_nothing_of_the_gate_window(market: pl.DataFrame) -> None:
    """Other candles in the gate window, and the same model: every figure is the same, but digests and times."""
    first = int(rows_of(market).examples.bars[rows_of(market).examples.split.gate.start])
    fallen = market.with_columns(
        pl.when(pl.int_range(pl.len()) < first).then(pl.col(name)).otherwise(pl.col(name) / 2)
        for name in ("open", "high", "low", "close")
    )
    graph = linear(rows_of(market))
    one, other = (dict(check(rows_of(frame), graph).figures) for frame in (market, fallen))
    for figures in (one, other):
        for name in ("bundle_digest", "dataset_digest", "trained_on", "seconds", "latency", "windows"):
            del figures[name]
    assert one == other


def test_a_check_names_what_is_wrong(market: pl.DataFrame) -> None:
    rows = rows_of(market)
    found = check(rows, constant(rows), has_scaler=False)
    assert found.verdict == "failed" and any(
        "class balance: failed" in line for line in str(found).split("\n")
    )
    assert any("BTC predicts" in problem for problem in found.problems)
    entries = {"attempts": {**FULL_POLICY["gates"]["attempts"], "required": False}}
    lighter = {"document": {"format": 1, "gates": {**BASELINE_POLICY["gates"], **entries}}}
    assert set(check(rows, constant(rows), has_scaler=False, policy=lighter).not_run) == {"attempts"}
    with pytest.raises(ImportRefused, match="it needs no scaler, and its graph begins with one"):
        check(rows, linear(rows), has_scaler=False)


def test_a_graph_that_no_gate_takes_is_refused_before_it_is_sent(market: pl.DataFrame) -> None:
    rows = rows_of(market)
    model = onnx.load_model_from_string(constant(rows))
    model.graph.node[0].op_type = "Loop"
    with pytest.raises(BundleRefused, match="Loop"):
        rows.declare(model.SerializeToString(), has_scaler=False)
    with pytest.raises(Misconfigured, match="cannot be run on these rows"):
        rows.declare(constant(rows_of(market, input="window16")), has_scaler=False)
    with pytest.raises(Misconfigured, match="not finite"):
        rows.declare(constant(rows, fill=np.nan), has_scaler=False)
