"""Reads JSON: a list of rows, as ccxt, freqtrade and exchanges write it, or of objects, or one of them on each line."""

import json
import re
from collections.abc import Iterator, Sequence

import polars as pl

from mlcore.data.columns import (
    COLUMNS,
    MAX_COLUMNS,
    MAX_FIELD_BYTES,
    MAX_ROWS,
    RawTable,
    Selection,
    select_named,
)
from mlcore.data.containers import quote_first_line
from mlcore.data.json_shapes import Unfolded, unfold
from mlcore.data.row_layouts import select_positional
from mlcore.data.tables.names import count_prices
from mlcore.errors import CandlesRefused

CHUNK_BYTES = 8 * 1024 * 1024
"""A decoded row takes about 15 times its text: the file is decoded piece by piece."""

_SHAPES = "expected a list of rows [[time, open, high, low, close, volume], …], or a list of objects"
_HEAD_BYTES = 64 * 1024
_SAMPLE_ROWS = 20
_SPACE = b" \t\r\n"
_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a letter, which JSON may escape, and which no text can hold."""
_BLANK = re.compile(rb"\n[ \t\r]*\n\s*")
_BETWEEN = {
    "[": re.compile(rb"\]\s*,\s*\["),
    "{": re.compile(rb"\}\s*,\s*\{"),
    "\n": re.compile(rb"[\]}]\s*\n\s*[\[{]"),
}


def read_json(data: bytes) -> RawTable:
    """Raises CandlesRefused, with the row if one row is at fault."""
    data = data.removeprefix(b"\xef\xbb\xbf").strip(_SPACE)
    is_lines, notes, zone = _has_lines(data), list[str](), ""
    if not is_lines and data[:1] == b"{":
        found = _unfold(data)
        data, notes, zone = found.rows, [found.note], found.zone
    has_blank_lines = is_lines and bool(_BLANK.search(data))
    if has_blank_lines:
        data = _BLANK.sub(b"\n", data)
    first = _decode_first(data if is_lines else data[1:], data)
    pieces = _split_lines(data) if is_lines else _split_list(data, "[" if isinstance(first, list) else "{")
    if isinstance(first, list):
        frame, selection = _read_lists(pieces, data)
    else:
        frame, selection = _read_objects(pieces, list(first), data)
    return RawTable(
        frame,
        selection.layout,
        (*notes, *selection.notes),
        1 if is_lines and not has_blank_lines else None,
        selection.has_closing_times,
        selection.zone or zone,
    )


def _unfold(data: bytes) -> Unfolded:
    """The list of candles in a document that is an object."""
    try:
        found = unfold(data)
    except CandlesRefused:
        raise
    except (ValueError, RecursionError) as error:
        raise _describe_damage(data, error) from error
    if found is None:
        raise _describe_shape(data)
    return found


def _has_lines(data: bytes) -> bool:
    """Whether each line is a row of its own."""
    line, _, rest = data[:_HEAD_BYTES].partition(b"\n")
    if not line.rstrip(_SPACE).endswith((b"]", b"}")):
        return False
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return _is_row(first) and bool(rest or isinstance(first, dict))


def _decode_first(rows: bytes, data: bytes) -> list[object] | dict[str, object]:
    head = rows[:_HEAD_BYTES].decode(errors="replace").lstrip()
    if head[:1] == "]":
        raise CandlesRefused("this is JSON: an empty list")
    if data[:1] == b"[" and head[:1] in ("[", "{"):
        try:
            first, _ = json.JSONDecoder().raw_decode(head)
        except (ValueError, RecursionError) as error:
            raise _describe_damage(data, error) from error
        if _is_row(first):
            return first
    elif data[:1] == b"{" and rows is data:
        return json.loads(data.partition(b"\n")[0])
    raise _describe_shape(data)


def _is_row(first: object) -> bool:
    values = first.values() if isinstance(first, dict) else first if isinstance(first, list) else ()
    return bool(values) and not any(isinstance(value, dict | list) for value in values)


def _split_list(data: bytes, opening: str) -> Iterator[bytes]:
    """Lists of some of the rows."""
    if not data.endswith(b"]"):
        raise _describe_damage(data, ValueError("cut off"))
    for start, end in _find_pieces(data, 1, len(data) - 1, _BETWEEN[opening]):
        yield b"[" + data[start:end] + b"]"


def _split_lines(data: bytes) -> Iterator[bytes]:
    for start, end in _find_pieces(data, 0, len(data), _BETWEEN["\n"]):
        yield b"[" + data[start:end].replace(b"\n", b",") + b"]"


def _find_pieces(data: bytes, start: int, end: int, between: re.Pattern[bytes]) -> Iterator[tuple[int, int]]:
    while found := between.search(data, start + CHUNK_BYTES, end):
        yield start, found.start() + 1
        start = found.end() - 1
    yield start, end


def _read_lists(pieces: Iterator[bytes], data: bytes) -> tuple[pl.DataFrame, Selection]:
    selection, width, parts, rows_before = None, 0, [], 0
    for rows in _decode(pieces, pl.List(pl.String()), data):
        width = width or int(rows.list.len()[0])
        odd = (rows.list.len() != width).arg_true()
        if len(odd):
            count, row = rows.list.len()[odd[0]], rows_before + int(odd[0]) + 1
            raise CandlesRefused(f"has {count:,} values instead of {width}", row=row)
        selection = selection or _select_lists(rows)
        at = selection.positions
        parts.append(pl.DataFrame([rows.list.get(at[name]).alias(name) for name in COLUMNS]))
        rows_before += len(rows)
    return _join(parts, selection)


def _select_lists(rows: pl.Series) -> Selection:
    first, more = rows.head(_SAMPLE_ROWS), rows.slice(max(_SAMPLE_ROWS, len(rows) // 2), _SAMPLE_ROWS)
    return select_positional(
        *([[value or "" for value in row] for row in part.to_list()] for part in (first, more))
    )


def _read_objects(
    pieces: Iterator[bytes], names: Sequence[str], data: bytes
) -> tuple[pl.DataFrame, Selection]:
    if not count_prices(names) or any(_SURROGATE.search(name) for name in names):
        raise _describe_shape(data)
    if len(names) > MAX_COLUMNS or any(len(name) > MAX_FIELD_BYTES for name in names):
        raise CandlesRefused(f"objects of {len(names):,} members; {_SHAPES}")
    selection, parts = None, []
    for rows in _decode(pieces, pl.Struct({name: pl.String() for name in names}), data):
        table = rows.struct.unnest()
        if selection is None:
            first, more = (
                table.head(_SAMPLE_ROWS),
                table.slice(max(_SAMPLE_ROWS, table.height // 2), _SAMPLE_ROWS),
            )
            samples = ([dict(enumerate(row)) for row in part.rows()] for part in (first, more))
            selection = select_named(names, next(samples), (), next(samples))
        parts.append(table.select(pl.col(names[at]).alias(name) for name, at in selection.positions.items()))
    return _join(parts, selection)


def _join(parts: Sequence[pl.DataFrame], selection: Selection | None) -> tuple[pl.DataFrame, Selection]:
    if selection is None:
        raise CandlesRefused("this is JSON: an empty list")
    return pl.concat(parts), selection


def _decode(pieces: Iterator[bytes], kind: pl.DataType, data: bytes) -> Iterator[pl.Series]:
    """The rows of each piece."""
    count = 0
    for piece in pieces:
        try:
            rows = pl.Series([piece.decode()]).str.json_decode(pl.List(kind)).explode()
        except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
            raise _describe_damage(data, error) from error
        if rows.null_count():
            raise CandlesRefused("is null, not a candle", row=count + int(rows.is_null().arg_true()[0]) + 1)
        count += len(rows)
        if count > MAX_ROWS:
            raise CandlesRefused(f"more than {MAX_ROWS:,} rows; split the file")
        yield rows


def _describe_shape(data: bytes) -> CandlesRefused:
    return CandlesRefused(
        f"this is JSON of another shape; {_SHAPES}. It begins with {quote_first_line(data)}"
    )


def _describe_damage(data: bytes, error: Exception) -> CandlesRefused:
    hint = "; JSON has no NaN" if "'N'" in str(error) or "NaN" in str(error) else ""
    return CandlesRefused(
        f"this looks like JSON, but it is damaged, cut off, or holds more than plain numbers and texts{hint}; {_SHAPES}."
        f" It begins with {quote_first_line(data)}"
    )
