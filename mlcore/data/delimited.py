"""Reads CSV and its relatives: separated by commas, semicolons, tabs or bars; with or without a header; below a banner."""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import polars as pl

from mlcore.data.columns import (
    COLUMNS,
    EXPECTED,
    MAX_ROWS,
    NUMBERS,
    VOLUME_OF_PORTALS,
    RawTable,
    Selection,
    select_named,
)
from mlcore.data.containers import quote_first_line
from mlcore.data.row_layouts import select_positional
from mlcore.data.tables.names import count_prices
from mlcore.errors import CandlesRefused

MAX_HEADER_BYTES = 4096
MAX_BANNER_LINES = 10
_HEAD_BYTES = 64 * 1024
_SAMPLE_ROWS = 20
_CHECKED_BYTES = 1024 * 1024
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NUMBER = re.compile(r"^\s*-?\d+([.,]\d+)*([eE][+-]?\d+)?\s*$")
_MAY_BE_THOUSANDS = re.compile(r"^(0|[1-9]\d{0,2}(\.\d{3})*)$")
_WHOLE = re.compile(r"^\d{1,18}$")


@dataclass(frozen=True)
class _Head:
    """Where the rows begin, and what was found above them."""

    delimiter: str
    names: Sequence[str] | None
    lines: int
    """Lines above the first row."""
    notes: tuple[str, ...] = ()
    counters: int = 0
    """Columns on the left that count the rows, where no column has a name."""


def read_delimited(data: bytes) -> RawTable:
    """Raises CandlesRefused, with row and line if one row is at fault."""
    data, notes = _decode(data)
    data, below = _cut_remarks(data)
    head = _find_head(data)
    rows = data.count(b"\n") + 1 - head.lines
    if rows < 1:
        raise CandlesRefused("there is a header but not one row")
    if rows > MAX_ROWS:
        raise CandlesRefused(f"more than {MAX_ROWS:,} rows; split the file")
    sample = _list_fields(data, head)
    width = len(head.names) if head.names else len(sample[0])
    try:
        selection = _select(head, sample, _list_middle(data, head))
        if not _is_surely_even(data, head, width):
            _refuse_ragged(data, head, width)
        if head.delimiter == ";":
            _refuse_thousands(sample, selection)
        frame = _read_columns(data, head, selection, sample, width)
    except CandlesRefused as refused:
        raise _with_line(refused, head.lines) from refused
    return RawTable(
        frame,
        selection.layout,
        (*notes, *head.notes, *below, *selection.notes),
        first_line=head.lines + 1,
        has_closing_times=selection.has_closing_times,
        zone=selection.zone,
    )


def _with_line(refused: CandlesRefused, lines_above: int) -> CandlesRefused:
    line = None if refused.row is None else refused.row + lines_above
    return CandlesRefused(refused.reason, row=refused.row, line=line)


