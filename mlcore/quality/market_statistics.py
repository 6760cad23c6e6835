"""Statistics of a series of candles in which a market differs from artificial series.

They are computed over the whole series and over stretches of about 2,000 bars, so that a good half cannot hide a bad
one. Two bars with a gap between them never count as consecutive.
"""

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
DETREND_BARS = 24


@dataclass(frozen=True)
class Market:
    """Valid candles as arrays with one entry per bar; the statistics are properties.

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
        """From valid candles."""
        columns = {name: frame[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
        seconds = frame["timestamp"].dt.epoch("s").to_numpy()
        return cls(seconds, **columns, interval_seconds=infer_interval_ms(frame) // 1000)

    def __len__(self) -> int:
        return len(self.close)

    @cached_property
    def parts(self) -> tuple["Market", ...]:
        """The whole series, then half-overlapping stretches of about STRETCH_BARS bars; itself if it is shorter."""
        length = max(STRETCH_BARS, 2 * len(self) // MAX_STRETCHES)
        last = max(0, len(self) - length)
        starts = dict.fromkeys([*range(0, last + 1, length // 2), last])
        return (self, *(self._slice(slice(start, start + length)) for start in starts))

    def _slice(self, rows: slice) -> "Market":
        prices = self.open[rows], self.high[rows], self.low[rows], self.close[rows]
        return Market(self.seconds[rows], *prices, self.volume[rows], self.interval_seconds)

    @cached_property
    def returns(self) -> np.ndarray:
        """Log returns from close to close of consecutive bars, [≤ rows − 1]."""
        return self._compute_log_returns(1)

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
        many = self._compute_log_returns(VARIANCE_RATIO_BARS)
        return _divide(many.var(), VARIANCE_RATIO_BARS * self.returns.var()) if len(many) else np.nan

    @property
    def opening_gap(self) -> float:
        """Mean distance from a close to the next open, over the mean move from close to close."""
        gaps = np.abs(np.log(self.open[1:]) - np.log(self.close[:-1]))[self._find_consecutive(1)]
        return _divide(gaps.mean(), np.abs(self.returns).mean()) if len(gaps) else np.nan

    @property
    def range_ratio(self) -> float:
        """Volatility estimated from ranges (Parkinson, 1980) over that from close to close: 1 for a random walk."""
        return _divide(np.sqrt((self.ranges**2).mean() / (4 * np.log(2))), self.returns.std())

    @property
    def kurtosis(self) -> float:
        """Of the returns: 3 for a normal distribution, 1.8 for a uniform one."""
        moves = self.returns - self.returns.mean()
        return _divide((moves**4).mean(), moves.var() ** 2)

    @property
    def greatest_move(self) -> float:
        """The largest log return, or log(high / low), of any one bar."""
        return float(max(np.abs(self.returns).max(initial=0.0), self.ranges.max()))

    @property
    def memory(self) -> float:
        """Mean rank autocorrelation of the size of returns over twelve lags: calm and wild times last in markets."""
        sizes = _rank(np.abs(self.returns))
        return float(np.mean([_correlate(sizes[k:], sizes[:-k]) for k in range(1, MEMORY_BARS + 1)]))

    @property
    def activity(self) -> float:
        """Rank correlation of volume and range, each less its mean over 24 bars: trades move prices."""
        volume = _subtract_mean(np.log(_floor(self.volume)))
        return _correlate(_rank(volume), _rank(_subtract_mean(self.ranges)))

    @property
    def unchanged_share(self) -> float:
        return float((np.diff(self.close) == 0).mean())

    @property
    def longest_standstill(self) -> int:
        """Bars in a row whose close equals the close before."""
        return find_longest_run(np.diff(self.close) == 0)

    def compute_rhythm(self, period_bars: float, harmonics: int = 3) -> float:
        """How far a cycle of this period stands out in volume and range: 1 if there is none.

        The power at the frequency over the power around it, as a mean over the first harmonics.
        """
        lines = [line for grid in self._grids for line in _compute_lines(grid, period_bars, harmonics)]
        return float(np.mean(lines)) if lines else np.nan

    @cached_property
    def _grids(self) -> tuple[np.ndarray, np.ndarray]:
        """The logarithms of volume and range, evenly spaced in time."""
        return self._to_grid(np.log(_floor(self.volume))), self._to_grid(np.log(_floor(self.ranges)))

    def _to_grid(self, values: np.ndarray) -> np.ndarray:
        """The deviations from the mean, evenly spaced in time: zero for every missing bar."""
        positions = (self.seconds - self.seconds[0]) // self.interval_seconds
        grid = np.zeros(int(positions[-1]) + 1)
        grid[positions] = values - values.mean()
        return grid

    def _compute_log_returns(self, bars: int) -> np.ndarray:
        logs = np.log(self.close)
        return (logs[bars:] - logs[:-bars])[self._find_consecutive(bars)]

    def _find_consecutive(self, bars: int) -> np.ndarray:
        """Marks the rows from `bars` on without a gap between them and the row `bars` before."""
        steps = self.seconds[bars:] - self.seconds[:-bars]
        return steps == bars * self.interval_seconds


def _compute_lines(values: np.ndarray, period_bars: float, harmonics: int) -> list[float]:
    """Power at the period's harmonics over the mean of some forty frequencies around each.

    The series is cut so that the period is exactly one of the frequencies.
    """
    rows = int(len(values) // period_bars * period_bars)
    if rows < 64:
        return []
    power = np.abs(np.fft.rfft(np.hanning(rows) * (values[:rows] - values[:rows].mean()))) ** 2
    lines = []
    for harmonic in range(1, harmonics + 1):
        k = round(rows / period_bars * harmonic)
        if 4 <= k < len(power) - 3:
            around = np.r_[power[max(2, k - 24) : k - 2], power[k + 3 : k + 25]]
            lines.append(_divide(power[k], around.mean()))
    return lines


def compute_variance_ratio_band(bars: int) -> tuple[float, float]:
    """The range of a market's variance ratio. It is wider for fewer bars, which vary more by chance.

    Real: 0.91 … 0.98 over five years, 0.75 … 1.30 over any 2,000 bars, 0.64 … 1.42 over any 1,000.
    """
    half = 0.25 + 9 / np.sqrt(bars)
    return 0.95 - half, 0.95 + half


def find_longest_run(flags: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _divide(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else np.nan


def _floor(values: np.ndarray) -> np.ndarray:
    """Zeros raised to a thousandth of the median, so that their logarithm is finite."""
    typical = float(np.median(values)) or float(values.mean()) or 1.0
    return np.maximum(values, typical * 1e-3)


def _subtract_mean(values: np.ndarray) -> np.ndarray:
    """Each value less the mean of the last 24, [rows − 23]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    means = (sums[DETREND_BARS:] - sums[:-DETREND_BARS]) / DETREND_BARS
    return values[DETREND_BARS - 1 :] - means


def _rank(values: np.ndarray) -> np.ndarray:
    return values.argsort(kind="stable").argsort()


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or not a.std() * b.std():
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])
