"""Candles to plant faults in: prices that move like a market's, and ranges that predict the next moves."""

import numpy as np
import polars as pl

from mlcore.data.validation import validate_candles
from mlcore.features import labels

_START_MS = 1_609_459_200_000
_VOLATILITY = 0.007
_FREEDOM = 5  # degrees of freedom of the Student-t
_SIGNAL_IN_RANGE = 0.7
_SIGNAL_IN_VOLUME = 0.3


def generate_predictable(
    bars: int, *, noise: float, seed: int, gaps: float = 0.0, lies: float | None = None
) -> pl.DataFrame:
    """Hourly candles whose range predicts the next 8 bars, with `noise`. Their closes alone predict nothing.

    A wide bar means up, a narrow one down, and volume goes with the range. All checks of candles
    pass. With a noise of 0.1, a network is right in about 0.8 of the bars; the last move predicts nothing. With `gaps`,
    the opens predict as well, in units of the volatility. With `lies`, the range shows only the class, and a wrong one
    in that share of the bars.
    """
    random = np.random.default_rng(seed)
    day = np.exp(0.15 * np.sin(2 * np.pi * np.arange(bars) / 24))
    volatility = _VOLATILITY * day * np.exp(0.35 * _draw_autoregression(random, bars, bars_to_forget=60))
    moves = volatility * random.standard_t(_FREEDOM, bars) * np.sqrt((_FREEDOM - 2) / _FREEDOM)
    path = 50_000 * np.exp(np.concatenate([[0.0], np.cumsum(moves)]))
    ahead = np.nan_to_num(labels.compute_forward_returns(path[1:]))
    if lies is not None:
        ahead = 1.5 * (_draw_classes(random, ahead, lies) - 1)
    signal = np.clip(ahead + noise * random.standard_normal(bars), -2.5, 2.5)
    wicks = 0.6 * volatility * np.exp(_SIGNAL_IN_RANGE * signal)
    above = random.random(bars)
    activity = (np.abs(moves) + wicks) / _VOLATILITY * np.exp(_SIGNAL_IN_VOLUME * signal)
    opens = path[:-1] * np.exp(gaps * volatility * signal)
    return build_candles(opens, path[1:], wicks * np.stack([above, 1 - above]), 1_500 * day * activity)


def _draw_classes(random: np.random.Generator, ahead: np.ndarray, lies: float) -> np.ndarray:
    """The next class, or one of the other two in a share of the bars."""
    classes = labels.assign_classes(ahead, labels.compute_cuts(ahead))
    is_lie = random.random(len(ahead)) < lies
    return np.where(is_lie, (classes + random.integers(1, 3, len(ahead))) % 3, classes)


def build_candles(
    opens: np.ndarray, closes: np.ndarray, reach: np.ndarray, volume: np.ndarray
) -> pl.DataFrame:
    """Hourly bars. Their highs and lows exceed open and close by `reach` [2, bars] in log returns."""
    columns = {
        "open": opens,
        "high": np.maximum(opens, closes) * np.exp(reach[0]),
        "low": np.minimum(opens, closes) * np.exp(-reach[1]),
        "close": closes,
    }
    stamps = pl.Series(_START_MS + np.arange(len(closes)) * 3_600_000)
    times = stamps.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    prices = {name: np.round(values, 4) for name, values in columns.items()}
    return validate_candles(pl.DataFrame({"timestamp": times, **prices, "volume": np.round(volume, 3)}))


def _draw_autoregression(random: np.random.Generator, bars: int, bars_to_forget: int) -> np.ndarray:
    """A first-order autoregression of unit variance."""
    keep = np.exp(-1 / bars_to_forget)
    walk, value = np.empty(bars), 0.0
    for bar, shock in enumerate((random.standard_normal(bars) * np.sqrt(1 - keep**2)).tolist()):
        value = keep * value + shock
        walk[bar] = value
    return walk
