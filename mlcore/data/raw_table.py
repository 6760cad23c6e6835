"""The six columns of a candle file before their values are parsed."""

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class RawTable:
    """Columns named as in `columns.COLUMNS`: text, or what a typed file holds."""

    frame: pl.DataFrame
    layout: str
    notes: tuple[str, ...] = ()
    first_line: int | None = None
    """The line of the file that row 1 is in, counted from 1; None where a file has no lines."""
    has_closing_times: bool = False
    """Whether its times are from a column of closing times."""
