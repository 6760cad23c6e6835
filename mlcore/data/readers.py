"""Reads the candles of a file from its bytes, whatever its name says, and reports what was done.

Nothing is dropped and nothing is guessed: a value that cannot be read is refused with its row. `validation` decides
whether the rows are valid candles.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl

from mlcore.data.columnar import read_columnar, select_columns
from mlcore.data.columns import SIX_COLUMNS, parse_numbers
from mlcore.data.containers import Kind, open_content
from mlcore.data.delimited import read_delimited
from mlcore.data.import_report import ImportReport
from mlcore.data.joining import locate
from mlcore.data.json_rows import read_json
from mlcore.data.raw_table import RawTable
from mlcore.data.times import parse_times
from mlcore.data.validation import CLOSING_REMEDY, enclose_prices, open_bars, validate_candles
from mlcore.errors import CandlesRefused


@dataclass(frozen=True)
class ReadCandles:
    """Valid candles, oldest first, and what was done with the file that they are from."""

    frame: pl.DataFrame
    report: ImportReport


def read_file(data: bytes, name: str, *, closing_times: bool = False) -> ReadCandles:
    """`name` is for messages. With `closing_times`, the times are those at which bars close, and are converted.

    Raises CandlesRefused, with the row if one row is at fault.
    """
    with _named(name):
        content = open_content(data)
        try:
            raw = _read_raw(content.kind, content.data)
            report = ImportReport(content.format, raw.layout, (*content.notes, *raw.notes))
            return _finish(raw, report, closing_times=closing_times)
        except CandlesRefused as refused:
            raise locate(refused, content.parts) from refused


def read_frame(table: pl.DataFrame, name: str) -> ReadCandles:
    """The same from a table in memory, whatever its columns are called and whatever types they have; not sorted."""
    with _named(name):
        raw = select_columns(table)
        return _finish(raw, ImportReport("table", raw.layout, raw.notes), can_sort=False)


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


def _finish(
    raw: RawTable, report: ImportReport, *, can_sort: bool = True, closing_times: bool = False
) -> ReadCandles:
    if raw.has_closing_times and not closing_times:
        raise CandlesRefused(f"there is no column of opening times, only of closing times; {CLOSING_REMEDY}")
    is_reversed = False
    try:
        times, time_notes = parse_times(raw.frame["timestamp"])
        numbers, number_notes = parse_numbers(raw.frame)
        frame = pl.DataFrame([times.alias("timestamp"), *numbers]).rechunk()
        report = report.with_notes(*time_notes, *number_notes)
        if is_reversed := can_sort and _is_newest_first(frame):
            frame = frame.reverse()
            report = report.with_notes("sorted: the newest row was first")
        if closing_times:
            frame, note = open_bars(frame)
            report = report.with_notes(note)
        frame, enclosed = enclose_prices(frame)
        if enclosed:
            rows = "row" if enclosed == 1 else "rows"
            report = report.with_notes(
                f"high or low moved by a rounding error to enclose open and close in {enclosed:,} {rows}"
            )
        return ReadCandles(validate_candles(frame), report)
    except CandlesRefused as refused:
        raise _locate(refused, raw, report, is_reversed=is_reversed) from refused


def _is_newest_first(frame: pl.DataFrame) -> bool:
    """Rows that repeat a time count too: they are refused later, by their own row."""
    times = frame["timestamp"].dt.epoch("ms")  # Python has no datetime for what some files hold
    return len(times) > 1 and times[0] > times[-1] and times.is_sorted(descending=True)


def _locate(
    refused: CandlesRefused, raw: RawTable, report: ImportReport, *, is_reversed: bool
) -> CandlesRefused:
    """The refusal with the row of the file, counted from its top, and its line where the file has lines.

    A refusal of the whole file says how the file was understood.
    """
    if refused.row is None:
        understood = "; ".join((f"read as {report.format}, {report.layout}", *report.notes))
        return CandlesRefused(f"{refused.reason} ({understood})")
    row = raw.frame.height + 1 - refused.row if is_reversed else refused.row
    line = None if raw.first_line is None else raw.first_line + row - 1
    order = "; columns without names are taken as time, open, high, low, close, volume"
    is_order_unknown = raw.layout == SIX_COLUMNS and " low " in refused.reason
    return CandlesRefused(f"{refused.reason}{order if is_order_unknown else ''}", row=row, line=line)
