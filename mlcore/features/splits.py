"""The split in time: the oldest bars to fit, newer ones for early stopping, the newest for the gate, with a purge."""

from dataclasses import dataclass

from mlcore.errors import NotEnoughBars
from mlcore.features.labels import HORIZON_BARS

MIN_ROWS = 1000
"""With fewer usable rows, a network cannot be trained, nor a good one told from a lucky one."""

FIT_PERCENT, STOP_PERCENT = 70, 15
GATE_SHARE = (100 - FIT_PERCENT - STOP_PERCENT) / 100

WINDOWS = ("fit", "stop", "gate")


@dataclass(frozen=True)
class Split:
    """Consecutive, disjoint windows of rows, oldest first."""

    fit: slice
    stop: slice
    gate: slice


def split_rows(rows: int, horizon: int = HORIZON_BARS) -> Split:
    """The last `horizon` rows before each border are left out (purged): their labels look across it.

    Raises NotEnoughBars for fewer than MIN_ROWS.
    """
    if rows < MIN_ROWS:
        raise NotEnoughBars(f"{rows:,} usable rows; training needs {MIN_ROWS:,}: import a longer history")
    first_border, second_border = (rows * p // 100 for p in (FIT_PERCENT, FIT_PERCENT + STOP_PERCENT))
    return Split(
        fit=slice(0, first_border - horizon),
        stop=slice(first_border, second_border - horizon),
        gate=slice(second_border, rows),
    )
