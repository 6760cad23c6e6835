"""Rows of one series of candles found again in another, whatever their timestamps or price level say.

A row is recognised by the shape of its last bars: close to close, high and low to close, rounded to nine decimals.
No row is usable whose close stood still that long, so that dead stretches do not look like one another.
"""

import numpy as np
import polars as pl

from mlcore import parallel
from mlcore.features import rolling
from mlcore.features.labels import VOLATILITY_BARS

_DECIMALS = 9
_SIEVE_BITS = 22
_BARS_AT_ONCE = 32768

_OF_SHAPES = np.random.default_rng(0).integers(1, 2**63, 3, np.uint64) * 2 + 1
"""What each shape of a bar is multiplied by. Odd, so that products of different numbers differ."""
_OF_OLDER = np.random.default_rng(1).integers(1, 2**63, VOLATILITY_BARS, np.uint64) * 2 + 1
"""What the hash of older bars is multiplied by, for each number of newer bars that it is joined to."""


def count_shared_rows(
    frame: pl.DataFrame, bars: np.ndarray, other: pl.DataFrame, other_bars: np.ndarray
) -> int:
    """How many of `bars` in `frame` are among `other_bars` of `other`."""
    marks = hash_rows(frame)
    others = marks if other is frame else hash_rows(other)
    return _among(marks[bars], others[other_bars])


def _among(marks: np.ndarray, others: np.ndarray) -> int:
    """How many marks are among the others; looked up one by one are those alone that may be."""
    others = _sieved(others, marks)
    marks = _sieved(marks, others)
    return int(np.isin(marks, others).sum())


def _sieved(marks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Those whose highest bits are some other's highest bits too: of marks that are not among the others, few."""
    seen = np.zeros(1 << _SIEVE_BITS, bool)
    shift = np.uint64(64 - _SIEVE_BITS)
    seen[others >> shift] = True
    return marks[seen[marks >> shift]]


def hash_rows(frame: pl.DataFrame) -> np.ndarray:
    """uint64 [rows]: a hash of each bar and those before it; two that differ are alike once in 2⁶⁴."""
    columns = [frame[name].to_numpy() for name in ("high", "low", "close")]
    marks = np.empty(frame.height, np.uint64)

    def fill(some: slice) -> None:
        first = max(
            0, some.start - VOLATILITY_BARS
        )  # one bar more than is hashed: its close is the last one's
        marks[some] = _marks(*(values[first : some.stop] for values in columns))[some.start - first :]

    parallel.thread_map(fill, parallel.chunks(frame.height, _BARS_AT_ONCE))
    return marks


def _marks(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Of a stretch of candles: right from where VOLATILITY_BARS others stand before, or where the candles begin."""
    shapes = (np.diff(close, prepend=close[:1]), high - close, close - low)
    bars = np.zeros(len(close), np.uint64)
    for shape, factor in zip(shapes, _OF_SHAPES, strict=True):
        bars += np.round(shape / close * 10**_DECIMALS).astype(np.int64).view(np.uint64) * factor
    return rolling.fold(bars, [VOLATILITY_BARS], _join_marks)[VOLATILITY_BARS]


def _join_marks(out: np.ndarray, recent: np.ndarray, older: np.ndarray, n_recent: int, _: int) -> None:
    np.multiply(older, _OF_OLDER[n_recent], out=out)
    out += recent
