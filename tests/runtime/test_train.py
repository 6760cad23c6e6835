"""The kit for notebooks, without a service: the rows that it prepares, and the declaration of a model of them."""

from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest

from crpbot_runtime import NotEnoughBars
from crpbot_runtime.errors import Misconfigured
from crpbot_runtime.train import Rows, prepare
from mlcore.bundle.onnx_graph import build_model
from mlcore.data import candles as candle_values
from mlcore.data.simulate import simulate
from mlcore.errors import BundleRefused, InvalidParameter
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
