"""The live gates on real models' predictions: V7 never trips them, V6 does within tens of predictions."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from crpbot_runtime.live_windows import MAX_PREDICTIONS
from gates.catalogue.live import RECENT_PREDICTIONS, LiveOutcome, Tally, judge_live
from gates.policy import FULL_POLICY
from mlcore import confidence_bands
from mlcore.bundle.format import MANIFEST_FILE, Bundle, to_canonical_json
from mlcore.bundle.predictor import Predictor, softmax
from mlcore.features import indicators
from mlcore.fitting.fit import Trained
from mlcore.verdict import Verdict

WINDOWS = 10_000
BLOCK_BARS = 72
"""As the gates' bootstrap resamples: regimes last, so that single bars would look far too well mixed."""


def unseen(trained: Trained) -> np.ndarray:
    """Features of every bar after the fit window, unscaled."""
    examples = trained.prepared.examples
    return examples.features[examples.split.stop.start :]


def in_blocks(rows: int, wanted: int, seed: int) -> np.ndarray:
    starts = np.random.default_rng(seed).integers(0, rows - BLOCK_BARS, -(-wanted // BLOCK_BARS))
    return (starts[:, None] + np.arange(BLOCK_BARS)).ravel()[:wanted]


def tally(logits: np.ndarray, outside: np.ndarray | None = None) -> Tally:
    """What a bot would have counted of these predictions."""
    sure = np.digitize(softmax(logits).max(axis=1), confidence_bands.EDGES[1:-1])
    down, neutral, up = np.bincount(logits.argmax(axis=1), minlength=3).tolist()
    return Tally(
        len(logits),
        0,
        (down, neutral, up),
        tuple(np.bincount(sure, minlength=confidence_bands.BANDS).tolist()),
        float(logits.min()),
        float(logits.max()),
        0 if outside is None else int(outside.sum()),
        0 if outside is None else len(logits),
    )


def outside_of_training(trained: Trained) -> np.ndarray:
    examples = trained.prepared.examples
    fit, rows = examples.features[examples.split.fit], unseen(trained)
    return ((rows < fit.min(axis=0)) | (rows > fit.max(axis=0))).sum(axis=1)


def against(outcomes: list[LiveOutcome]) -> list[str]:
    return [o.gate for o in outcomes if o.finding.verdict == Verdict.FAILED]


@pytest.mark.slow
def test_a_healthy_v7_trips_nothing_in_ten_thousand_windows(v7: Trained, v7_bundle: Bundle) -> None:
    logits, outside = Predictor(v7_bundle.folder).logits(unseen(v7)), outside_of_training(v7)
    chosen = in_blocks(len(logits), WINDOWS * MAX_PREDICTIONS, seed=1)
    spoken, found = set(), []
    for rows in chosen.reshape(WINDOWS, MAX_PREDICTIONS):
        window = tally(logits[rows], outside[rows])
        outcomes = judge_live(window, window, FULL_POLICY)
        spoken |= {o.gate for o in outcomes if o.finding.verdict == Verdict.PASSED}
        found += against(outcomes)
    assert found == []
    assert spoken == {"finite_answers", "logit_range", "confidence"}


def test_nor_in_the_shortest_windows_that_a_tripwire_judges(v7: Trained, v7_bundle: Bundle) -> None:
    logits = Predictor(v7_bundle.folder).logits(unseen(v7))
    for start in range(len(logits) - 20):
        window = tally(logits[start : start + 20])
        assert against(judge_live(window, window, FULL_POLICY)) == []


def test_its_class_shares_and_features_wander_and_yet_do_not_warn(v7: Trained, v7_bundle: Bundle) -> None:
    logits, outside = Predictor(v7_bundle.folder).logits(unseen(v7)), outside_of_training(v7)
    epochs = in_blocks(len(logits), 100 * 3000, seed=2).reshape(100, 3000)
    wholes = [tally(logits[rows], outside[rows]) for rows in epochs]
    assert all(against(judge_live(whole, whole, FULL_POLICY)) == [] for whole in wholes)
    small = [tally(logits[rows[:50]]) for rows in epochs]
    left = sum(not 0.2 <= min(t.classes) / 50 <= max(t.classes) / 50 <= 0.4 for t in small)
    assert left > 90, "windows of 50 leave the gate's band nearly always: a warning there would say nothing"


@pytest.mark.parametrize("predictions", [10, 20, 100])
def test_v6_trips_wherever_in_the_market_it_begins(predictions: int, v6: Trained, v6_bundle: Bundle) -> None:
    logits = Predictor(v6_bundle.folder).logits(unseen(v6))
    expected = {"logit_range"} if predictions < 20 else {"logit_range", "confidence"}
    for start in range(0, len(logits) - predictions, 97):
        window = tally(logits[start : start + predictions])
        assert set(against(judge_live(window, window, FULL_POLICY))) == expected


def test_a_prediction_counts_features_outside_the_range_of_the_training(
    v7: Trained, v7_bundle: Bundle, market: pl.DataFrame
) -> None:
    predictor = Predictor(v7_bundle.folder)
    inside = predictor.predict(market).out_of_range
    row = indicators.compute_latest(market, predictor.schema)[0]
    fit = v7.prepared.examples.features[v7.prepared.examples.split.fit]
    assert inside == int(((row < fit.min(axis=0)) | (row > fit.max(axis=0))).sum())
    risen = [pl.col(name) * np.e for name in ("open", "high", "low", "close")]
    rows = pl.arange(pl.len()) == pl.len() - 1
    jumped = market.with_columns(
        *(pl.when(rows).then(e).otherwise(pl.col(e.meta.output_name())) for e in risen)
    )
    beyond = predictor.predict(jumped).out_of_range
    assert beyond is not None
    assert beyond > 10


def test_one_that_does_not_say_so_leaves_it_open(
    v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    folder = shutil.copytree(v7_bundle.folder, tmp_path / "older")
    document = {name: value for name, value in v7_bundle.manifest.document.items() if name != "seen"}
    (folder / MANIFEST_FILE).write_bytes(to_canonical_json(document))
    assert Predictor(folder).predict(market).out_of_range is None


def test_the_tripwires_look_back_as_far_as_one_full_window() -> None:
    assert MAX_PREDICTIONS == RECENT_PREDICTIONS
