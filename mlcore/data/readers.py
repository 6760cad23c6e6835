"""Reads a table of candles from the bytes of a CSV, gzipped CSV or Parquet file; the content decides which it is.

Nothing is dropped and nothing is guessed: a value that cannot be read is refused with its row. `validation` then
decides whether the rows are valid candles.
"""

import csv
import io
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

from mlcore.errors import CandlesRefused

COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
NUMBERS = COLUMNS[1:]

MAX_ROWS = 4_000_000
"""Seven years of one-minute bars; more is a mistake or an attack."""

MAX_TEXT_BYTES = 384 * 1024 * 1024
"""The limit of an unpacked gzip file: a small file could otherwise fill the memory."""

MAX_GZIP_MEMBERS = 100_000
"""Members may be empty, so that the limit of the unpacked text does not end a file of them. bgzip makes 6,000."""

MAX_HEADER_BYTES = 4096
MAX_COLUMNS = 64
MAX_FIELD_BYTES = 200
"""A number or a time in text is short."""
_GZIP_CHUNK_BYTES = 64 * 1024

_EXPECTED = "expected the columns " + ", ".join(COLUMNS)
_ISO = (
    r"^(?<day>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<minute>\d{2}:\d{2})(?::(?<second>\d{2})(?:\.(?<fraction>\d{1,3})0*)?)?)?"
    r" ?(?:Z|UTC|(?<offset>[+-]\d{2}:?\d{2}))?$"
)
_TIME_FORMATS = {"epoch seconds": r"^\d{10}$", "epoch milliseconds": r"^\d{13}$", "an ISO date": _ISO}


def read_table(data: bytes, name: str) -> pl.DataFrame:
    """The columns of `COLUMNS`, in that order: timestamp Datetime(ms, UTC), the others float64.

    Raises CandlesRefused, with the row if one row is at fault.
    """
    try:
        columns = _read_columns(data, name.lower())
        series = [_parse_timestamps(columns["timestamp"]), *(_parse_numbers(columns[c]) for c in NUMBERS)]
        return pl.DataFrame(series).rechunk()
    except CandlesRefused as error:
        raise CandlesRefused(error.reason, source=name, row=error.row) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = f"cannot be read as candles ({' '.join(str(error).split())[:100]}); export the file again"
        raise CandlesRefused(reason, source=name) from error


def _read_columns(data: bytes, name: str) -> pl.DataFrame:
    if not data:
        raise CandlesRefused("the file is empty")
    if data[:4] == b"PAR1":
        return _read_parquet(data)
    if name.endswith((".parquet", ".pq")):
        raise CandlesRefused("named Parquet, but it is not Parquet data; export it again")
    if data[:2] == b"\x1f\x8b":
        data = _unzip(data)
    elif name.endswith(".gz"):
        raise CandlesRefused("named .gz, but it is not gzip data; compress it again, or rename it")
    return _read_csv(data)


def _unzip(data: bytes) -> bytes:
    """All members of a gzip file. Raises CandlesRefused as soon as they unpack to more than MAX_TEXT_BYTES."""
    parts: list[bytes] = []
    member, members, room = zlib.decompressobj(wbits=31), 1, MAX_TEXT_BYTES
    try:
        for start in range(0, len(data), _GZIP_CHUNK_BYTES):
            chunk = data[start : start + _GZIP_CHUNK_BYTES]
            while chunk:
                if member.eof:
                    chunk = chunk.lstrip(b"\0")  # padding between and after members
                    if not chunk:
                        break
                    member, members = zlib.decompressobj(wbits=31), members + 1
                parts.append(member.decompress(chunk, room + 1))
                room -= len(parts[-1])
                chunk = member.unused_data
                if room < 0:
                    raise CandlesRefused(f"unpacks to more than {MAX_TEXT_BYTES:,} bytes; split it")
                if members > MAX_GZIP_MEMBERS:
                    raise CandlesRefused(f"more than {MAX_GZIP_MEMBERS:,} gzip members; compress it as one")
    except zlib.error as error:
        raise CandlesRefused(f"damaged gzip data ({error}); fetch the file again") from error
    if not member.eof:
        raise CandlesRefused("the gzip data ends too early: the file was cut off; fetch it again")
    return b"".join(parts)


