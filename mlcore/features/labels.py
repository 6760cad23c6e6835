"""Labels: what the close does over the next HORIZON_BARS bars, measured in the volatility the bot could see at the time.

0 down, 1 neutral, 2 up. The cuts are terciles of the fit window, so that no class is rare by construction; a fixed
threshold in percent made 96 % of one coin's bars neutral.
"""

import numpy as np

from mlcore import parallel
from mlcore.features import rolling

HORIZON_BARS = 8
"""Bars a prediction looks ahead."""

VOLATILITY_BARS = 20
"""Trailing log returns whose sample standard deviation is the unit of a label."""

_MOVES_AT_ONCE = 30720
"""Their work arrays then stay in the processor's cache."""


def compute_forward_returns(close: np.ndarray) -> np.ndarray:
    """log(close[t + HORIZON_BARS] / close[t]) / (volatility[t] · √HORIZON_BARS), float64 [rows].

    NaN for the first rows (volatility not yet known), for the last HORIZON_BARS (future not yet known), and where the price
    stood still for the whole trailing window (no unit to measure in).
    """
    return _in_units(close, np.log(close[HORIZON_BARS:] / close[:-HORIZON_BARS]), slice(None, -HORIZON_BARS))


def compute_past_returns(close: np.ndarray) -> np.ndarray:
    """The same over the HORIZON_BARS bars just past: what a forecaster knows who expects the last move to go on."""
    return _in_units(close, np.log(close[HORIZON_BARS:] / close[:-HORIZON_BARS]), slice(HORIZON_BARS, None))


def compute_cuts(scaled: np.ndarray) -> tuple[float, float]:
    """The terciles of scaled returns, of the fit window alone."""
    lower, upper = np.quantile(scaled, [1 / 3, 2 / 3])
    return float(lower), float(upper)


def assign_classes(scaled: np.ndarray, cuts: tuple[float, float]) -> np.ndarray:
    """int64 [rows]: 0 below the lower cut, 2 above the upper, 1 between them and on them."""
    lower, upper = cuts
    return 1 + (scaled > upper).astype(np.int64) - (scaled < lower)


def compute_trailing_volatility(close: np.ndarray) -> np.ndarray:
    """Sample standard deviation of the last VOLATILITY_BARS log returns, float64 [rows]; NaN until there are as many."""
    moves, volatility = np.diff(np.log(close)), np.full(len(close), np.nan)

    def fill(some: slice) -> None:
        first = max(0, some.start - VOLATILITY_BARS + 1)
        rolled = rolling.compute_sample_deviation(moves[first : some.stop], VOLATILITY_BARS)
        volatility[some.start + 1 : some.stop + 1] = rolled[some.start - first :]

    parallel.thread_map(fill, parallel.chunks(len(moves), _MOVES_AT_ONCE))
    return volatility


def _in_units(close: np.ndarray, moves: np.ndarray, rows: slice) -> np.ndarray:
    """Moves of HORIZON_BARS bars over the volatility at the rows where they are placed, NaN elsewhere."""
    unit = compute_trailing_volatility(close) * np.sqrt(HORIZON_BARS)
    unit[unit == 0] = np.nan
    scaled = np.full(len(close), np.nan)
    scaled[rows] = moves / unit[rows]
    return scaled
