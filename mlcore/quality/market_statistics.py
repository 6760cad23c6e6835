"""How a series of candles moves: the few figures in which a market differs from what only looks like one.

Everything is measured over the whole series and again over stretches of about 2,000 bars, so that a bad half does not
hide behind a good one. Bars that do not follow each other (a gap lies between them) are never taken as peers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from mlcore.data.validation import infer_interval_ms

HOUR, DAY, WEEK = 3600, 86_400, 604_800  # seconds
STRETCH_BARS = 2000
MAX_STRETCHES = 64
VARIANCE_RATIO_BARS = 16
MEMORY_BARS = 12
LEVELLING_BARS = 24


@dataclass(frozen=True)
class Market:
    """A series of sound candles as arrays, one entry a bar; what is measured on it are its properties.

    Every array is float64 [rows], `seconds` int64 [rows] since 1970.
    """

    seconds: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    interval_seconds: int

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> "Market":
        """Of a frame that `candle_checks.check` takes."""
        columns = {name: frame[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
        seconds = frame["timestamp"].dt.epoch("s").to_numpy()
        return cls(seconds, **columns, interval_seconds=infer_interval_ms(frame) // 1000)

    def __len__(self) -> int:
        return len(self.close)

    def stretches(self) -> Iterator["Market"]:
        """Half-overlapping parts of about STRETCH_BARS bars; the series itself where it has no more."""
        length = max(STRETCH_BARS, 2 * len(self) // MAX_STRETCHES)
        starts = range(0, max(1, len(self) - length + 1), max(1, length // 2))
        last = max(0, len(self) - length)
        for start in dict.fromkeys([*starts, last]):
            yield self._part(slice(start, start + length))

    def _part(self, rows: slice) -> "Market":
        prices = self.open[rows], self.high[rows], self.low[rows], self.close[rows]
        return Market(self.seconds[rows], *prices, self.volume[rows], self.interval_seconds)

    @property
    def span_seconds(self) -> int:
        return int(self.seconds[-1] - self.seconds[0]) + self.interval_seconds

    @cached_property
    def returns(self) -> np.ndarray:
        """Log returns from close to close of bars that follow each other, [≤ rows − 1]."""
        return self._log_returns(1)

    @cached_property
    def ranges(self) -> np.ndarray:
        """log(high / low), [rows]."""
        return np.log(self.high) - np.log(self.low)

    @property
    def hourly_volatility(self) -> float:
        """Standard deviation of returns, scaled to an hour by the root of time."""
        return float(self.returns.std() * np.sqrt(HOUR / self.interval_seconds))

    @property
    def variance_ratio(self) -> float:
        """Variance of 16-bar returns over 16 times that of one bar (Lo and MacKinlay, 1988): 1 for a random walk."""
        many = self._log_returns(VARIANCE_RATIO_BARS)
        return _ratio(many.var(), VARIANCE_RATIO_BARS * self.returns.var()) if len(many) else np.nan

    @property
    def opening_gap(self) -> float:
        """Mean distance from a close to the next open, over the mean move from close to close."""
        gaps = np.abs(np.log(self.open[1:]) - np.log(self.close[:-1]))[self._follow(1)]
        return _ratio(gaps.mean(), np.abs(self.returns).mean()) if len(gaps) else np.nan

    @property
    def range_ratio(self) -> float:
        """Volatility as the ranges tell it (Parkinson, 1980), over that from close to close: 1 for a random walk."""
        return _ratio(np.sqrt((self.ranges**2).mean() / (4 * np.log(2))), self.returns.std())

    @property
    def kurtosis(self) -> float:
        """Of the returns: 3 for a normal distribution, 1.8 for a uniform one."""
        moves = self.returns - self.returns.mean()
        return _ratio((moves**4).mean(), moves.var() ** 2)

    @property
    def greatest_move(self) -> float:
        """The largest log return, or log(high / low), of any one bar."""
        return float(max(np.abs(self.returns).max(initial=0.0), self.ranges.max()))

    @property
    def memory(self) -> float:
        """Mean rank autocorrelation of the size of returns over the next twelve bars: calm and wild times last."""
        sizes = _ranks(np.abs(self.returns))
        return float(np.mean([_correlation(sizes[k:], sizes[:-k]) for k in range(1, MEMORY_BARS + 1)]))

    @property
    def activity(self) -> float:
        """Rank correlation of volume and range, both against their own last 24 bars: those who move a price trade."""
        volume = _levelled(np.log(_floored(self.volume)))
        return _correlation(_ranks(volume), _ranks(_levelled(self.ranges)))

    @property
    def unchanged_share(self) -> float:
        """Share of closes that equal the close before."""
        return float((np.diff(self.close) == 0).mean())

    @property
    def longest_standstill(self) -> int:
        """Bars in a row whose close equals the close before."""
        return longest_run(np.diff(self.close) == 0)

    def rhythm(self, period_bars: float) -> float:
        """How far the cycle of so many bars stands out of volume and range: 1 where there is none.

        The mean over its first three harmonics of the power at that frequency over the power around it.
        """
        lines = [line for series in self._spectra for line in series.lines(period_bars, harmonics=3)]
        return float(np.mean(lines)) if lines else np.nan

    def fundamental(self, period_bars: float) -> float:
        """The same of the cycle's own frequency alone."""
        lines = [line for series in self._spectra for line in series.lines(period_bars, harmonics=1)]
        return float(np.mean(lines)) if lines else np.nan

    @cached_property
    def _spectra(self) -> tuple["_Cycles", "_Cycles"]:
        volume, ranges = np.log(_floored(self.volume)), np.log(_floored(self.ranges))
        return _Cycles(self._on_grid(volume)), _Cycles(self._on_grid(ranges))

    def _on_grid(self, values: np.ndarray) -> np.ndarray:
        """The deviations from the mean with a zero for every missing bar, so that a bar's place is its time."""
        places = (self.seconds - self.seconds[0]) // self.interval_seconds
        grid = np.zeros(int(places[-1]) + 1)
        grid[places] = values - values.mean()
        return grid

    def profile(self, seconds: int, parts: int) -> np.ndarray:
        """Mean volume over the parts of a cycle (a day in 24), over its mean: [parts], NaN where no bar falls."""
        part = (self.seconds % seconds) * parts // seconds
        sums = np.bincount(part, self.volume, parts)
        counts = np.bincount(part, minlength=parts)
        means = np.divide(sums, counts, out=np.full(parts, np.nan), where=counts > 0)
        mean = float(self.volume.mean())
        return means / mean if mean > 0 else means

    def _log_returns(self, bars: int) -> np.ndarray:
        logs = np.log(self.close)
        return (logs[bars:] - logs[:-bars])[self._follow(bars)]

    def _follow(self, bars: int) -> np.ndarray:
        """Which rows from `bars` on come exactly so many bars after the row so far before them."""
        return self.seconds[bars:] - self.seconds[:-bars] == bars * self.interval_seconds