def _read_csv(data: bytes) -> pl.DataFrame:
    """The file's columns as text, renamed to COLUMNS' names, one row for each data line."""
    data = _decode_text(data)
    header, _, body = data.partition(b"\n")
    if len(header) > MAX_HEADER_BYTES:
        raise CandlesRefused(
            f"the first line has {len(header):,} bytes; a header has at most {MAX_HEADER_BYTES:,}. {_EXPECTED}"
        )
    names = _parse_header(header.decode())
    if not body:
        raise CandlesRefused("there is a header but not one row")
    if body.count(b"\n") >= MAX_ROWS:
        raise CandlesRefused(f"more than {MAX_ROWS:,} rows; split the file")
    try:
        return pl.read_csv(body, has_header=False, new_columns=names, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise _find_ragged_row(body.decode(), len(names)) from error


def _decode_text(data: bytes) -> bytes:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise CandlesRefused("saved as UTF-16; save it as UTF-8")
    if b"\0" in data:
        raise CandlesRefused("binary data, neither CSV nor gzip nor Parquet")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise CandlesRefused("not UTF-8 text; save it as UTF-8") from error
    data = data.removeprefix(b"\xef\xbb\xbf").rstrip()
    if not data:
        raise CandlesRefused("the file holds only white space")
    return data


def _parse_header(header: str) -> list[str]:
    names = [field.strip().strip('"').strip().lower() for field in header.split(",")]
    if names[0][:1].isdigit():
        raise CandlesRefused(f"the first line is data, not a header; {_EXPECTED}")
    for delimiter, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(names) == 1 and delimiter in header:
            raise CandlesRefused(f"separated by {word}; separate the columns by commas")
    _check_names(names)
    return names


def _check_names(names: Sequence[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise CandlesRefused(f"with {len(names):,} columns; {_EXPECTED}")
    duplicates = sorted(column for column, count in Counter(names).items() if count > 1)
    missing = [column for column in COLUMNS if column not in names]
    unknown = [column[:40] for column in names if column not in COLUMNS]
    if duplicates:
        raise CandlesRefused(f"the column {duplicates[0][:40]!r} is there more than once")
    if missing:
        raise CandlesRefused(f"without the column {', '.join(missing)}; {_EXPECTED}")
    if unknown:
        raise CandlesRefused(f"with unknown columns: {', '.join(unknown)}; {_EXPECTED}")


def _find_ragged_row(body: str, width: int) -> CandlesRefused:
    """The fast reader does not say where it stopped, so a slow one finds the row."""
    row = 0
    try:
        for row, fields in enumerate(csv.reader(io.StringIO(body)), start=1):
            if len(fields) != width:
                reason = f"has {len(fields):,} fields instead of {width}; look for an extra comma or quote"
                return CandlesRefused(reason, row=row)
    except csv.Error:  # a field longer than the module allows
        return CandlesRefused("a field is too long; look for a quote that is never closed", row=row + 1)
    return CandlesRefused("cannot be read as CSV: look for a quote that is never closed")


def _read_parquet(data: bytes) -> pl.DataFrame:
    try:
        schema = pl.read_parquet_schema(io.BytesIO(data))
        _check_names(list(schema))
        for name, kind in schema.items():
            if not (kind.is_numeric() or kind.is_temporal() or kind in (pl.String, pl.Boolean)):
                raise CandlesRefused(f"{name} holds {str(kind)[:40]}, not numbers or times")
        rows = pl.scan_parquet(io.BytesIO(data)).select(pl.len()).collect().item()
        if rows > MAX_ROWS:
            raise CandlesRefused(f"more than {MAX_ROWS:,} rows; split the file")
        _refuse_long_texts(data, schema)
        return pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise CandlesRefused("damaged Parquet data; export or fetch the file again") from error


def _refuse_long_texts(data: bytes, schema: Mapping[str, pl.DataType]) -> None:
    """Before anything is kept of it: text that repeats is a thousandth of its length in a file."""
    longest = pl.col(pl.String).str.len_bytes().max()
    if pl.String not in schema.values():
        return
    sizes = pl.scan_parquet(io.BytesIO(data)).select(longest).collect(engine="streaming").row(0, named=True)
    for name, size in sizes.items():
        if size is not None and size > MAX_FIELD_BYTES:
            raise CandlesRefused(
                f"{name} has a text of {size:,} bytes; a field has at most {MAX_FIELD_BYTES:,}"
            )


def _refuse_long(column: pl.Series) -> None:
    """Raises CandlesRefused for a text too long for a number or time: it would be copied many times."""
    sizes = column.str.len_bytes()
    long = (sizes > MAX_FIELD_BYTES).arg_true()
    if len(long):
        reason = f"{column.name} has {sizes[long[0]]:,} bytes; a field has at most {MAX_FIELD_BYTES:,}"
        raise CandlesRefused(reason, row=long[0] + 1)


def _parse_numbers(column: pl.Series) -> pl.Series:
    _refuse_nulls(column, column, "is empty")
    if column.dtype == pl.String:
        _refuse_long(column)
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
        _refuse_nulls(numbers, column, "is {value!r}, not a number")
        return numbers
    if not column.dtype.is_numeric():
        raise CandlesRefused(f"{column.name} holds {column.dtype}, not numbers")
    return column.cast(pl.Float64)


def _parse_timestamps(column: pl.Series) -> pl.Series:
    _refuse_nulls(column, column, "is empty")
    if column.dtype == pl.String:
        _refuse_long(column)
    if column.dtype == pl.String or column.dtype.is_integer():
        return _parse_text_timestamps(column.cast(pl.String).str.strip_chars())
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    if not isinstance(column.dtype, pl.Datetime):
        raise CandlesRefused(f"timestamp holds {column.dtype}, not times")
    utc = column.dt.convert_time_zone("UTC") if column.dtype.time_zone else column.dt.replace_time_zone("UTC")
    whole = utc.dt.cast_time_unit("ms")
    finer = (whole.cast(utc.dtype) != utc).arg_true()
    if len(finer):
        raise CandlesRefused("timestamp is finer than a millisecond", row=finer[0] + 1)
    return whole


def _parse_text_timestamps(text: pl.Series) -> pl.Series:
    """The first row decides the format of the whole file: seconds and milliseconds must not mix unnoticed."""
    form = next(
        (form for form, pattern in _TIME_FORMATS.items() if text.head(1).str.contains(pattern).all()), ""
    )
    if not form:
        raise CandlesRefused(
            f"timestamp is {text[0][:40]!r}; write 2020-09-20T00:00:00Z, or epoch seconds or milliseconds",
            row=1,
        )
    strange = (~text.str.contains(_TIME_FORMATS[form])).arg_true()
    if len(strange):
        value = text[strange[0]][:40]
        raise CandlesRefused(f"timestamp is {value!r}, not {form} as in row 1", row=strange[0] + 1)
    times = (_parse_iso(text) if form == "an ISO date" else _parse_epoch(text, form)).rename("timestamp")
    _refuse_nulls(times, text, "is {value!r}: this time does not exist")
    return times


def _parse_epoch(text: pl.Series, form: str) -> pl.Series:
    factor = 1000 if form == "epoch seconds" else 1
    return (text.cast(pl.Int64) * factor).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")


def _parse_iso(text: pl.Series) -> pl.Series:
    """A time without a zone is UTC."""
    parts = text.str.extract_groups(_ISO).struct.unnest()
    digits = pl.col("offset").str.replace(":", "", literal=True)
    minutes = digits.str.slice(1, 2).cast(pl.Int64) * 60 + digits.str.slice(3, 2).cast(pl.Int64)
    offset = pl.when(digits.str.starts_with("-")).then(-minutes).otherwise(minutes).fill_null(0)
    clock = pl.concat_str(
        "day", pl.lit(" "), pl.col("minute").fill_null("00:00"), pl.lit(":"), pl.col("second").fill_null("00")
    )
    local = clock.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="ms", strict=False)
    fraction = pl.col("fraction").str.pad_end(3, "0").cast(pl.Int64).fill_null(0)
    moment = local + pl.duration(milliseconds=fraction, minutes=-offset, time_unit="ms")
    return parts.select(moment.dt.replace_time_zone("UTC")).to_series()


def _refuse_nulls(parsed: pl.Series, written: pl.Series, reason: str) -> None:
    missing = parsed.is_null().arg_true()
    if len(missing):
        value = str(written[missing[0]])[:40]
        raise CandlesRefused(f"{parsed.name} {reason.format(value=value)}", row=missing[0] + 1)
