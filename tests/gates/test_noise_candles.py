"""Prices drawn at random around a level: refused as candles, and were they not, the network trained on them is refused."""

from pathlib import Path
from typing import Any

import pytest

from deploy.rules import Outcome, Purpose, ReleaseState, settle
from gates.evaluation import evaluate
from gates.policy import BASELINE_POLICY
from mlcore.bundle import writer
from mlcore.data import candles
from mlcore.evaluation.measure import measure
from mlcore.fitting import fit
from mlcore.fitting.recipes import RECIPES
from mlcore.quality.market_checks import check_candles
from mlcore.verdict import Verdict
from tests import market_candles

pytestmark = pytest.mark.slow

ROWS = 7122


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """V7 trained to its end on random levels, and measured, as if no check of candles existed."""
    frame = market_candles.random_levels(ROWS)
    recipe = RECIPES["v7_fixed"]
    trained = fit.fit(fit.prepare(frame, recipe), recipe, seed=1, device="cpu")
    folder: Path = tmp_path_factory.mktemp("noise") / "bundle"
    written = writer.write_bundle(
        folder,
        trained,
        coin="BTC",
        dataset_digest=candles.compute_digest(frame),
        simulated=False,
        code_version="test",
    )
    return measure(written.folder, frame, expected_digest=written.digest)


def test_random_levels_are_refused_as_candles() -> None:
    judgement = check_candles(market_candles.random_levels(ROWS))
    found = {check.name: check.finding for check in judgement.checks}
    assert judgement.verdict == Verdict.FAILED
    assert found["variance_ratio"].verdict == Verdict.FAILED
    assert found["variance_ratio"].figure == pytest.approx(0.06, abs=0.02)


def test_a_network_trained_on_noise_is_rejected(
    measured: dict[str, Any],
) -> None:
    """A random level returns to its mean, which can be learned: 0.57 is the best there is, under the baseline's 0.65."""
    assert 0.5 < measured["accuracy"]["point"] < 0.6
    outcomes = evaluate(measured, BASELINE_POLICY, coin="BTC")
    verdicts = {outcome.gate: outcome.verdict for outcome in outcomes}
    assert verdicts["accuracy"] == Verdict.FAILED
    assert verdicts["class_balance"] == Verdict.FAILED
    settled = settle(Purpose.CANDIDATE, [Outcome("BTC", outcomes)])
    assert settled.state == ReleaseState.REJECTED
    assert "BTC accuracy failed" in settled.reason