class _Cycles:
    """The power of a series by frequency, cut for each period so that the period falls on a frequency of its own."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self._powers: dict[int, np.ndarray] = {}

    def lines(self, period_bars: float, *, harmonics: int) -> list[float]:
        """Power at the period's harmonics over the mean of some forty frequencies around each."""
        rows = int(len(self._values) // period_bars * period_bars)
        if rows < 64:
            return []
        power = self._power(rows)
        found = []
        for harmonic in range(1, harmonics + 1):
            k = round(rows / period_bars * harmonic)
            if 4 <= k < len(power) - 3:
                around = np.r_[power[max(2, k - 24) : k - 2], power[k + 3 : k + 25]]
                found.append(_ratio(power[k], around.mean()))
        return found

    def _power(self, rows: int) -> np.ndarray:
        if rows not in self._powers:
            values = self._values[:rows] - self._values[:rows].mean()
            self._powers[rows] = np.abs(np.fft.rfft(np.hanning(rows) * values)) ** 2
        return self._powers[rows]


def longest_run(flags: np.ndarray) -> int:
    """How many true ones in a row there are at most."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else np.nan


def _floored(values: np.ndarray) -> np.ndarray:
    """Zeros raised to a thousandth of the median, so that a logarithm can be taken."""
    typical = float(np.median(values)) or float(values.mean()) or 1.0
    return np.maximum(values, typical * 1e-3)


def _levelled(values: np.ndarray) -> np.ndarray:
    """Each value less the mean of the 24 up to it, [rows − 23]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    means = (sums[LEVELLING_BARS:] - sums[:-LEVELLING_BARS]) / LEVELLING_BARS
    return values[LEVELLING_BARS - 1 :] - means


def _ranks(values: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or not a.std() * b.std():
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])
