"""Statistics of a series of candles in which a market differs from artificial series.

They are computed over the whole series and over stretches of about 2,000 bars, so that a good half cannot hide a bad
one. Two bars with a gap between them never count as consecutive. No single bar decides: a crash moves a standard deviation
or a kurtosis by any amount, so returns, ranges and gaps are clipped, or only their ranks count.
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
CLIP_MEDIANS = 12.0
"""Returns and ranges are clipped at this many medians of their size; 1 bar in 500 of a market lies beyond."""
TAIL_MEDIANS = 8.0
"""The same for the weight of the tails: 5.4 standard deviations of a normal distribution, which is not clipped by it."""
DAY_BARS = 24
FLOAT_NOISE = 1e-9
"""Relative moves below this are errors of rounding."""
STRAIGHT_BARS, STRAIGHT_TOLERANCE = 6, 0.02
"""So many moves in a row that differ by less than this share of the median move are a straight line."""
STRAIGHT_TICKS = 8
"""Moves of fewer ticks are often equal by chance."""
COARSE_TICKS = 4.0
"""A median move of fewer ticks is coarse: closes repeat, and bid and ask alternate."""
CRASH_BARS = 64
"""A crash, with what leads to it and follows it, takes no more bars."""


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

    @cached_property
    def clipped_returns(self) -> np.ndarray:
        """The returns, none further from zero than CLIP_MEDIANS medians of their size."""
        return _clip(self.returns, CLIP_MEDIANS)

    @property
    def hourly_volatility(self) -> float:
        """Of the clipped returns, from their mean size (√(π/2) of it for a normal distribution), scaled to an hour."""
        return float(np.abs(self.clipped_returns).mean() * np.sqrt(np.pi / 2 * HOUR / self.interval_seconds))

    @property
    def variance_ratio(self) -> float:
        """Variance of 16-bar returns over 16 times that of one bar (Lo and MacKinlay, 1988): 1 for a random walk."""
        return self._compute_variance_ratio(self._moves)

    @property
    def variance_ratio_without_crash(self) -> float:
        """The same without the CRASH_BARS bars over which the price went furthest."""
        moves = self._moves.copy()
        sums = np.concatenate([[0.0], np.cumsum(moves)])
        start = int(np.abs(sums[CRASH_BARS:] - sums[:-CRASH_BARS]).argmax()) if len(moves) > CRASH_BARS else 0
        moves[start : start + CRASH_BARS] = 0.0
        return self._compute_variance_ratio(moves)

    @cached_property
    def _moves(self) -> np.ndarray:
        """The clipped returns, 0 after a gap and in the first bar, [rows]."""
        moves = np.zeros(len(self))
        moves[1:][self._find_consecutive(1)] = self.clipped_returns
        return moves

    def _compute_variance_ratio(self, moves: np.ndarray) -> float:
        sums = np.cumsum(moves)
        many = (sums[VARIANCE_RATIO_BARS:] - sums[:-VARIANCE_RATIO_BARS])[
            self._find_consecutive(VARIANCE_RATIO_BARS)
        ]
        one = moves[1:][self._find_consecutive(1)]
        return _divide(many.var(), VARIANCE_RATIO_BARS * one.var()) if len(many) else np.nan

    @property
    def opening_gap(self) -> float:
        """Mean distance from a close to the next open, over the mean move from close to close, both clipped."""
        gaps = np.abs(np.log(self.open[1:]) - np.log(self.close[:-1]))[self._find_consecutive(1)]
        gaps = np.minimum(gaps, CLIP_MEDIANS * _median_size(self.returns))
        return _divide(gaps.mean(), np.abs(self.clipped_returns).mean()) if len(gaps) else np.nan

    @property
    def joined_share(self) -> float:
        """The share of bars that open exactly at the close before."""
        return float((self.open[1:] == self.close[:-1]).mean())

    @property
    def range_ratio(self) -> float:
        """Mean range over twice the mean size of a return, both clipped: 1 for a random walk watched without a break."""
        return _divide(_clip(self.ranges, CLIP_MEDIANS).mean(), 2 * np.abs(self.clipped_returns).mean())

    @property
    def kurtosis(self) -> float:
        """Of the returns, clipped at TAIL_MEDIANS: 3 for a normal distribution, 1.8 for a uniform one."""
        moves = _clip(self.returns, TAIL_MEDIANS)
        moves = moves - moves.mean()
        return _divide((moves**4).mean(), moves.var() ** 2)

    def find_moves_over(self, limit: float) -> tuple[np.ndarray, int]:
        """The sizes of the bars whose log return or log(high / low) is over the limit, the largest first.

        And how many crashes these are: what lies within CRASH_BARS bars is one.
        """
        returns = np.zeros(len(self))
        returns[1:][self._find_consecutive(1)] = np.abs(self.returns)
        sizes = np.maximum(returns, self.ranges)
        rows = np.flatnonzero(sizes > limit)
        crashes = int(bool(len(rows)) + np.count_nonzero(np.diff(rows) > CRASH_BARS))
        return np.sort(sizes[rows])[::-1], crashes

    @property
    def memory(self) -> float:
        """Mean rank autocorrelation of ranges over twelve lags: calm and wild times last in markets."""
        sizes = _rank(self.ranges)
        return float(np.mean([_correlate(sizes[k:], sizes[:-k]) for k in range(1, MEMORY_BARS + 1)]))

    @property
    def volume_memory(self) -> float:
        """Rank autocorrelation of volume from bar to bar: busy times last too."""
        ranks = _rank(self.volume)
        return _correlate(ranks[1:], ranks[:-1])

    @property
    def day_memory(self) -> float:
        """Correlation of the mean log volume and range of 24 bars with those of the 24 bars before, averaged."""
        return float(np.mean([_correlate(mean[1:], mean[:-1]) for mean in self._day_means]))

    @cached_property
    def _day_means(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean logarithms of volume and range over 24 bars, [rows / 24] each."""
        rows = len(self) // DAY_BARS * DAY_BARS
        volume, ranges = (
            np.log(_floor(values))[:rows].reshape(-1, DAY_BARS).mean(axis=1)
            for values in (self.volume, self.ranges)
        )
        return volume, ranges

    @property
    def activity(self) -> float:
        """Rank correlation of volume and range, each less its mean over 24 bars: trades move prices."""
        volume = _subtract_mean(np.log(_floor(self.volume)))
        return _correlate(_rank(volume), _rank(_subtract_mean(self.ranges)))

    @property
    def day_activity(self) -> float:
        """Rank correlation of the changes of volume and range from 24 bars to the next 24: busy days move prices."""
        volume, ranges = (np.diff(mean) for mean in self._day_means)
        return _correlate(_rank(volume), _rank(ranges))

    @cached_property
    def ticks(self) -> np.ndarray:
        """The sizes of the moves from close to close in ticks, [rows − 1]. One move in a hundred is a tick or less."""
        steps = np.abs(np.diff(self.close))
        steps[steps < FLOAT_NOISE * self.close[1:]] = 0.0
        moved = steps[steps > 0]
        return steps / np.quantile(moved, 0.01) if len(moved) else steps

    @cached_property
    def is_coarse(self) -> bool:
        """Whether the median move of any quarter has so few ticks that the price often stands still."""
        return any(0 < _median_size(part) < COARSE_TICKS for part in np.array_split(self.ticks, 4))

    @property
    def straight_share(self) -> float:
        """The share of bars in straight lines: STRAIGHT_BARS or more nearly equal moves in a row, of several ticks each."""
        moves = self.returns
        typical = _median_size(moves)
        is_repeated = np.abs(np.diff(moves)) < STRAIGHT_TOLERANCE * typical
        is_repeated &= self.ticks[self._find_consecutive(1)][1:] > STRAIGHT_TICKS
        starts, ends = _find_runs(is_repeated)
        lengths = ends - starts
        return float(lengths[lengths >= STRAIGHT_BARS - 1].sum() / max(1, len(moves)))

    @cached_property
    def is_unchanged(self) -> np.ndarray:
        """Whether the close equals the close before, and if moves are coarse, the low equals the high. [rows − 1]"""
        return (np.diff(self.close) == 0) & (not self.is_coarse or self.ranges[1:] == 0)

    @cached_property
    def is_frozen(self) -> np.ndarray:
        """The same, of bars with volume, [rows − 1]."""
        return self.is_unchanged & (self.volume[1:] > 0)

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

    Real: 0.72 … 1.38 over any 2,000 bars, 0.66 … 1.50 over any 1,000 (docs/markets.md).
    """
    half = 0.30 + 10 / np.sqrt(bars)
    return 0.95 - half, 0.95 + half


def find_longest_run(flags: np.ndarray) -> int:
    starts, ends = _find_runs(flags)
    return int((ends - starts).max(initial=0))


def _find_runs(flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of true values begins, and where it has ended."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return edges[::2], edges[1::2]


def _median_size(values: np.ndarray) -> float:
    """The median size of the values other than zero; 0 without any."""
    sizes = np.abs(values[values != 0])
    return float(np.median(sizes)) if len(sizes) else 0.0


def _clip(values: np.ndarray, medians: float) -> np.ndarray:
    """The values, none further from zero than so many medians of their size."""
    limit = medians * _median_size(values)
    return np.clip(values, -limit, limit)


def _divide(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else np.nan


def _floor(values: np.ndarray) -> np.ndarray:
    """The least values raised, and zeros: their logarithm is finite, and not far from the others."""
    positive = values[values > 0]
    return np.maximum(values, np.quantile(positive, 0.05) if len(positive) else 1.0)


def _subtract_mean(values: np.ndarray) -> np.ndarray:
    """Each value less the mean of the last 24, [rows − 23]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    means = (sums[DETREND_BARS:] - sums[:-DETREND_BARS]) / DETREND_BARS
    return values[DETREND_BARS - 1 :] - means


def _rank(values: np.ndarray) -> np.ndarray:
    """Equal values have the mean of their ranks: in their order in time they would seem to have a memory."""
    return pl.Series(values).rank("average").to_numpy()


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or not a.std() * b.std():
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])