def _decode(data: bytes) -> tuple[bytes, list[str]]:
    """The text as UTF-8 with line ends that polars reads."""
    notes = []
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeError as error:
            raise CandlesRefused("damaged UTF-16 text; save it as UTF-8") from error
        if data.lstrip()[:1] in (b"[", b"{"):
            raise CandlesRefused("this is JSON in UTF-16; save it as UTF-8")
        notes.append("read as UTF-16")
    if b"\0" in data:
        raise CandlesRefused(
            "binary data of an unknown kind; export the candles as CSV, JSON, Parquet or Arrow"
        )
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, 0 if data.isascii() else len(data), _CHECKED_BYTES):
            decoder.decode(data[start : start + _CHECKED_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise CandlesRefused(
            f"not UTF-8 text; save it as UTF-8. It begins with {quote_first_line(data)}"
        ) from error
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\n" not in data and b"\r" in data:
        data = data.replace(b"\r", b"\n")
        notes.append("old Mac line ends (\\r) read as line ends")
    end = len(data)
    while end and data[end - 1] in b"\r\n \x1a":
        end -= 1
    if not end:
        raise CandlesRefused("the file holds only white space")
    return data[:end], notes


def _cut_remarks(data: bytes) -> tuple[bytes, list[str]]:
    """Without lines at the end that begin with # or hold separators alone, as a spreadsheet leaves them."""
    remarks: list[str] = []
    while len(remarks) < MAX_BANNER_LINES:
        rows, _, line = data[-MAX_HEADER_BYTES:].rpartition(b"\n")
        if not rows or not (line.startswith(b"#") or not line.strip(b",;\t| \r")):
            break
        remarks.insert(0, line.decode(errors="replace").strip()[:80])
        data = data[: len(data) - len(line) - 1].rstrip(b"\r\n")
    return data, [f"skipped below the rows: {'; '.join(remarks)[:300]}"] if remarks else []


def _find_head(data: bytes) -> _Head:
    """The header is the first line with all four prices; what is above it is a banner, unless it looks like a row."""
    lines = list(islice(io.BytesIO(data[:_HEAD_BYTES]), MAX_BANNER_LINES + 3))
    if len(lines[0]) > MAX_HEADER_BYTES:
        raise CandlesRefused(
            f"the first line has {len(lines[0]):,} bytes; a header has at most {MAX_HEADER_BYTES:,}. {EXPECTED}"
        )
    texts = [line[:MAX_HEADER_BYTES].decode(errors="replace").rstrip("\r\n") for line in lines]
    for number, text in enumerate(texts[: MAX_BANNER_LINES + 1]):
        for delimiter in _DELIMITERS:
            fields = _split(text, delimiter)
            if count_prices(fields) == 4:
                return _build_head(texts, number, fields, delimiter)
            if number == 0 and (counters := _count_counters(fields)) is not None:
                return _Head(
                    delimiter,
                    None,
                    1,
                    (*_describe_delimiter(delimiter), "a header of numbers: columns taken by position"),
                    counters,
                )
            if number == 0 and _is_row(fields):
                return _Head(
                    delimiter,
                    None,
                    0,
                    (*_describe_delimiter(delimiter), "no header: columns taken by position"),
                )
        if any(_is_row(_split(text, delimiter)) for delimiter in _DELIMITERS):
            raise CandlesRefused(
                f"line {number + 1} is a row of candles, but no header is above it; {EXPECTED}"
            )
    raise _describe_missing_header(texts[0], data)


def _build_head(texts: Sequence[str], number: int, names: Sequence[str], delimiter: str) -> _Head:
    notes = [*_describe_delimiter(delimiter)]
    if banner := [text[:80] for text in texts[:number] if text.strip()]:
        notes.insert(0, f"skipped above the header: {'; '.join(banner)[:300]}")
    lines, names = number + 1, list(names)
    # yfinance writes its header in three lines: Price,Close,… then Ticker,BTC-USD,… then Date,,,,,
    while lines < min(len(texts), number + 3) and _continues_header(
        below := _split(texts[lines], delimiter), names
    ):
        if not any(field.strip() for field in below[1:]):
            names[0] = below[0]
        else:
            notes += [f"skipped below the header: {texts[lines][:80]}", VOLUME_OF_PORTALS]
        lines += 1
    return _Head(delimiter, names, lines, tuple(notes))


def _continues_header(fields: Sequence[str], names: Sequence[str]) -> bool:
    """The line of symbols, or nothing but the name of the index: never a row, however it is damaged."""
    label, rest = fields[0].strip().lower() if fields else "", {field.strip() for field in fields[1:]}
    is_symbols = label in ("ticker", "tickers", "") and len(rest) == 1 and not _NUMBER.match(min(rest) or "0")
    is_index = label in ("date", "datetime") and rest == {""}
    return len(fields) == len(names) and (is_symbols or is_index)


def _describe_missing_header(first: str, data: bytes) -> CandlesRefused:
    for delimiter in _DELIMITERS:
        names = _split(first, delimiter)
        if count_prices(names):
            missing = [
                name for name in NUMBERS[:4] if not count_prices([n for n in names if name in n.lower()])
            ]
            return CandlesRefused(f"without the column {', '.join(missing)}; {EXPECTED}")
    return CandlesRefused(
        f"neither a header with open, high, low and close nor a row of candles. It begins with {quote_first_line(data)}; "
        f"{EXPECTED}"
    )


def _describe_delimiter(delimiter: str) -> list[str]:
    return [] if delimiter == "," else [f"columns separated by {_DELIMITERS[delimiter]}"]


def _split(text: str, delimiter: str) -> list[str]:
    try:
        return [field.strip().strip("<>") for field in next(csv.reader([text], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _is_row(fields: Sequence[str]) -> bool:
    return len(fields) >= 5 and all(_NUMBER.match(field) for field in fields[1:5])


def _list_fields(data: bytes, head: _Head) -> list[list[str]]:
    """The fields of the first rows. Raises CandlesRefused for a line that is not one row."""
    lines = islice(io.BytesIO(data), head.lines, head.lines + _SAMPLE_ROWS)
    rows = [
        _split(line[:_HEAD_BYTES].decode(errors="replace").rstrip("\r\n"), head.delimiter) for line in lines
    ]
    return rows if rows[0] else [[""]]


def _list_middle(data: bytes, head: _Head) -> list[list[str]]:
    """The fields of a few rows from the middle, in a file that has so many."""
    start = data.find(b"\n", len(data) // 2) + 1
    if data.count(b"\n", 0, start) < head.lines + _SAMPLE_ROWS:
        return []
    lines = islice(io.BytesIO(data[start : start + _HEAD_BYTES]), _SAMPLE_ROWS)
    return [_split(line.decode(errors="replace").rstrip("\r\n"), head.delimiter) for line in lines]


def _select(head: _Head, sample: Sequence[Sequence[str]], more: Sequence[Sequence[str]]) -> Selection:
    if head.names:
        first, others = ([dict(enumerate(row)) for row in part] for part in (sample, more))
        return select_named(head.names, first, (), others)
    rows = [row[head.counters :] for row in sample if len(row) == len(sample[0])]
    selection = select_positional(rows, [row[head.counters :] for row in more])
    positions = {name: at + head.counters for name, at in selection.positions.items()}
    return replace(selection, positions=positions)


def _count_counters(fields: Sequence[str]) -> int | None:
    """How many columns without a name are before those named 0, 1, 2, …, as pandas writes a table without names."""
    counters = 1 if fields[:1] == [""] else 0
    names = list(fields[counters:])
    return counters if len(names) >= len(COLUMNS) and names == [str(n) for n in range(len(names))] else None


def _refuse_thousands(sample: Sequence[Sequence[str]], selection: Selection) -> None:
    """Raises CandlesRefused where every point of these numbers may separate thousands, as German programs write them."""
    columns = [selection.positions[name] for name in NUMBERS]
    numbers = [row[at] for row in sample if len(row) > max(columns) for at in columns]
    pointed = [number for number in numbers if "." in number]
    if pointed and all(_MAY_BE_THOUSANDS.match(number) for number in numbers):
        raise CandlesRefused(
            f"{pointed[0]!r} may have a decimal point or a separator of thousands: write numbers without separators of"
            " thousands, and with more or fewer than three decimals"
        )


def _refuse_ragged(data: bytes, head: _Head, width: int) -> None:
    """Each row has as many fields as the header. polars fills a short row, and drops what is too much of a long one."""
    delimiter = head.delimiter.encode()
    for row, line in enumerate(islice(io.BytesIO(data), head.lines, None), start=1):
        if line.count(delimiter) == width - 1 and b'"' not in line:
            continue
        fields = _count_fields(line, head.delimiter, row)
        if fields != width:
            what = "is empty" if not line.strip() else f"has {fields:,} fields instead of {width}"
            raise CandlesRefused(f"{what}; look for an extra {_name(head.delimiter)} or quote", row=row)


def _is_surely_even(data: bytes, head: _Head, width: int) -> bool:
    """Whether no row can be ragged, which is known without a look at each line.

    Where all columns are read, polars refuses a row that is too long. If the separators are as many as all rows need,
    none is too short then.
    """
    if width != len(COLUMNS) or b'"' in data:
        return False
    start = 0
    for _ in range(head.lines):
        start = data.index(b"\n", start) + 1
    rows = data.count(b"\n", start) + 1
    return data.count(head.delimiter.encode(), start) == rows * (width - 1)


def _count_fields(line: bytes, delimiter: str, row: int) -> int:
    try:
        return len(next(csv.reader([line.decode().rstrip("\r\n")], delimiter=delimiter, strict=True), []))
    except csv.Error as error:
        reason = "a field is too long" if "field larger" in str(error) else "has a quote that is never closed"
        raise CandlesRefused(f"{reason}; look for a quote that is never closed", row=row) from error


def _name(delimiter: str) -> str:
    return _DELIMITERS[delimiter].removesuffix("s")


def _read_columns(
    data: bytes, head: _Head, selection: Selection, sample: Sequence[Sequence[str]], width: int
) -> pl.DataFrame:
    """Only the selected columns, as numbers where all of them are numbers, and otherwise as text."""
    at = selection.positions
    typed: dict[int, pl.DataType] = dict.fromkeys((at[name] for name in NUMBERS), pl.Float64())
    if _WHOLE.match(sample[0][at["timestamp"]]):
        typed[at["timestamp"]] = pl.Int64()
    types: dict[int, pl.DataType]
    for types in (typed, {}):
        schema = {f"column_{n + 1}": types.get(n, pl.String()) for n in range(width)}
        try:
            table = pl.read_csv(
                data,
                has_header=False,
                skip_lines=head.lines,
                separator=head.delimiter,
                schema=schema,
                columns=[f"column_{position + 1}" for position in at.values()],
            )
        except pl.exceptions.PolarsError:
            if not types:
                _refuse_ragged(data, head, width)
                raise
        else:
            return table.select(pl.col(f"column_{at[name] + 1}").alias(name) for name in at)
    raise AssertionError("text is always read")
