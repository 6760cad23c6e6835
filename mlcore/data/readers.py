"""Reads the candles of a file from its bytes, whatever its name says, and reports what was done.

Nothing is dropped and nothing is guessed: a value that cannot be read is refused with its row. `validation` decides
whether the rows are valid candles.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import polars as pl

from mlcore.data.columnar import read_columnar, select_columns
from mlcore.data.columns import RawTable, parse_numbers, read_coin
from mlcore.data.containers import Kind, open_content
from mlcore.data.delimited import read_delimited
from mlcore.data.import_report import ImportReport
from mlcore.data.joining import locate
from mlcore.data.json_rows import read_json
from mlcore.data.row_layouts import SIX_COLUMNS
from mlcore.data.times import parse_times
from mlcore.data.validation import (
    CLOSING_REMEDY,
    enclose_prices,
    find_repeated,
    find_same_times,
    open_bars,
    refuse_exchanged_prices,
    refuse_mixed_intervals,
    validate_candles,
)
from mlcore.errors import CandlesRefused

REPEATED_REMEDY = "say at the import that repeated candles are taken once"
_LISTED_ROWS = 10


@dataclass(frozen=True)
class Options:
    """What the person who imports a file says about it."""

    closing_times: bool = False
    """Its times are those at which bars close, and are converted."""
    repeated_once: bool = False
    """A row that repeats its neighbour value for value is left out."""


@dataclass(frozen=True)
class ReadCandles:
    """Valid candles, oldest first, and what was done with the file that they are from."""

    frame: pl.DataFrame
    report: ImportReport


def read_file(data: bytes, name: str, options: Options = Options()) -> ReadCandles:
    """`name` is for messages. Raises CandlesRefused, with the row if one row is at fault."""
    with _named(name):
        content = open_content(data)
        try:
            raw = _read_raw(content.kind, content.data)
            report = ImportReport(content.format, raw.layout, (*content.notes, *raw.notes))
            return _finish(raw, report, options)
        except CandlesRefused as refused:
            raise locate(refused, content.parts) from refused


def read_frame(table: pl.DataFrame, name: str) -> ReadCandles:
    """The same from a table in memory, whatever its columns are called and whatever types they have; not sorted."""
    with _named(name):
        raw = select_columns(table)
        return _finish(raw, ImportReport("table", raw.layout, raw.notes), None)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors name the source, and are CandlesRefused."""
    try:
        yield
    except CandlesRefused as refused:
        raise CandlesRefused(refused.reason, source=name, row=refused.row, line=refused.line) from refused
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = f"cannot be read as candles ({' '.join(str(error).split())[:100]}); export the file again"
        raise CandlesRefused(reason, source=name) from error


def _read_raw(kind: Kind, data: bytes) -> RawTable:
    if kind == Kind.TEXT:
        return read_delimited(data)
    if kind == Kind.JSON:
        return read_json(data)
    return read_columnar(kind, data)


def _finish(raw: RawTable, report: ImportReport, options: Options | None) -> ReadCandles:
    """Without options the table is no file: its rows are taken as they are."""
    if raw.has_closing_times and not (options and options.closing_times):
        raise CandlesRefused(f"there is no column of opening times, only of closing times; {CLOSING_REMEDY}")
    rows = np.arange(1, raw.frame.height + 1)
    try:
        if options is not None:
            report = report.with_notes(*read_coin(raw.frame))
        times, time_notes = parse_times(raw.frame["timestamp"], raw.zone)
        numbers, number_notes = parse_numbers(raw.frame)
        frame = pl.DataFrame([times.alias("timestamp"), *numbers]).rechunk()
        report = report.with_notes(*time_notes, *number_notes)
        if options is not None:
            if _is_newest_first(frame):
                frame, rows = frame.reverse(), rows[::-1]
                report = report.with_notes("sorted: the newest row was first")
            frame, rows, notes = _take_once(frame, rows, is_said=options.repeated_once)
            report = report.with_notes(*notes)
            refuse_exchanged_prices(frame)
            refuse_mixed_intervals(frame)
            if options.closing_times:
                frame, note = open_bars(frame)
                report = report.with_notes(note)
        frame, enclosed = enclose_prices(frame)
        if enclosed:
            moved = "row" if enclosed == 1 else "rows"
            report = report.with_notes(
                f"high or low moved by a rounding error to enclose open and close in {enclosed:,} {moved}"
            )
        return ReadCandles(validate_candles(frame), report)
    except CandlesRefused as refused:
        raise _locate(refused, raw, report, rows) from refused


def _take_once(
    frame: pl.DataFrame, rows: np.ndarray, *, is_said: bool
) -> tuple[pl.DataFrame, np.ndarray, list[str]]:
    """Without the rows that repeat the one before them, and a note of which. Raises CandlesRefused if nobody said so.

    Rows with one time and other values stay: validation refuses them, whatever was said.
    """
    is_repeated = find_repeated(frame)
    if not is_repeated.any() or (not is_said and (find_same_times(frame) & ~is_repeated).any()):
        return frame, rows, []
    repeated = np.sort(rows[is_repeated])
    more = f" and {len(repeated) - _LISTED_ROWS:,} more" if len(repeated) > _LISTED_ROWS else ""
    listed = f"{', '.join(f'{row:,}' for row in repeated[:_LISTED_ROWS])}{more}"
    if is_said:
        kept = ~is_repeated
        return frame.filter(pl.Series(kept)), rows[kept], [f"taken once: rows that repeat a candle, {listed}"]
    first = int(is_repeated.argmax())
    raise CandlesRefused(
        f"timestamp {frame['timestamp'][first]:%Y-%m-%dT%H:%M:%SZ} is there twice: delete one of its rows, or"
        f" {REPEATED_REMEDY}. Rows that repeat their neighbour value for value: {listed}",
        row=first + 1,
    )


def _is_newest_first(frame: pl.DataFrame) -> bool:
    """Rows that repeat a time count too: they are refused later, by their own row."""
    times = frame["timestamp"].dt.epoch("ms")  # Python has no datetime for what some files hold
    return len(times) > 1 and times[0] > times[-1] and times.is_sorted(descending=True)


def _locate(refused: CandlesRefused, raw: RawTable, report: ImportReport, rows: np.ndarray) -> CandlesRefused:
    """The refusal with the row of the file, counted from its top, and its line where the file has lines.

    `rows` are the numbers that the rows have in the file. A refusal of the whole file says how the file was understood.
    """
    if refused.row is None:
        understood = "; ".join((f"read as {report.format}, {report.layout}", *report.notes))
        return CandlesRefused(f"{refused.reason} ({understood})")
    row = int(rows[refused.row - 1])
    line = None if raw.first_line is None else raw.first_line + row - 1
    order = "; columns without names are taken as time, open, high, low, close, volume"
    is_order_unknown = raw.layout == SIX_COLUMNS and " low " in refused.reason
    return CandlesRefused(f"{refused.reason}{order if is_order_unknown else ''}", row=row, line=line)
