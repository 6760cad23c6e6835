"""Labels: the class of what the price does over the next bars. 0 down, 1 neutral, 2 up.

A label has a kind, a horizon of 1 to 96 bars and, for two kinds, a cut. Each kind gives a bar an *outcome*, a number, and
two cuts between the classes. Volatility-scaled terciles are the default: no class is rare, whatever the market. A fixed
threshold in percent once made 96 % of one coin's bars neutral.

An outcome reads the bars up to `horizon` after its own and no later one. Bars without a known volatility have none,
whatever the kind, so that all labels of one horizon use the same bars.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
import polars as pl

from mlcore import parallel
from mlcore.constants import CLASSES
from mlcore.errors import InvalidParameter, NotEnoughBars
from mlcore.features import rolling

HORIZON_BARS = 8
"""How far a prediction looks ahead, unless its label says otherwise."""
MIN_HORIZON_BARS, MAX_HORIZON_BARS = 1, 96

VOLATILITY_BARS = 20
"""Number of past log returns whose sample standard deviation is the unit of a label."""

_CHUNK_ROWS = 30720
"""The work arrays then fit into the processor's cache."""


class LabelKind(StrEnum):
    """How the outcome of a bar is computed and cut."""

    TERCILES = "terciles"
    PERCENT = "percent"
    BARRIERS = "barriers"


CUT_BOUNDS: Mapping[LabelKind, tuple[float, float]] = {
    LabelKind.PERCENT: (0.01, 50.0),
    LabelKind.BARRIERS: (0.1, 10.0),
}
"""Of a cut: in percent, and in units of the volatility over the horizon. Terciles have none."""


@dataclass(frozen=True)
class Label:
    """What a model predicts. Raises InvalidParameter, with the name and the bounds, for what is no label."""

    kind: LabelKind = LabelKind.TERCILES
    horizon: int = HORIZON_BARS
    """In bars."""
    cut: float | None = None
    """Percent: the least move that is up or down. Barriers: their distance in units of volatility. Terciles: None."""

    def __post_init__(self) -> None:
        kinds = ", ".join(LabelKind)
        if self.kind not in list(LabelKind):
            raise InvalidParameter("label", f"there is no label {str(self.kind)[:40]!r}; choose {kinds}")
        if type(self.horizon) is not int or not MIN_HORIZON_BARS <= self.horizon <= MAX_HORIZON_BARS:
            bounds = f"{MIN_HORIZON_BARS} to {MAX_HORIZON_BARS}"
            raise InvalidParameter("horizon", f"choose a whole number of bars from {bounds}")
        if self.kind == LabelKind.TERCILES:
            if self.cut is not None:
                raise InvalidParameter("cut", "terciles are cut by the fit window: leave the cut out")
            return
        least, greatest = CUT_BOUNDS[self.kind]
        is_number = isinstance(self.cut, int | float) and not isinstance(self.cut, bool)
        if not is_number or not least <= (self.cut or math.nan) <= greatest:
            unit = "percent" if self.kind == LabelKind.PERCENT else "units of volatility"
            raise InvalidParameter(
                "cut", f"the label {self.kind} needs a cut from {least:g} to {greatest:g} {unit}"
            )

    @classmethod
    def parse(cls, claim: Any) -> Self:
        """From a manifest's `labels`. Without a kind it is terciles, as all were. Raises KeyError, ValueError, TypeError."""
        if not isinstance(claim, Mapping):
            raise TypeError("the label is no object")
        return cls(LabelKind(claim.get("kind", LabelKind.TERCILES)), claim["horizon"], claim.get("cut"))

    def describe(self) -> dict[str, Any]:
        """As a manifest states it."""
        return {"kind": str(self.kind), "horizon": self.horizon, "cut": self.cut}

    @property
    def text(self) -> str:
        """In words, such as *terciles over 8 bars*."""
        bars = f"over {self.horizon} bar{'' if self.horizon == 1 else 's'}"
        if self.kind == LabelKind.TERCILES:
            return f"terciles {bars}"
        if self.kind == LabelKind.PERCENT:
            return f"a move of {self.cut:g} % {bars}"
        return f"barriers at {self.cut:g} volatilities {bars}"

    def compute_outcomes(self, frame: pl.DataFrame) -> np.ndarray:
        """float64 [rows], NaN for bars without one."""
        high, low, close = (frame[name].to_numpy() for name in ("high", "low", "close"))
        if self.kind == LabelKind.TERCILES:
            return compute_forward_returns(close, self.horizon)
        if self.kind == LabelKind.PERCENT:
            return compute_percent_moves(close, self.horizon)
        return compute_barrier_moves(high, low, close, self.horizon, self.cut or math.nan)

    def compute_last_moves(self, close: np.ndarray) -> np.ndarray:
        """The move over the last `horizon` bars, in the unit of the outcomes: all that a forecaster of trends knows."""
        if self.kind == LabelKind.PERCENT:
            return _compute_percent(close, self.horizon, slice(self.horizon, None))
        return compute_past_returns(close, self.horizon)

    def compute_cuts(self, outcomes: np.ndarray) -> tuple[float, float]:
        """The two cuts. Pass the outcomes of the fit window alone: terciles are theirs, other cuts are as declared.

        Raises NotEnoughBars if a class has no row there.
        """
        if self.kind == LabelKind.TERCILES:
            return compute_cuts(outcomes)
        assert self.cut is not None
        cuts = -float(self.cut), float(self.cut)
        counts = np.bincount(assign_classes(outcomes, cuts), minlength=len(CLASSES))
        if empty := [name for name, count in zip(CLASSES, counts, strict=True) if not count]:
            raise NotEnoughBars(
                f"no bar of the fit window is {' or '.join(empty)} by the label of {self.text}: choose another cut"
            )
        return cuts


