"""flat: answers neutral whatever the candles are, passes what a fallback must, and nothing that a candidate must show."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlcore.bundle.format import Bundle
from mlcore.bundle.predictor import Predictor
from mlcore.constants import CLASSES
from mlcore.data import simulate
from mlcore.evaluation.measure import measure
from mlcore.fitting.fit import Trained, fit, prepare
from mlcore.fitting.recipes import FLAT_LINE, RECIPES
from tests.mlcore.conftest import WriteBundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(market: pl.DataFrame) -> Trained:
    recipe = RECIPES[FLAT_LINE]
    return fit(prepare(market, recipe), recipe, seed=0)


@pytest.fixture(scope="module")
def bundle(trained: Trained, write: WriteBundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write(trained, tmp_path_factory.mktemp("bundles") / "flat")


@pytest.fixture(scope="module")
def figures(bundle: Bundle, market: pl.DataFrame) -> dict[str, Any]:
    return measure(bundle.folder, market, expected_digest=bundle.digest)


@pytest.mark.parametrize("drift", [0.0, 1.2, 5.0])
def test_every_bar_of_every_market_is_answered_neutral(bundle: Bundle, drift: float) -> None:
    prediction = Predictor(bundle.folder).predict(simulate.simulate("BTC", 2_100, drift=drift, seed=3))
    assert prediction.direction == "neutral"
    assert prediction.probabilities == pytest.approx({"down": 0.25, "neutral": 0.5, "up": 0.25})


def test_its_report_says_what_a_constant_answer_is_worth(trained: Trained) -> None:
    (report,) = trained.epochs
    share = float(np.mean(trained.prepared.stop_labels == CLASSES.index("neutral")))
    assert report.validation_accuracy == pytest.approx(share)
    assert report.validation_loss == pytest.approx(share * np.log(2) + (1 - share) * np.log(4))


def test_the_same_candles_give_the_same_bytes(
    trained: Trained, market: pl.DataFrame, bundle: Bundle, write: WriteBundle, tmp_path: Path
) -> None:
    again = fit(prepare(market, trained.recipe), trained.recipe, seed=0)
    assert write(again, tmp_path / "again").digest == bundle.digest


def test_it_is_finite_loads_and_its_graph_holds_its_weights(figures: dict[str, Any]) -> None:
    assert figures["bundle"]["loads"] and figures["bundle"]["problem"] is None
    assert figures["weights"]["non_finite"] == [] and figures["weights"]["equal_in_graph"]
    assert figures["single_sample"]["runs"] and figures["single_sample"]["largest_excess"] <= 0
    assert figures["problem"] is None
