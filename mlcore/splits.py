"""The split in time: 70 % to fit, 15 % to stop early by, 15 % for the gate, purged at the borders."""

from dataclasses import dataclass

from mlcore.errors import NotEnoughBars
from mlcore.labels import H

MIN_ROWS = 1000
"""Fewer usable rows cannot carry a network, nor tell a good one from a lucky one."""


@dataclass(frozen=True)
class Split:
    """Consecutive, disjoint stretches of rows, oldest first."""

    fit: slice
    stop: slice
    gate: slice


def purged(rows: int, horizon: int = H) -> Split:
    """Splits `rows`; the last `horizon` rows before each border are left out, for their labels look across it.

    Raises NotEnoughBars for fewer than MIN_ROWS.
    """
    if rows < MIN_ROWS:
        raise NotEnoughBars(f"{rows:,} usable rows; training needs {MIN_ROWS:,}: import a longer history")
    first_border, second_border = rows * 70 // 100, rows * 85 // 100
    return Split(
        fit=slice(0, first_border - horizon),
        stop=slice(first_border, second_border - horizon),
        gate=slice(second_border, rows),
    )
