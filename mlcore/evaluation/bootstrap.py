"""Confidence intervals of a mean over consecutive bars: the moving-block bootstrap (Künsch 1989).

Consecutive bars are not independent: labels overlap by 8 bars, and hits come in runs. So whole blocks are drawn, not
bars. A network's hits are uncorrelated after some 16 bars, and blocks of 72 estimate their spread within 5 %. But a
forecaster that misreads a regime is wrong as long as it lasts, up to 72 bars. With a true accuracy of 0.65, 6–8 % of
these forecasters have 72-bar percentile intervals above 0.65. `estimate_cautiously` uses blocks of 216 (three of the
longest regimes) and Student's t for their small number: 3–5 % (`make power` measures both).

Labels of a longer horizon overlap further, so blocks grow with it: to nine horizons at least. Overlap alone gives hits a
triangular correlation over H bars, of which blocks of b bars miss H / (3·b) of the variance: under 4 % (Künsch 1989).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mlcore import parallel
from mlcore.features.labels import HORIZON_BARS

BLOCK_BARS = 72
CAUTIOUS_BLOCK_BARS = 216
BLOCK_HORIZONS = 9
_LONGEST_RUNS = 3
RESAMPLES = 2000
_CHUNK_RESAMPLES = 50
"""The totals of so many resamples fit into the processor's cache."""

_LEVEL = 0.95
_MIN_BLOCKS = 2


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval and standard error."""

    point: float
    lower: float
    upper: float
    standard_error: float


def get_block_bars(horizon: int) -> int:
    """For labels of this horizon."""
    return max(BLOCK_BARS, BLOCK_HORIZONS * horizon)


def get_cautious_block_bars(horizon: int) -> int:
    """Three of the longest runs of errors: a regime, and by how much the labels overlap further than those of 8 bars."""
    longer = _LONGEST_RUNS * max(0, horizon - HORIZON_BARS)
    return max(CAUTIOUS_BLOCK_BARS + longer, BLOCK_HORIZONS * horizon)


class Blocks:
    """Resamples of blocks out of `rows` bars. All estimates of one instance use the same resamples."""

    def __init__(self, rows: int, seed: int, block_bars: int = BLOCK_BARS) -> None:
        if rows == 0:
            raise ValueError("there are no rows to estimate from")
        self.rows, self.block_bars = rows, min(block_bars, max(1, rows // _MIN_BLOCKS))
        self._blocks = -(-rows // self.block_bars)
        starts = rows - self.block_bars + 1
        size = RESAMPLES, self._blocks
        self._draws = np.random.default_rng(seed).integers(starts, size=size, dtype=np.int32)

    def estimate(self, values: np.ndarray) -> Estimate:
        """The mean of whole numbers [rows], such as the differences of two forecasters' hits; percentile interval."""
        means = self._compute_means(values)
        lower, upper = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return Estimate(float(np.mean(values)), float(lower), float(upper), float(means.std(ddof=1)))

    def estimate_cautiously(self, values: np.ndarray, *, least: float = 0.0) -> Estimate:
        """The mean of hits [rows], `least`…1; Student's t with one degree of freedom less than there are blocks.

        The difference of two forecasters' hits has a `least` of −1.
        """
        point, blocks = float(np.mean(values)), max(self.rows / self.block_bars, _MIN_BLOCKS)
        error = float(self._compute_means(values).std(ddof=1) * np.sqrt(blocks / (blocks - 1)))
        reach = compute_student_quantile((1 + _LEVEL) / 2, blocks - 1) * error
        return Estimate(point, max(least, point - reach), min(1.0, point + reach), error)

    def _compute_means(self, values: np.ndarray) -> np.ndarray:
        running = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        totals = running[self.block_bars :] - running[: -self.block_bars]
        sums = [
            totals.take(self._draws[rows]).sum(axis=1)
            for rows in parallel.chunks(RESAMPLES, _CHUNK_RESAMPLES)
        ]
        return np.concatenate(sums) / (self._blocks * self.block_bars)


@lru_cache(maxsize=256)
def compute_student_quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t, to 1e-5 up to a share of 0.9999; `freedom` ≥ 1 is its degrees of freedom.

    With x = √freedom · tan θ the density is cos θ to the power freedom − 1, which is smooth and ends at ±π/2.
    """
    theta = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    density = np.maximum(np.cos(theta), 0.0) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(np.sqrt(freedom) * np.tan(np.interp(share, below / below[-1], theta)))
