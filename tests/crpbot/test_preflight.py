"""Which files of a folder the demo takes as candles."""

import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from crpbot.demo.errors import DemoFailed
from crpbot.demo.preflight import COINS, find_candle_files


def build_frame(hours: int = 1, rows: int = 30) -> pl.DataFrame:
    times = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=hours * row) for row in range(rows)]
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), [10.0] * rows)
    return pl.DataFrame({"timestamp": times, **prices})


def zipped(frame: pl.DataFrame) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("BTCUSDT-1h.csv", frame.write_csv())
    return packed.getvalue()


def feather(frame: pl.DataFrame) -> bytes:
    written = io.BytesIO()
    frame.write_ipc(written)
    return written.getvalue()


def parquet(frame: pl.DataFrame) -> bytes:
    written = io.BytesIO()
    frame.write_parquet(written)
    return written.getvalue()


def csv(frame: pl.DataFrame) -> bytes:
    return frame.write_csv().encode()


def fill(folder: Path, *names: str, data: bytes | None = None) -> None:
    for name in names:
        (folder / name).write_bytes(csv(build_frame()) if data is None else data)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("BTC.csv", csv),
        ("btc.parquet", parquet),
        ("BTC.feather", feather),
        ("BTC", csv),
        ("BTCUSDT-1h-2025.zip", zipped),
        ("Binance_BTC-1h.feather", feather),
        ("BTC-ETH.csv", csv),
    ],
)
def test_a_file_of_any_format_is_found_by_its_coin(
    name: str, write: Callable[[pl.DataFrame], bytes], tmp_path: Path
) -> None:
    fill(tmp_path, name, data=write(build_frame()))
    fill(tmp_path, "ETH.csv", "SOL.csv", ".BTC.csv.swp", "WBTC.csv", "readme.txt")
    found = find_candle_files(tmp_path)
    assert {coin: path.name for coin, path in found.items()} == {
        "BTC": name,
        "ETH": "ETH.csv",
        "SOL": "SOL.csv",
    }


def test_a_file_of_the_very_name_is_taken_before_others(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{coin}.csv" for coin in COINS), "BTCUSDT-1h-2024.csv", "BTC_old.csv")
    assert find_candle_files(tmp_path)["BTC"].name == "BTC.csv"


def test_several_files_of_one_coin_are_an_error_that_names_them(tmp_path: Path) -> None:
    fill(tmp_path, "BTC.csv", "BTC.json", "ETH.csv", "SOL.csv")
    with pytest.raises(
        DemoFailed, match=r"several files for BTC: BTC.csv, BTC.json. Leave one of them there."
    ):
        find_candle_files(tmp_path)


def test_a_coin_without_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    fill(tmp_path, "BTC.csv", "ETH-SOL.csv")
    with pytest.raises(DemoFailed, match="has no candles for SOL: it must hold BTC"):
        find_candle_files(tmp_path)


def test_files_of_different_bar_intervals_are_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "BTC.csv", "ETH.csv")
    fill(tmp_path, "SOL.csv", data=csv(build_frame(hours=4)))
    with pytest.raises(DemoFailed, match=r"BTC has bars of 1 hour, .* SOL has bars of 4 hours"):
        find_candle_files(tmp_path)
