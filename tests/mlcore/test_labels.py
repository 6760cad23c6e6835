"""Labels look H bars ahead in units of the volatility seen so far, cut so that no class is rare."""

import numpy as np
import pytest

from mlcore.data import simulate
from mlcore.features import labels

CLOSE = simulate.simulate("BTC", 3_000, 0.0, seed=1)["close"].to_numpy()


def test_a_label_measures_the_next_h_bars_in_trailing_volatility() -> None:
    t = 1_000
    trailing = np.diff(np.log(CLOSE[t - labels.VOLATILITY_BARS : t + 1])).std(ddof=1)
    expected = np.log(CLOSE[t + 8] / CLOSE[t]) / (trailing * np.sqrt(8))
    assert labels.compute_forward_returns(CLOSE)[t] == pytest.approx(expected, rel=1e-9)


def test_the_last_move_is_the_same_looking_back() -> None:
    t = 1_000
    trailing = np.diff(np.log(CLOSE[t - labels.VOLATILITY_BARS : t + 1])).std(ddof=1)
    expected = np.log(CLOSE[t] / CLOSE[t - 8]) / (trailing * np.sqrt(8))
    assert labels.compute_past_returns(CLOSE)[t] == pytest.approx(expected, rel=1e-9)


def test_only_rows_without_a_known_volatility_or_future_have_no_label() -> None:
    undefined = np.flatnonzero(np.isnan(labels.compute_forward_returns(CLOSE)))
    first, last = range(labels.VOLATILITY_BARS), range(len(CLOSE) - labels.HORIZON_BARS, len(CLOSE))
    assert undefined.tolist() == [*first, *last]


def test_a_price_that_stood_still_has_no_unit_to_measure_in() -> None:
    still = np.concatenate([np.full(100, 50.0), CLOSE])
    assert np.isnan(labels.compute_forward_returns(still)[:100]).all()


def test_later_prices_beyond_h_bars_do_not_change_a_label() -> None:
    t = 500
    shortened = labels.compute_forward_returns(CLOSE[: t + labels.HORIZON_BARS + 1])
    assert shortened[t] == labels.compute_forward_returns(CLOSE)[t]


def test_cuts_at_the_terciles_make_three_equal_classes() -> None:
    scaled = labels.compute_forward_returns(CLOSE)
    scaled = scaled[np.isfinite(scaled)]
    counts = np.bincount(labels.assign_classes(scaled, labels.compute_cuts(scaled)))
    assert counts.max() - counts.min() <= 2


def test_a_return_on_a_cut_is_neutral() -> None:
    assert labels.assign_classes(np.array([-1.1, -1.0, 0.0, 2.0, 2.1]), (-1.0, 2.0)).tolist() == [
        0,
        1,
        1,
        1,
        2,
    ]
