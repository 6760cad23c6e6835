"""Finds rows of one series of candles in another, even if their timestamps or price level differ.

A row is identified by the shape of its last bars: close to close, high and low to close, rounded to nine decimals. Rows
whose close did not move for that long are not usable, so dead stretches do not match each other.
"""

import numpy as np
import polars as pl

from mlcore import parallel
from mlcore.features import rolling
from mlcore.features.labels import VOLATILITY_BARS

_DECIMALS = 9
_CHUNK_ROWS = 32768

_SHAPE_FACTORS = np.random.default_rng(0).integers(1, 2**63, 3, np.uint64) * 2 + 1
"""Multipliers of the three shapes of a bar. They are odd, so products of different numbers differ."""
_AGE_FACTORS = np.random.default_rng(1).integers(1, 2**63, VOLATILITY_BARS, np.uint64) * 2 + 1
"""Multipliers of the hash of older bars, by the number of newer bars that it is joined with."""


def count_shared_rows(
    frame: pl.DataFrame, bars: np.ndarray, other: pl.DataFrame, other_bars: np.ndarray
) -> int:
    """How many of `bars` in `frame` are among `other_bars` of `other`."""
    hashes = hash_rows(frame)
    others = hashes if other is frame else hash_rows(other)
    return int(pl.Series(hashes[bars]).is_in(pl.Series(others[other_bars]).implode()).sum())


def hash_rows(frame: pl.DataFrame) -> np.ndarray:
    """uint64 [rows]: a hash of each bar and the bars before it; different rows collide once in 2⁶⁴."""
    columns = [frame[name].to_numpy() for name in ("high", "low", "close")]
    hashes = np.empty(frame.height, np.uint64)

    def fill(rows: slice) -> None:
        first = max(0, rows.start - VOLATILITY_BARS)  # one bar more than is hashed, for its close
        chunk = _hash_bars(*(values[first : rows.stop] for values in columns))
        hashes[rows] = chunk[rows.start - first :]

    parallel.thread_map(fill, parallel.chunks(frame.height, _CHUNK_ROWS))
    return hashes


def _hash_bars(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Valid for rows with VOLATILITY_BARS bars before them, and at the beginning of the candles."""
    shapes = (np.diff(close, prepend=close[:1]), high - close, close - low)
    bars = np.zeros(len(close), np.uint64)
    for shape, factor in zip(shapes, _SHAPE_FACTORS, strict=True):
        bars += np.round(shape / close * 10**_DECIMALS).astype(np.int64).view(np.uint64) * factor
    return rolling.fold(_join_hashes, bars, [VOLATILITY_BARS])[VOLATILITY_BARS]


def _join_hashes(out: np.ndarray, recent: np.ndarray, older: np.ndarray, n_recent: int, _: int) -> None:
    np.multiply(older, _AGE_FACTORS[n_recent], out=out)
    out += recent
