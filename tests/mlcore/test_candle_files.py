"""Files that cannot be trusted are refused with row and reason; files that can are read whole, whatever their form."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from mlcore.data import candles, columnar, containers, delimited, json_rows, json_shapes
from mlcore.errors import CandlesRefused
from tests.mlcore.candle_formats import parquet, zipped

HEADER = "timestamp,open,high,low,close,volume"
ROWS = [f"2024-01-01T{hour:02}:00:00Z,10,12,9,11,{hour}.5" for hour in range(6)]


def text(*rows: str, header: str = HEADER, end: str = "\n") -> bytes:
    return (end.join([header, *rows]) + end).encode()


def with_row(number: int, row: str) -> bytes:
    """The good file with one data row (from 1) replaced."""
    return text(*ROWS[: number - 1], row, *ROWS[number:])


def good_frame() -> pl.DataFrame:
    return candles.read_bytes(text(*ROWS), "good.csv")


GOOD_PARQUET = parquet(good_frame())
GOOD_GZIP = gzip.compress(text(*ROWS))

# name of the file, its bytes, the row that is named, a part of the reason
MALFORMED = {
    "no bytes": ("a.csv", b"", None, "empty"),
    "white space only": ("a.csv", b" \n\n", None, "only white space"),
    "a header alone": ("a.csv", text(), None, "not one row"),
    "one row": ("a.csv", text(ROWS[0]), None, "fewer than 2 rows"),
    "a missing column": ("a.csv", text("1,2", header="timestamp,open"), None, "without the column high, low"),
    "a column twice": ("a.csv", text(ROWS[0] + ",1", header=HEADER + ",close"), None, "'close' is there more than once"),
    "a row too long": ("a.csv", with_row(3, ROWS[2] + ",7"), 3, "7 fields instead of 6"),
    "a row too short": ("a.csv", with_row(3, "2024-01-01T02:00:00Z,10,12,9,11"), 3, "5 fields instead of 6"),
    "a row too long, and one too short": (
        "a.csv",
        text(ROWS[0], ROWS[1] + ",7", "2024-01-01T02:00:00Z,10,12,9,11", *ROWS[3:]),
        2,
        "7 fields instead of 6",
    ),
    "a row too long, and one too short, of columns that are not read": (
        "a.csv",
        text(ROWS[0] + ",1,2", ROWS[1] + ",1,2,3", ROWS[2] + ",1", header=HEADER + ",trades,note"),
        2,
        "9 fields instead of 8",
    ),
    "an empty row below the header": ("a.csv", text(",,,,,", *ROWS), 1, "timestamp is empty"),
    "a row without a time below the header": ("a.csv", text(",1,1,1,1,1", *ROWS), 1, "timestamp is empty"),
    "missing values below the header": ("a.csv", text("Date,nan,nan,nan,nan,nan", *ROWS), 1, "'Date'"),
    "another order without a header, which no exchange has": (
        "a.csv",
        b"1704067200,12,9,10,11,1\n1704070800,12,9,10,11,1\n",
        1,
        "taken as time, open, high, low, close, volume",
    ),
    "an empty line inside": ("a.csv", with_row(3, ""), 3, "is empty"),
    "a quote never closed": ("a.csv", with_row(3, '"' + ROWS[2]), 3, "a quote that is never closed"),
    "a quote never closed in a column that is not read": (
        "a.csv",
        text(*(f'{row},"x' for row in ROWS), header=HEADER + ",note"),
        1,
        "a quote that is never closed",
    ),
    "an empty cell": ("a.csv", with_row(2, "2024-01-01T01:00:00Z,10,,9,11,1"), 2, "high is empty"),
    "text for a number": ("a.csv", with_row(2, "2024-01-01T01:00:00Z,10,12,9,n/a,1"), 2, "'n/a', not a number"),
    "a decimal comma": ("a.csv", with_row(2, '2024-01-01T01:00:00Z,"10,5",12,9,11,1'), 2, "'10,5', not a number"),
    "NaN": ("a.csv", with_row(4, "2024-01-01T03:00:00Z,10,12,9,nan,1"), 4, "close is nan"),
    "infinity": ("a.csv", with_row(4, "2024-01-01T03:00:00Z,10,inf,9,11,1"), 4, "high is inf"),
    "a price of zero": ("a.csv", with_row(5, "2024-01-01T04:00:00Z,0,12,0,11,1"), 5, "above zero"),
    "a negative price": ("a.csv", with_row(5, "2024-01-01T04:00:00Z,10,12,-9,11,1"), 5, "low is -9.0"),
    "a negative volume": ("a.csv", with_row(5, "2024-01-01T04:00:00Z,10,12,9,11,-1"), 5, "volume is -1.0"),
    "high below low": ("a.csv", with_row(2, "2024-01-01T01:00:00Z,10,8,9,11,1"), 2, "high 8.0 is below low 9.0"),
    "open outside": ("a.csv", with_row(2, "2024-01-01T01:00:00Z,13,12,9,11,1"), 2, "open 13.0 is outside"),
    "close outside": ("a.csv", with_row(2, "2024-01-01T01:00:00Z,10,12,9,8,1"), 2, "close 8.0 is outside"),
    "a time twice": ("a.csv", with_row(3, ROWS[1]), 3, "there twice"),
    "a row that repeats its neighbour": ("a.csv", with_row(3, ROWS[1]), 3, "or say at the import that repeated candles"),
    "a time twice with other prices": ("a.csv", with_row(3, ROWS[1].replace("11", "10")), 3, "delete one of its rows"),
    "two coins": (
        "a.csv",
        text(*(f"{row},BTC" for row in ROWS[:3]), *(f"{row},ETH" for row in ROWS[3:]), header=f"{HEADER},symbol"),
        4,
        "is of 'ETH', not of 'BTC' as row 1",
    ),
    "two coins, and rows that name none": (
        "a.csv",
        text(f"{ROWS[0]},", f"{ROWS[1]},BTC", f"{ROWS[2]},", f"{ROWS[3]},ETH", header=f"{HEADER},symbol"),
        4,
        "is of 'ETH', not of 'BTC' as row 2",
    ),
    "epochs that a spreadsheet rounded": (
        "a.csv",
        text("1.70407E+12,10,12,9,11,1", "1.70407E+12,11,13,10,12,1"),
        2,
        "a program rounded it",
    ),
    "calendar months": (
        "a.csv",
        text(*(f"2024-{month:02}-01,10,12,9,11,1" for month in range(1, 8))),
        None,
        "bars 31 days apart, and others: months and years differ in length",
    ),
    "weeks that do not begin on one weekday": (
        "a.csv",
        text(*(f"2024-01-{day:02},10,12,9,11,1" for day in (1, 8, 15, 23))),
        4,
        "off the grid",
    ),
    "two lists of candles in one JSON": (
        "a.json",
        json.dumps({"BTC": [[1704067200, 1, 1, 1, 1, 1]], "ETH": [[1704067200, 2, 2, 2, 2, 2]]}).encode(),
        None,
        "2 lists of candles: BTC, ETH; import one at a time",
    ),
    "columns of different lengths in one JSON": (
        "a.json",
        json.dumps({"t": [1704067200, 1704070800], **{name: [1.0] for name in "ohlcv"}}).encode(),
        None,
        "the column 'o' has other rows than the first column",
    ),
    "a JSON object cut off": ("a.json", b'{"data": [[1704067200, 1, 1, 1, 1, 1],', None, "damaged, cut off"),
    "times in no order": ("a.csv", text(*ROWS[2:], *ROWS[:2]), 5, "earlier than the row before"),
    "a time twice, the newest first": ("a.csv", text(ROWS[3], ROWS[2], ROWS[2], ROWS[1]), 2, "there twice"),
    "a bad row, the newest first": ("a.csv", text(ROWS[3], ROWS[2].replace("9,", "99,"), ROWS[1]), 2, "below low"),
    "a time off the grid": ("a.csv", with_row(6, "2024-01-01T05:20:00Z,10,12,9,11,1"), 6, "off the grid"),
    "no such month": ("a.csv", with_row(2, "2024-13-01T01:00:00Z,10,12,9,11,1"), 2, "this time does not exist"),
    "no such hour": ("a.csv", with_row(2, "2024-01-01T25:00:00Z,10,12,9,11,1"), 2, "this time does not exist"),
    "a time in words": ("a.csv", with_row(1, "yesterday,10,12,9,11,1"), 1, "'yesterday'"),
    "a day and month that may be exchanged": (
        "a.csv",
        text("01/02/2024 00:00,10,12,9,11,1", "01/02/2024 01:00,10,12,9,11,1"),
        1,
        "may be day and month or month and day",
    ),
    "days and months that contradict each other": (
        "a.csv",
        text("13/02/2024 00:00,10,12,9,11,1", "02/13/2024 01:00,10,12,9,11,1"),
        1,
        "contradict each other",
    ),
    "an abbreviated zone": (
        "a.csv",
        text("2024-01-01 00:00 EST,10,12,9,11,1", "2024-01-01 01:00 EST,10,12,9,11,1"),
        1,
        "the zone EST has several meanings",
    ),
    "an hour that its zone has twice": (
        "a.csv",
        text("2024-10-27 01:00 Europe/Berlin,10,12,9,11,1", "2024-10-27 02:00 Europe/Berlin,10,12,9,11,1"),
        2,
        "does not name one moment",
    ),
    "a zone that does not exist": ("a.csv", text("2024-10-27 01:00 Europe/Bern1in,10,12,9,11,1"), 1, "2024-10-27"),
    "a day and a clock in two columns": (
        "a.csv",
        text("2024-01-01,00:00,10,12,9,11,1", header="date,time,open,high,low,close,volume"),
        None,
        "in two columns",
    ),
    "closing times alone": (
        "a.csv",
        text(*ROWS, header="close_time,open,high,low,close,volume"),
        None,
        "only of closing times",
    ),
    "volumes of two coins": (
        "a.csv",
        text(*(f"{row},1" for row in ROWS), header="timestamp,open,high,low,close,Volume BTC,Volume ETH"),
        None,
        "which volume is the coin's: Volume BTC, Volume ETH",
    ),
    "a volume in money alone": (
        "a.csv",
        text(*ROWS, header=HEADER.replace("volume", "Volume USD")),
        None,
        "Volume USD counts money, not coins",
    ),
    "the export of MetaTrader": (
        "a.csv",
        b"<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<VOL>\n2024.01.01\t00:00:00\t10\t12\t9\t11\t1\n",
        None,
        "in two columns",
    ),
    "a month in German": ("a.csv", text("Mon 01 Mai 2024 00:00,10,12,9,11,1", ROWS[1]), 1, "; write 2020-09-20T00:00:00Z"),
    "a separator of thousands in the wrong place": (
        "a.csv",
        text(*(f'{row[:20]},"1,010.5","1,012.5","1,009.5","10,11.5",7.5' for row in ROWS)),
        1,
        "'10,11.5', not a number; write decimal points, and no separators of thousands",
    ),
    "a comma that may separate thousands": (
        "a.csv",
        text(*(f"{row[:20]};1,010;1,012;1,009;1,011;7,000" for row in ROWS), header=HEADER.replace(",", ";")),
        None,
        "'1,010' may be a decimal comma or a separator of thousands",
    ),
    "a counter for times": ("a.csv", text("1,10,12,9,11,1", "2,10,12,9,11,1"), 1, "is 1, not a time"),
    "nine columns without names": ("a.csv", b"1704067200,10,12,9,11,1,2,3,4\n" * 2, None, "9 columns without names"),
    "eight columns that are not Kraken's": ("a.csv", b"1704067200,10,12,9,11,1,2,3\n" * 2, None, "8 columns without names"),
    "a row above the header": ("a.csv", b"1,2,3\n1,2,3,4,5\n" + text(*ROWS), None, "line 2 is a row of candles"),
    "seconds among dates": ("a.csv", with_row(4, "1704067200,10,12,9,11,1"), 4, "not a date as in row 1"),
    "milliseconds among seconds": (
        "a.csv",
        text("1704067200,10,12,9,11,1", "1704067260000,10,12,9,11,1"),
        2,
        "milliseconds, not seconds as in row 1",
    ),
    "steps under a second": (
        "a.csv",
        text("1704067200000,10,12,9,11,1", "1704067200250,10,12,9,11,1"),
        None,
        "not whole seconds",
    ),
    "a gzip cut off": ("a.csv.gz", GOOD_GZIP[:-12], None, "ends too early"),
    "a gzip with a wrong checksum": ("a.csv.gz", GOOD_GZIP[:-8] + b"\0" * 8, None, "damaged gzip"),
    "a gzip with junk behind": ("a.csv.gz", GOOD_GZIP + b"junk", None, "damaged gzip"),
    "a Parquet cut off": ("a.parquet", GOOD_PARQUET[: len(GOOD_PARQUET) // 2], None, "damaged Parquet"),
    "a Parquet without its middle": ("a.parquet", b"PAR1" + b"\0" * 64 + b"PAR1", None, "damaged Parquet"),
    "a Parquet with text prices": (
        "a.parquet",
        parquet(good_frame().with_columns(pl.lit("ten").alias("close"))),
        1,
        "'ten', not a number",
    ),
    "a Parquet with truth values": (
        "a.parquet",
        parquet(good_frame().with_columns(pl.lit(True).alias("volume"))),
        None,
        "volume holds Boolean",
    ),
    "a Parquet with a null": (
        "a.parquet",
        parquet(good_frame().with_columns(pl.lit(None, pl.Float64).alias("open"))),
        1,
        "open is empty",
    ),
    "a Parquet with times as fractions": (
        "a.parquet",
        parquet(good_frame().with_columns(pl.lit(1.5).alias("timestamp"))),
        1,
        "is 1.5, not a time",
    ),
    "a Parquet with nanoseconds": (
        "a.parquet",
        parquet(good_frame().with_columns(pl.col("timestamp").dt.cast_time_unit("ns") + pl.duration(nanoseconds=7))),
        1,
        "finer than a millisecond",
    ),
    "a Parquet without volume": ("a.parquet", parquet(good_frame().drop("volume")), None, "without the column volume"),
    "a Parquet with lists": (
        "a.parquet",
        parquet(good_frame().with_columns(pl.concat_list("open").alias("open"))),
        None,
        "open holds List",
    ),
    "a Parquet with long texts": (
        "a.parquet",
        parquet(good_frame().with_columns(pl.lit("1" * 201).alias("close"))),
        None,
        "close has a text of 201 bytes",
    ),
    "a Parquet with a time no calendar has": (
        "a.parquet",
        parquet(good_frame().with_columns(pl.lit(2**62).cast(pl.Datetime("ms")).alias("timestamp"))),
        1,
        "outside 1970",
    ),
    "a time before 1970": ("a.csv", with_row(2, "1969-12-31T23:00:00Z,10,12,9,11,1"), 2, "outside 1970"),
    "a long field": ("a.csv", with_row(2, ROWS[1] + "x" * 201), 2, "volume has 204 bytes"),
    "a field too long for the slow reader": (
        "a.csv",
        with_row(3, "1" * 200_000 + ",1,1,1,1,1,1"),
        3,
        "a field is too long",
    ),
    "a header of a thousand names": (
        "a.csv",
        text(ROWS[0], header=",".join(f"c{n}" for n in range(1000))),
        None,
        "a header has at most 4,096",
    ),
    "a hundred columns": ("a.csv", text(ROWS[0], header=HEADER + ",x" * 94), None, "with 100 columns"),
    "a Parquet of a hundred columns": (
        "a.parquet",
        parquet(good_frame().with_columns(pl.lit(1).alias(f"c{n}") for n in range(94))),
        None,
        "with 100 columns",
    ),
    "bytes of no known kind": ("a.csv", b"\x89\0\r\n\x1a\n\0\0\0\rIHDR", None, "binary data of an unknown kind"),
    "UTF-16 cut off": ("a.csv", text(*ROWS).decode().encode("utf-16")[:-1], None, "damaged UTF-16"),
    "Latin-1": ("a.csv", text("2024-01-01T00:00:00Z,10,12,9,11,£").replace(b"\xc2", b""), None, "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "row", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused_with_its_row_and_the_reason(
    name: str, data: bytes, row: int | None, reason: str
) -> None:
    with pytest.raises(CandlesRefused) as refused:
        candles.read_bytes(data, name)
    assert reason in refused.value.reason
    assert refused.value.row == row
    is_text = row is not None and not name.endswith(".parquet")
    assert refused.value.line == (row + (HEADER.encode() in data) if row is not None and is_text else None)
    assert str(refused.value).startswith(name if row is None else f"{name}, row {row}")


def test_the_message_counts_further_rows_with_the_same_fault() -> None:
    bad = [row.replace(",11,", ",13,") for row in ROWS]
    with pytest.raises(
        CandlesRefused,
        match=r"row 1 \(line 2 of the file\): close 13.0 is outside low 9.0 … high 12.0 \(5 more rows",
    ):
        candles.read_bytes(text(*bad), "a.csv")


@pytest.mark.parametrize(
    ("module", "limit", "value", "data"),
    [
        (containers, "MAX_TEXT_BYTES", 100, GOOD_GZIP),
        (containers, "MAX_GZIP_MEMBERS", 5, GOOD_GZIP + gzip.compress(b"") * 5),
        (delimited, "MAX_ROWS", 5, text(*ROWS)),
        (columnar, "MAX_ROWS", 5, GOOD_PARQUET),
        (
            json_rows,
            "MAX_ROWS",
            5,
            good_frame().with_columns(pl.col("timestamp").dt.epoch()).write_json().encode(),
        ),
        (containers, "MAX_TEXT_BYTES", 100, zipped({"a.csv": text(*ROWS)})),
        (json_shapes, "MAX_BYTES", 100, json.dumps({"data": [[1704067200, 1, 1, 1, 1, 1]] * 9}).encode()),
    ],
    ids=[
        "a gzip that unfolds beyond the limit",
        "a gzip of too many members",
        "a CSV of too many rows",
        "a Parquet of too many rows",
        "a JSON of too many rows",
        "a zip that unfolds beyond the limit",
        "a JSON object that is decoded whole",
    ],
)
def test_a_file_that_would_fill_the_memory_is_refused(
    module: ModuleType, limit: str, value: int, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(CandlesRefused, match=f"more than {value}"):
        candles.read_bytes(data, "a")


START = datetime(2024, 1, 1, tzinfo=UTC)
TIMES = [START + timedelta(hours=hour) for hour in range(3)]


def times_as(form: Callable[[datetime], str]) -> bytes:
    return text(*(f"{form(time)},10,12,9,11,1" for time in TIMES))


@pytest.mark.parametrize(
    "data",
    [
        times_as(lambda t: f"{t:%Y-%m-%dT%H:%M:%SZ}"),
        times_as(lambda t: f"{t:%Y-%m-%dT%H:%M:%S}"),
        times_as(lambda t: f"{t:%Y-%m-%d %H:%M:%S}"),
        times_as(lambda t: f"{t:%Y-%m-%d %H:%M}"),
        times_as(lambda t: f"{t:%Y-%m-%d %H:%M:%S}.000000+00:00"),
        times_as(lambda t: f"{t + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}+02:00"),
        times_as(lambda t: f"{t - timedelta(hours=5, minutes=30):%Y-%m-%dT%H:%M:%S}-0530"),
        times_as(lambda t: f"{t:%Y-%m-%d %H:%M:%S} UTC"),
        times_as(lambda t: str(int(t.timestamp()))),
        times_as(lambda t: str(int(t.timestamp()) * 1000)),
    ],
    ids=[
        "ISO with Z",
        "ISO without a zone",
        "a space for the T",
        "without seconds",
        "with a fraction and an offset",
        "an offset ahead of UTC",
        "an offset behind UTC, without its colon",
        "the word UTC",
        "epoch seconds",
        "epoch milliseconds",
    ],
)
def test_each_usual_form_of_a_timestamp_is_read_as_utc(data: bytes) -> None:
    assert candles.read_bytes(data, "a.csv")["timestamp"].to_list() == TIMES


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"\xef\xbb\xbf" + text(*ROWS)),
        ("a.csv", text(*ROWS, end="\r\n")),
        ("a.csv", text(*ROWS) + b"\n\n  \n"),
        ("a.csv", text(*ROWS).replace(b",10,", b", 10 ,")),
        ("a.csv", text(*ROWS, header=HEADER.upper())),
        (
            "a.csv",
            text(*(",".join(reversed(r.split(","))) for r in ROWS), header=",".join(HEADER.split(",")[::-1])),
        ),
        ("a.csv.gz", GOOD_GZIP),
        ("a.csv.gz", gzip.compress(text(*ROWS[:3])) + gzip.compress(("\n".join(ROWS[3:])).encode())),
        ("no-suffix", GOOD_GZIP),
        ("a.parquet", GOOD_PARQUET),
        ("a.parquet", parquet(good_frame().with_columns(pl.col("timestamp").dt.replace_time_zone(None)))),
        ("a.parquet", parquet(good_frame().with_columns(pl.col("timestamp").dt.epoch("s")))),
        (
            "a.parquet",
            parquet(good_frame().with_columns(pl.col("timestamp").dt.convert_time_zone("Europe/Berlin"))),
        ),
        ("a.parquet", parquet(good_frame().with_columns(pl.col("open").cast(pl.Int32)))),
    ],
    ids=[
        "a byte order mark",
        "Windows line ends",
        "empty lines at the end",
        "spaces around a number",
        "capital column names",
        "columns in another order",
        "gzip",
        "a gzip of two members",
        "gzip without its suffix",
        "Parquet",
        "Parquet without a zone",
        "Parquet with epoch seconds",
        "Parquet in another zone",
        "Parquet with whole prices",
    ],
)
def test_the_same_candles_have_one_digest_whatever_file_they_came_in(name: str, data: bytes) -> None:
    frame = candles.read_bytes(data, name)
    assert frame.equals(good_frame())
    assert candles.compute_digest(frame) == candles.compute_digest(good_frame())


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CandlesRefused, match=r"nowhere.csv: cannot be read \(No such file"):
        candles.read(tmp_path / "nowhere.csv")
