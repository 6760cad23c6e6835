"""The real series of a folder, at several intervals, cut into stretches."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from mlcore.data import candles
from mlcore.data.readers import Options, read_file

HOURS = (1, 2, 4, 12, 24)
LENGTHS = (1_000, 2_000)


def load_series(folder: Path) -> dict[str, pl.DataFrame]:
    """Hourly candles by name: COIN.csv.gz, and the files of more/, as freqtrade and CryptoDataDownload write them."""
    series = {
        f"Binance {path.name.removesuffix('.csv.gz')}": candles.read(path)
        for path in sorted(folder.glob("*.csv.gz"))
    }
    for path in sorted((folder / "more").glob("*.feather")):
        exchange, _, pair = path.name.partition("_")
        series[f"{exchange} {pair.split('-')[0]}"] = candles.read(path)
    for path in sorted((folder / "more").glob("CryptoDataDownload_*.csv.gz")):
        _, exchange, pair = path.name.removesuffix(".csv.gz").split("_")
        found = read_file(path.read_bytes(), path.name, Options(repeated_once=True))
        series[f"{exchange} {pair.split('-')[0]}"] = found.frame
    return series


def resample(frame: pl.DataFrame, hours: int) -> pl.DataFrame:
    """Candles of so many hours, from candles of one hour."""
    if hours == 1:
        return frame
    first, last = pl.col("open").first(), pl.col("close").last()
    return frame.group_by_dynamic("timestamp", every=f"{hours}h").agg(
        first, pl.col("high").max(), pl.col("low").min(), last, pl.col("volume").sum()
    )


def cut(frame: pl.DataFrame, bars: int) -> Iterator[pl.DataFrame]:
    """Stretches of so many bars, each beginning half a stretch after the one before."""
    for start in range(0, frame.height - bars + 1, bars // 2):
        yield frame[start : start + bars]


def list_stretches(series: Mapping[str, pl.DataFrame]) -> Iterator[tuple[str, int, int, pl.DataFrame]]:
    """(name, hours, bars, candles) of every stretch of every series."""
    for name, whole in series.items():
        for hours in HOURS:
            frame = resample(whole, hours)
            for bars in LENGTHS:
                for part in cut(frame, bars):
                    yield name, hours, bars, part
