"""Rows of one series of candles found again in another, whatever their timestamps or price level say.

A row is recognised by the shape of its last bars: close to close, high and low to close, rounded to nine decimals.
No row is usable whose close stood still that long, so that dead stretches do not look like one another.
"""

import numpy as np
import polars as pl

from mlcore import side_by_side
from mlcore.labels import VOLATILITY_BARS

_DECIMALS = 9
_SIEVE_BITS = 22
_BARS_AT_ONCE = 16384


def shared_rows(frame: pl.DataFrame, bars: np.ndarray, other: pl.DataFrame, other_bars: np.ndarray) -> int:
    """How many of `bars` in `frame` are among `other_bars` of `other`."""
    marks = row_marks(frame)
    others = marks if other is frame else row_marks(other)
    return _among(marks[bars], others[other_bars])


def _among(marks: np.ndarray, others: np.ndarray) -> int:
    """How many marks are among the others. Those others go first whose highest bits no mark has: nearly all of them."""
    seen = np.zeros(1 << _SIEVE_BITS, bool)
    shift = np.uint64(64 - _SIEVE_BITS)
    seen[marks >> shift] = True
    return int(np.isin(marks, others[seen[others >> shift]]).sum())


def row_marks(frame: pl.DataFrame) -> np.ndarray:
    """uint64 [rows]: a hash of each bar and those before it; two that differ are alike once in 2⁶⁴."""
    columns = [frame[name].to_numpy() for name in ("high", "low", "close")]
    marks = np.empty(frame.height, np.uint64)

    def fill(some: slice) -> None:
        first = max(
            0, some.start - VOLATILITY_BARS
        )  # one bar more than is hashed: its close is the last one's
        marks[some] = _marks(*(values[first : some.stop] for values in columns))[some.start - first :]

    side_by_side.each(fill, side_by_side.stretches(frame.height, _BARS_AT_ONCE))
    return marks


def _marks(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Of a stretch of candles: right from where VOLATILITY_BARS others stand before, or where the candles begin."""
    shapes = (np.diff(close, prepend=close[:1]), high - close, close - low)
    marks = np.zeros(len(close), np.uint64)
    product = np.empty_like(marks)
    factors = np.random.default_rng(0).integers(1, 2**63, (len(shapes), VOLATILITY_BARS), np.uint64) * 2 + 1
    for shape, row in zip(shapes, factors, strict=True):
        rounded = np.round(shape / close * 10**_DECIMALS).astype(np.int64).view(np.uint64)
        for age, factor in enumerate(row):
            rest = len(close) - age
            marks[age:] += np.multiply(rounded[:rest], factor, out=product[:rest])
    return marks
