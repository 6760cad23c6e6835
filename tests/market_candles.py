"""Candles with the statistics of a real market, for tests: fat tails, volatility clusters, a daily rhythm.

The candle checks require all of these. The simulator that ships with the service lacks the last two.
"""

import numpy as np
import polars as pl

from mlcore.data.validation import validate_candles

STEPS = 60
START_SECONDS = 1_600_000_000 // 604_800 * 604_800


def generate(
    bars: int = 6000, *, seed: int = 0, interval_seconds: int = 3600, level: float = 100.0
) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    seconds = START_SECONDS + np.arange(bars) * interval_seconds
    activity = _activity(seconds)
    volatility = np.exp(0.5 * _slow_noise(random, bars, bars_to_forget=100))
    size = (
        0.007
        * np.sqrt(interval_seconds / 3600)
        * volatility
        * activity
        * np.exp(0.35 * random.standard_normal(bars))
    )
    moves = size[:, None] * random.standard_normal((bars, STEPS)) / np.sqrt(STEPS)
    path = np.log(level) + np.cumsum(moves).reshape(bars, STEPS)
    starts = np.concatenate([[np.log(level)], path[:-1, -1]]) + 1e-5 * random.standard_normal(bars)
    prices = {
        "open": starts,
        "high": np.maximum(path.max(axis=1), starts),
        "low": np.minimum(path.min(axis=1), starts),
        "close": path[:, -1],
    }
    ranges = prices["high"] - prices["low"]
    volume = 1e5 * ranges * activity * np.exp(0.2 * random.standard_normal(bars))
    return validate_candles(
        _frame(seconds, {name: np.exp(logs) for name, logs in prices.items()} | {"volume": volume})
    )


def with_interval(frame: pl.DataFrame, interval_seconds: int) -> pl.DataFrame:
    """The same bars, their times claiming another interval."""
    seconds = START_SECONDS + np.arange(frame.height) * interval_seconds
    return frame.with_columns(_times(seconds))


def random_levels(rows: int, *, level: float = 50_000.0, seed: int = 0) -> pl.DataFrame:
    """Prices drawn uniformly at random from 0.8 to 1.2 times a level, as V6 was trained on."""
    random = np.random.default_rng(seed)
    drawn = level * random.uniform(0.8, 1.2, (4, rows))
    prices = {"open": drawn[0], "high": drawn.max(axis=0), "low": drawn.min(axis=0), "close": drawn[1]}
    seconds = START_SECONDS + np.arange(rows) * 3600
    return validate_candles(_frame(seconds, prices | {"volume": random.uniform(100, 1000, rows)}))


def _frame(seconds: np.ndarray, columns: dict[str, np.ndarray]) -> pl.DataFrame:
    return pl.DataFrame([_times(seconds), *(pl.Series(name, values) for name, values in columns.items())])


def _times(seconds: np.ndarray) -> pl.Series:
    times = pl.Series("timestamp", seconds * 1000).cast(pl.Datetime("ms"))
    return times.dt.replace_time_zone("UTC")


def _activity(seconds: np.ndarray) -> np.ndarray:
    """More in the afternoon, less at the weekend."""
    hour = seconds % 86_400 / 3600
    weekend = (seconds // 86_400 + 4) % 7 % 6 == 0
    return np.exp(0.35 * np.cos((hour - 15) / 12 * np.pi) - 0.3 * weekend)


def _slow_noise(random: np.random.Generator, bars: int, bars_to_forget: int) -> np.ndarray:
    """Slow noise of about unit variance."""
    kernel = np.exp(-np.arange(5 * bars_to_forget) / bars_to_forget)
    noise = np.convolve(random.standard_normal(bars + len(kernel)), kernel, mode="valid")[:bars]
    return noise / np.sqrt((kernel**2).sum())
