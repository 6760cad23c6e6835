"""Labels: the move of the close over the next bars, in units of the volatility that the bot could see at the time.

0 down, 1 neutral, 2 up. The cuts are terciles of the fit window, so no class is rare. A fixed threshold in percent once
made 96 % of one coin's bars neutral.
"""

import numpy as np

from mlcore import parallel
from mlcore.constants import CLASSES
from mlcore.features import rolling

HORIZON_BARS = 8
"""How far a prediction looks ahead."""

VOLATILITY_BARS = 20
"""Number of past log returns whose sample standard deviation is the unit of a label."""

FORMULA = (
    f"ln(ahead(close, {HORIZON_BARS}) / close) / "
    f"(std(ln(close / lag(close, 1)), {VOLATILITY_BARS}) * sqrt({HORIZON_BARS}))"
)
"""The scaled return that is cut into classes, in the notation of `reference`."""

_CHUNK_ROWS = 30720
"""The work arrays then fit into the processor's cache."""


def compute_forward_returns(close: np.ndarray) -> np.ndarray:
    """log(close[t + 8] / close[t]) / (volatility[t] · √8), float64 [rows].

    NaN for the first rows (no volatility yet), for the last 8 (no future yet), and if the price stood still for the
    whole volatility window (no unit).
    """
    return _scale_moves(close, slice(None, -HORIZON_BARS))


def compute_past_returns(close: np.ndarray) -> np.ndarray:
    """The same over the last 8 bars: all that a forecaster of trends knows."""
    return _scale_moves(close, slice(HORIZON_BARS, None))


def compute_cuts(scaled: np.ndarray) -> tuple[float, float]:
    """The terciles of scaled returns; pass those of the fit window alone."""
    lower, upper = np.quantile(scaled, [1 / 3, 2 / 3])
    return float(lower), float(upper)


def assign_classes(scaled: np.ndarray, cuts: tuple[float, float]) -> np.ndarray:
    """int64 [rows]: 0 below the lower cut, 2 above the upper, 1 between them and on them."""
    lower, upper = cuts
    return 1 + (scaled > upper).astype(np.int64) - (scaled < lower)


def compute_class_weights(classes: np.ndarray) -> np.ndarray:
    """float32 [3]: rows / (3 · rows of the class)."""
    counts = np.bincount(classes, minlength=len(CLASSES))
    return (counts.sum() / (len(CLASSES) * counts)).astype(np.float32)


def compute_trailing_volatility(close: np.ndarray) -> np.ndarray:
    """Sample standard deviation of the last VOLATILITY_BARS log returns, float64 [rows]; NaN until there are enough."""
    moves, volatility = np.diff(np.log(close)), np.empty(len(close))

    def fill(rows: slice) -> None:
        first = max(0, rows.start - VOLATILITY_BARS + 1)
        deviations = rolling.compute_deviations(moves[first : rows.stop], [VOLATILITY_BARS])
        volatility[rows.start + 1 : rows.stop + 1] = deviations[VOLATILITY_BARS][rows.start - first :]

    parallel.thread_map(fill, parallel.chunks(len(moves), _CHUNK_ROWS))
    volatility[:VOLATILITY_BARS] = np.nan
    return volatility


def _scale_moves(close: np.ndarray, rows: slice) -> np.ndarray:
    """The moves over the horizon, assigned to `rows`, over the volatility of these rows; NaN elsewhere."""
    moves = np.log(close[HORIZON_BARS:] / close[:-HORIZON_BARS])
    unit = compute_trailing_volatility(close) * np.sqrt(HORIZON_BARS)
    unit[unit == 0] = np.nan
    scaled = np.full(len(close), np.nan)
    scaled[rows] = moves / unit[rows]
    return scaled
