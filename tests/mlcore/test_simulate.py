"""The simulated market: the same for the same arguments, valid, and with something in it only when planted."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from mlcore.data import candles, simulate
from mlcore.data.validation import validate_candles
from mlcore.errors import InvalidParameter


def log_close(frame: pl.DataFrame) -> np.ndarray:
    return np.log(frame["close"].to_numpy())


def variance_ratio(frame: pl.DataFrame) -> float:
    """Of 16-bar to 1-bar returns: 1 for a random walk."""
    path = log_close(frame)
    return float(np.var(path[16:] - path[:-16]) / 16 / np.var(np.diff(path)))


def test_a_market_is_the_same_for_the_same_coin_and_seed() -> None:
    frames = [
        simulate.simulate(coin, 500, 1.2, seed)
        for coin, seed in (("BTC", 1), ("BTC", 1), ("BTC", 2), ("ETH", 1))
    ]
    assert len({candles.compute_digest(frame) for frame in frames}) == 3
    assert frames[0].equals(frames[1])


@pytest.mark.parametrize("drift", [0.0, 1.2, 3.0])
@pytest.mark.parametrize("coin", ["BTC", "ETH", "SOL", "DOGE"])
def test_simulated_candles_are_candles_without_a_gap(coin: str, drift: float) -> None:
    frame = validate_candles(simulate.simulate(coin, 20_000, drift, seed=5))
    description = candles.describe(frame)
    assert (description.rows, description.gaps, description.interval_seconds) == (20_000, 0, 3600)
    assert frame["close"].n_unique() > 1000


@pytest.mark.parametrize(("coin", "price"), [("BTC", 50_000), ("ETH", 3_000), ("SOL", 100), ("DOGE", 100)])
def test_each_coin_starts_at_its_price(coin: str, price: float) -> None:
    assert simulate.simulate(coin, 10, 1.2, seed=0)["open"][0] == price


def test_the_interval_is_the_one_asked_for() -> None:
    assert candles.describe(simulate.simulate("BTC", 10, 0.0, 0, interval_seconds=60)).interval_seconds == 60


def test_a_market_trends_with_drift_and_is_a_random_walk_without() -> None:
    assert variance_ratio(simulate.simulate("BTC", 50_000, 1.2, seed=1)) > 4
    assert 0.85 < variance_ratio(simulate.simulate("BTC", 50_000, 0.0, seed=1)) < 1.15


def test_hourly_volatility_is_that_of_a_coin() -> None:
    for coin in simulate.COINS:
        assert 0.004 < np.diff(log_close(simulate.simulate(coin, 20_000, 0.0, seed=2))).std() < 0.013


@pytest.mark.parametrize(
    "wrong",
    [
        {"bars": 1},
        {"bars": simulate.MAX_BARS + 1},
        {"drift": -0.1},
        {"drift": float("nan")},
        {"seed": -1},
        {"interval_seconds": 0},
    ],
    ids=str,
)
def test_an_argument_out_of_bounds_is_refused_by_name(wrong: dict[str, float]) -> None:
    arguments: dict[str, Any] = {"coin": "BTC", "bars": 100, "drift": 1.2, "seed": 0} | wrong
    with pytest.raises(InvalidParameter, match="choose a value from") as refused:
        simulate.simulate(**arguments)
    assert [refused.value.name] == list(wrong)
