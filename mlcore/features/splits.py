"""The split in time: the oldest bars to fit, newer ones for early stopping, the newest for the gate, with a purge."""

from dataclasses import dataclass

from mlcore.errors import InvalidParameter, NotEnoughBars
from mlcore.features.labels import HORIZON_BARS

MIN_ROWS = 1000
"""With fewer usable rows, a network cannot be trained, nor a good one told from a lucky one."""

MIN_STOP_ROWS = 100
"""With fewer, the epoch that early stopping chooses is chance."""

FIT_PERCENT, STOP_PERCENT = 70, 15
_BOUNDS = {"fit": (50, 80), "stop": (5, 25), "gate": (10, 40)}

WINDOWS = ("fit", "stop", "gate")


@dataclass(frozen=True)
class Shares:
    """The percentages of the rows in the fit and the stop window; the gate window has the rest.

    Raises InvalidParameter for one out of its bounds.
    """

    fit_percent: int = FIT_PERCENT
    stop_percent: int = STOP_PERCENT

    def __post_init__(self) -> None:
        for name, percent in (("fit", self.fit_percent), ("stop", self.stop_percent)):
            self._check(f"{name}_percent", name, percent)
        self._check("stop_percent", "gate", self.gate_percent)

    def _check(self, parameter: str, window: str, percent: int) -> None:
        least, greatest = _BOUNDS[window]
        if type(percent) is not int or not least <= percent <= greatest:
            raise InvalidParameter(
                parameter,
                f"the {window} window would be {percent} % of the rows; choose whole numbers that give it"
                f" {least} to {greatest} %",
            )

    @property
    def gate_percent(self) -> int:
        return 100 - self.fit_percent - self.stop_percent

    @property
    def text(self) -> str:
        """As in *70 / 15 / 15 %*."""
        return f"{self.fit_percent} / {self.stop_percent} / {self.gate_percent} %"


DEFAULT_SHARES = Shares()


@dataclass(frozen=True)
class Split:
    """Consecutive, disjoint windows of rows, oldest first."""

    fit: slice
    stop: slice
    gate: slice


def split_rows(rows: int, horizon: int = HORIZON_BARS, shares: Shares = DEFAULT_SHARES) -> Split:
    """The last `horizon` rows before each border are left out (purged): their labels look across it.

    An embargo (López de Prado 2018, chapter 7) would follow a window that is judged on. None does: the gate window is the
    last. Raises NotEnoughBars for fewer than MIN_ROWS, or if the purge leaves too few to stop by.
    """
    if rows < MIN_ROWS:
        raise NotEnoughBars(f"{rows:,} usable rows; training needs {MIN_ROWS:,}: import a longer history")
    percents = shares.fit_percent, shares.fit_percent + shares.stop_percent
    first_border, second_border = (rows * percent // 100 for percent in percents)
    if second_border - horizon - first_border < MIN_STOP_ROWS:
        raise NotEnoughBars(
            f"the stop window has {second_border - first_border:,} rows, of which {horizon} are purged; it needs"
            f" {MIN_STOP_ROWS} more: import a longer history, or choose a shorter horizon"
        )
    return Split(
        fit=slice(0, first_border - horizon),
        stop=slice(first_border, second_border - horizon),
        gate=slice(second_border, rows),
    )
