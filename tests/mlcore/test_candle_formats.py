"""Candle files as exchanges, programs and libraries write them are recognised by content, and reported in words."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlcore.data import candles, json_rows
from mlcore.data.readers import Options, read_file
from mlcore.errors import CandlesRefused
from tests.mlcore.candle_formats import FORMATS, FRAME, ISO, ROWS, arrow, csv, lists, months, parquet, zipped


@pytest.mark.parametrize(("make", "said"), FORMATS.values(), ids=FORMATS)
def test_each_usual_file_has_the_digest_of_its_candles_and_a_report(
    make: Callable[[], bytes], said: tuple[str, ...]
) -> None:
    found = read_file(make(), "a file of any name")
    assert candles.compute_digest(found.frame) == candles.compute_digest(FRAME)
    report = " · ".join((found.report.format, found.report.layout, *found.report.notes))
    assert [words for words in said if words not in report] == []


def test_the_months_of_these_candles_can_be_told_from_their_days() -> None:
    """The tests of dates above depend on it."""
    assert FRAME["timestamp"].dt.day().max() > 12  # type: ignore[operator]


UNREADABLE = {
    "an empty list": (b"[]", "JSON: an empty list"),
    "JSON of an error": (b'{"error": "not found", "code": 404}', """JSON of another shape"""),
    "JSON of columns": (b'{"open": {"0": 1.0}, "close": {"0": 1.0}}', '\'{"open": {"0"'),
    "JSON by columns without rows": (b'{"columns": ["t","o","h","l","c","v"], "data": [1,2]}', "another shape"),
    "JSON by columns with a null": (b'{"columns": ["t","o","h","l","c","v"], "data": [null]}', "another shape"),
    "JSON of lists in lists": (b"[[[1,2],[3,4]]]", "JSON of another shape"),
    "JSON cut off": (lists(ROWS)[:-7], "damaged, cut off"),
    "JSON with NaN": (b'[{"t":1,"o":1},{"t":1,"o":NaN}]', "JSON"),
    "rows of different lengths": (b"[[1704067200,1,1,1,1,1],[1704070800,1,1,1,1]]", "row 2: has 5 values instead of 6"),
    "a null in JSON": (b"[[1704067200,1,1,1,1,1],[1704070800,1,1,1,null,1]]", "row 2: close is empty"),
    "a web page": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "HTML page, probably an error page"),
    "XML": (b'<?xml version="1.0"?><a/>', "this is XML"),
    "a git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    "a zip of several files": (zipped({"a.csv": b"x", "b.csv": b"y"}), "2 files: a.csv, b.csv. CSV files are joined where"),
    "a zip of nothing": (zipped({}), "a zip without a file"),
    "a zip in a zip": (zipped({"a.zip": zipped({"a": b"x"})}), "an archive inside an archive"),
    "a damaged zip": (zipped({"a.csv": csv(ISO)})[:200], "damaged zip"),
    "Excel": (zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}), "Excel (xlsx); save the sheet as CSV"),
    "TorchScript": (zipped({"model/code/a.py": b"", "model/data.pkl": b"", "model/constants.pkl": b""}), "TorchScript"),
    "a checkpoint": (zipped({"archive/data.pkl": b"", "archive/data/0": b""}), "a torch checkpoint"),
    "npz": (zipped({"close.npy": b"", "open.npy": b""}), "NumPy arrays (npz)"),
    "npy": (b"\x93NUMPY\x01\x00v\x00", "a NumPy array (npy)"),
    "a pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00", "a Python pickle, which is never read"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 20, "an old Excel file (xls)"),
    "PDF": (b"%PDF-1.7\n", "a PDF"),
    "SQLite": (b"SQLite format 3\0" + b"\0" * 20, "an SQLite database"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "the first Feather": (b"FEA1" + b"\0" * 20, "Feather version 1"),
    "bzip2": (b"BZh91AY&SY", "bzip2 data; unpack it"),
    "a tar archive": (b"a.csv".ljust(257, b"\0") + b"ustar\x0000", "a tar archive"),
    "an Arrow file cut off": (arrow(FRAME)[:-30], "damaged Arrow file"),
    "an Arrow stream cut off": (arrow(FRAME, stream=True)[:300], "damaged Arrow stream"),
    "JSON in UTF-16": (lists(ROWS).decode().encode("utf-16"), "JSON in UTF-16; save it as UTF-8"),
    "a letter": (b"Dear Sir or Madam,\nplease find enclosed", "begins with 'Dear Sir or Madam,'"),
}  # fmt: skip
"""Bytes that hold no candles, and what the refusal calls them."""


@pytest.mark.parametrize(("data", "said"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_cannot_be_read_is_named_for_what_it_is(data: bytes, said: str) -> None:
    with pytest.raises(CandlesRefused) as refused:
        candles.read_bytes(data, "BTC.csv")
    assert said in str(refused.value)


def test_an_error_in_a_joined_file_names_that_file_and_its_line() -> None:
    files = months(csv)
    files["BTCUSDT-1h-2025-02.csv"] = (
        files["BTCUSDT-1h-2025-02.csv"].replace(b"\n", b"\nx", 2).replace(b"\nx", b"\n", 1)
    )
    with pytest.raises(CandlesRefused) as refused:
        candles.read_bytes(zipped(files), "BTC.zip")
    assert "BTC.zip, row 12: " in str(refused.value)
    assert "(line 3 of BTCUSDT-1h-2025-02.csv)" in str(refused.value)


JANUARY, FEBRUARY = csv(ROWS[:10]), csv(ROWS[10:])
NOT_JOINED = {
    "two coins": (
        {"BTC-2025-01.csv": JANUARY, "ETH-2025-02.csv": FEBRUARY},
        "names differ by their dates only",
    ),
    "two intervals": (
        {"BTC-1h-2025-01.csv": JANUARY, "BTC-4h-2025-02.csv": FEBRUARY},
        "names differ by their dates only",
    ),
    "one name twice": (
        {"BTC-2025-01.csv": JANUARY, "a/BTC-2025-01.csv": JANUARY},
        "names differ by their dates only",
    ),
    "other columns": (
        {"BTC-2025-01.csv": JANUARY, "BTC-2025-02.csv": FEBRUARY.replace(b"open", b"first")},
        "do not have the same first line",
    ),
    "one without a header": (
        {"BTC-2025-01.csv": JANUARY, "BTC-2025-02.csv": csv(ROWS[10:], header=False)},
        "do not have the same first line",
    ),
    "Parquet": (
        {"BTC-2025-01": parquet(ROWS[:10]), "BTC-2025-02": FEBRUARY},
        "is Parquet; only CSV files are joined",
    ),
    "an overlap": ({"BTC-2025-01.csv": JANUARY, "BTC-2025-02.csv": csv(ROWS[9:])}, "row 11: "),
}


@pytest.mark.parametrize(("files", "said"), NOT_JOINED.values(), ids=NOT_JOINED)
def test_files_of_a_zip_that_do_not_continue_each_other_are_refused(
    files: dict[str, bytes], said: str
) -> None:
    with pytest.raises(CandlesRefused) as refused:
        candles.read_bytes(zipped(files), "BTC.zip")
    assert said in str(refused.value)


def test_json_is_decoded_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "CHUNK_BYTES", 200)
    for data in (lists(ROWS), ROWS.write_json().encode(), ROWS.write_ndjson().encode()):
        assert candles.read_bytes(data, "a").equals(FRAME)
    with pytest.raises(CandlesRefused, match="row 31: close is empty"):
        candles.read_bytes(
            lists(ROWS.with_columns(pl.when(pl.int_range(pl.len()) != 30).then("close").alias("close"))), "a"
        )


def test_a_row_above_a_banner_is_not_skipped() -> None:
    data = csv(ROWS.head(1), header=False) + csv(ROWS.tail(39))
    with pytest.raises(CandlesRefused, match=r"row 2 \(line 2 of the file\)"):
        candles.read_bytes(data, "a.csv")


def test_a_line_is_counted_below_a_banner() -> None:
    rows = ISO.with_columns(
        pl.when(pl.int_range(pl.len()) == 6).then(pl.lit("x")).otherwise("close").alias("close")
    )
    with pytest.raises(
        CandlesRefused, match=r"a.csv, row 7 \(line 10 of the file\): close is 'x', not a number"
    ):
        candles.read_bytes(csv(rows, above="one\ntwo\n"), "a.csv")


class TestPositionalVolume:
    """OKX writes contracts and coins next to each other. Only traded rows tell which is the volume."""

    @staticmethod
    def write(contracts: float, volume: float, *, quiet: int, low: float = 9.9) -> bytes:
        """Swaps of OKX; nothing is traded in the first rows."""
        rows = []
        for hour in range(40):
            traded = 0 if hour < quiet else 1
            figures = (10.0, 10.2, low, 10.1, contracts * traded, volume * traded, volume * traded * 10.05, 1)
            rows.append([str(1_600_002_000_000 + hour * 3_600_000), *map(str, figures)])
        return lists(pl.DataFrame(rows, orient="row"))

    def test_rows_without_trades_do_not_count(self) -> None:
        found = read_file(self.write(100, 1, quiet=15), "okx.json")
        assert found.frame["volume"][-1] == 1

    def test_where_nothing_is_traded_a_header_is_asked_for(self) -> None:
        with pytest.raises(CandlesRefused, match="9 columns without names: write a header line"):
            read_file(self.write(100, 1, quiet=40), "okx.json")

    def test_rows_from_the_middle_tell_where_the_first_are_without_trades(self) -> None:
        assert read_file(self.write(100, 1, quiet=25), "okx.json").frame["volume"][-1] == 1

    def test_two_columns_that_may_be_the_volume_are_refused(self) -> None:
        with pytest.raises(
            CandlesRefused, match="more than one of them may be the volume: write a header line"
        ):
            read_file(self.write(2, 1, quiet=0, low=4.0), "okx.json")

    def test_contracts_of_one_coin_are_its_volume(self) -> None:
        assert read_file(self.write(1, 1, quiet=0), "okx.json").frame["volume"][-1] == 1


class TestRounding:
    """Open, high, low and close times one factor do not round alike."""

    TOP = FRAME.with_columns(pl.max_horizontal("open", "close").alias("high"))

    def with_close(self, share: float) -> pl.DataFrame:
        raised = pl.when(pl.int_range(pl.len()) == 5).then(pl.col("high") * (1 + share)).otherwise("close")
        return self.TOP.with_columns(raised.alias("close"))

    @pytest.mark.parametrize("ulps", [1, 4])
    def test_high_moves_to_a_close_that_is_above_it_by_a_rounding_error(self, ulps: int) -> None:
        frame = self.with_close(ulps * np.finfo(float).eps)
        found = read_file(csv(frame), "a.csv")
        assert found.frame["high"][5] == frame["close"][5] > frame["high"][5]
        assert "moved by a rounding error to enclose open and close in 1 row" in found.report.notes[-1]
        assert read_file(csv(found.frame), "a.csv").frame.equals(found.frame)
        assert candles.decode_canonical(candles.encode_canonical(found.frame)).equals(found.frame)

    def test_more_than_that_is_refused(self) -> None:
        with pytest.raises(CandlesRefused, match=r"row 6 .*close .* is outside"):
            candles.read_bytes(csv(self.with_close(2e-12)), "a.csv")


class TestRepeatedRows:
    """A row that repeats its neighbour value for value loses no candle when it is left out. That is done on request."""

    ONCE = Options(repeated_once=True)
    TWICE = ROWS[[*range(6), 5, *range(6, 20), 19, 19, *range(20, 40)]]

    def test_all_of_them_are_named_in_the_refusal(self) -> None:
        with pytest.raises(CandlesRefused) as refused:
            read_file(csv(self.TWICE), "a.csv")
        assert refused.value.row == 7
        assert "delete one of its rows, or say at the import" in refused.value.reason
        assert refused.value.reason.endswith("Rows that repeat their neighbour value for value: 7, 22, 23")

    @pytest.mark.parametrize(
        ("turn", "rows"), [(False, "7, 22, 23"), (True, "21, 22, 37")], ids=["in order", "newest first"]
    )
    def test_they_are_left_out_and_named_where_that_was_said(self, turn: bool, rows: str) -> None:
        found = read_file(csv(self.TWICE.reverse() if turn else self.TWICE), "a.csv", self.ONCE)
        assert found.frame.equals(FRAME)
        assert f"taken once: rows that repeat a candle, {rows}" in found.report.notes

    def test_a_later_error_names_its_own_row_of_the_file(self) -> None:
        broken = self.TWICE.with_columns(
            pl.when(pl.int_range(pl.len()) == 30).then(-1.0).otherwise("low").alias("low")
        )
        with pytest.raises(CandlesRefused, match=r"row 31 \(line 32 of the file\): low is -1.0"):
            read_file(csv(broken), "a.csv", self.ONCE)

    @pytest.mark.parametrize("options", [Options(), ONCE], ids=["nothing said", "taken once"])
    def test_two_candles_of_one_time_are_refused_whatever_was_said(self, options: Options) -> None:
        other = self.TWICE.with_columns(
            pl.when(pl.int_range(pl.len()) == 22).then(0.5).otherwise("volume").alias("volume")
        )
        with pytest.raises(CandlesRefused, match="is there twice: delete one of its rows"):
            read_file(csv(other), "a.csv", options)

    def test_many_of_them_are_counted(self) -> None:
        with pytest.raises(CandlesRefused, match=r"2, 4, 6, 8, 10, 12, 14, 16, 18, 20 and 30 more$"):
            read_file(csv(pl.concat([ROWS, ROWS]).sort("timestamp")), "a.csv")


FOLDER = os.environ.get("CRPBOT_CANDLES_DIR")
REAL = sorted(path for part in ("formats", "more") for path in (Path(FOLDER or "/nowhere") / part).glob("*"))


@pytest.mark.candles
@pytest.mark.parametrize("path", REAL, ids=[path.name for path in REAL])
def test_a_real_file_holds_the_candles_of_the_canonical_file(
    path: Path, real_candles: Callable[[str], pl.DataFrame]
) -> None:
    """`tradingview_iso.csv` states the hours of UTC with an offset of two hours, so its candles lie two hours before."""
    try:
        frame = candles.read(path)
    except CandlesRefused as refused:
        assert path.name in ("ts_closetime.csv", "CryptoDataDownload_Coinbase_BTC-1h.csv.gz")
        said = Options(
            closing_times="opening" in refused.reason, repeated_once="taken once" in refused.reason
        )
        assert said != Options()
        frame = read_file(path.read_bytes(), path.name, said).frame
    if path.parent.name == "more" or path.name in ("yfinance_daily.csv", "ts_closetime.csv"):
        assert frame.height > 2000
        return
    if path.name == "tradingview_iso.csv":
        frame = frame.with_columns(pl.col("timestamp").dt.offset_by("2h"))
    whole = real_candles("BTC")
    same = whole.filter(pl.col("timestamp").is_between(frame["timestamp"][0], frame["timestamp"][-1]))
    assert candles.compute_digest(frame) == candles.compute_digest(same)
