"""The interval of a lead: how often it begins above nothing for a forecaster that is no better than another."""

import numpy as np
import pytest

from mlcore.evaluation.bootstrap import Blocks, get_cautious_block_bars

ROWS = 3_600
WINDOWS = 300


def draw_hits(random: np.random.Generator, accuracy: float, mean_bars: int) -> np.ndarray:
    """Hits that come in runs, int8 [ROWS]: each run is right or wrong as a whole."""
    runs = np.cumsum(random.random(ROWS) < 1 / mean_bars)
    return (random.random(runs[-1] + 1) < accuracy)[runs].astype(np.int8)


def find_lower(random: np.random.Generator, ahead: float, mean_bars: int, seed: int) -> float:
    own, other = (draw_hits(random, share, mean_bars) for share in (0.35 + ahead, 0.35))
    blocks = Blocks(ROWS, seed, get_cautious_block_bars(8))
    return blocks.estimate_cautiously(own - other, least=-1.0).lower


@pytest.mark.parametrize(
    "mean_bars", [1, 8, 36], ids=["single bars", "a label's length", "a regime's length"]
)
def test_no_lead_is_rarely_taken_for_one(mean_bars: int) -> None:
    """Nominal is 2.5 %."""
    random = np.random.default_rng(mean_bars)
    lower = [find_lower(random, 0.0, mean_bars, seed) for seed in range(WINDOWS)]
    assert np.mean(np.array(lower) > 0) <= 0.05


def test_a_lead_of_six_points_is_seen_about_half_the_time() -> None:
    random = np.random.default_rng(2)
    lower = [find_lower(random, 0.06, 4, seed) for seed in range(100)]
    assert 0.3 < np.mean(np.array(lower) > 0) < 0.7


def test_a_difference_has_a_lower_end_below_zero_and_hits_have_none() -> None:
    blocks = Blocks(432, 0, 216)
    values = np.where(np.arange(432) < 216, 1, -1).astype(np.int8)
    assert blocks.estimate_cautiously(values, least=-1.0).lower == -1.0
    assert blocks.estimate_cautiously((values > 0).astype(np.int8)).lower == 0.0


def test_equal_forecasters_have_no_lead_and_no_error() -> None:
    found = Blocks(1_000, 0, 216).estimate_cautiously(np.zeros(1_000, np.int8), least=-1.0)
    assert (found.point, found.lower, found.upper, found.standard_error) == (0, 0, 0, 0)