DEFAULT_LABEL = Label()

FORMULA = (
    f"ln(ahead(close, {HORIZON_BARS}) / close) / "
    f"(std(ln(close / lag(close, 1)), {VOLATILITY_BARS}) * sqrt({HORIZON_BARS}))"
)
"""The outcome of terciles over the default horizon, in the notation of `reference`."""
PERCENT_FORMULA = f"100 * (ahead(close, {HORIZON_BARS}) / close - 1)"
"""The same of a percent label."""


def compute_forward_returns(close: np.ndarray, horizon: int = HORIZON_BARS) -> np.ndarray:
    """log(close[t + H] / close[t]) / (volatility[t] · √H), float64 [rows].

    NaN for the first rows (no volatility yet), for the last H (no future yet), and if the price stood still for the
    whole volatility window (no unit).
    """
    return _scale_moves(close, slice(None, -horizon), horizon)


def compute_past_returns(close: np.ndarray, horizon: int = HORIZON_BARS) -> np.ndarray:
    """The same over the last H bars."""
    return _scale_moves(close, slice(horizon, None), horizon)


def compute_percent_moves(close: np.ndarray, horizon: int) -> np.ndarray:
    """100 · (close[t + H] / close[t] − 1), float64 [rows]; NaN as for `compute_forward_returns`."""
    return _compute_percent(close, horizon, slice(None, -horizon))


def compute_barrier_moves(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, horizon: int, width: float
) -> np.ndarray:
    """The triple barrier (López de Prado 2018, chapter 3), in units of volatility[t] · √H, float64 [rows].

    Two barriers lie `width` above and below the close of t, the third is the end of the horizon. The outcome is the
    distance of the first high above the upper or low below the lower barrier. It is 0 if one bar crosses both, since
    nobody knows which came first, and the move of the last close, which lies between them, if none does. So an outcome
    beyond ±`width` is a barrier that was crossed. NaN as for `compute_forward_returns`.
    """
    unit = _compute_unit(close, horizon)
    rows = max(0, len(close) - horizon)
    outcomes = np.full(len(close), np.nan)
    outcomes[:rows] = np.clip(np.log(close[horizon:] / close[:rows]) / unit[:rows], -width, width)
    for ahead in range(horizon, 0, -1):  # an earlier bar overrides a later one
        rise, fall = (
            np.log(extreme[ahead : ahead + rows] / close[:rows]) / unit[:rows] for extreme in (high, low)
        )
        is_above, is_below = rise > width, fall < -width
        crossed = np.where(is_above & is_below, 0.0, np.where(is_above, rise, fall))
        outcomes[:rows] = np.where(is_above | is_below, crossed, outcomes[:rows])
    return outcomes


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


def _compute_unit(close: np.ndarray, horizon: int) -> np.ndarray:
    """The volatility over the horizon; NaN where it is not known, or 0."""
    unit = compute_trailing_volatility(close) * np.sqrt(horizon)
    unit[unit == 0] = np.nan
    return unit


def _scale_moves(close: np.ndarray, rows: slice, horizon: int) -> np.ndarray:
    """The moves over the horizon, assigned to `rows`, over the volatility of these rows; NaN elsewhere."""
    moves = np.log(close[horizon:] / close[:-horizon])
    unit = _compute_unit(close, horizon)
    scaled = np.full(len(close), np.nan)
    scaled[rows] = moves / unit[rows]
    return scaled


def _compute_percent(close: np.ndarray, horizon: int, rows: slice) -> np.ndarray:
    """The same moves in percent; NaN where the volatility is not known."""
    percent = np.full(len(close), np.nan)
    percent[rows] = 100 * (close[horizon:] / close[:-horizon] - 1)
    percent[np.isnan(_compute_unit(close, horizon))] = np.nan
    return percent
