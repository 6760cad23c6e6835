"""Candle files as exchanges, programs and libraries write them, all with the same candles."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, Literal

import polars as pl

from mlcore.data.simulate import simulate

FRAME = simulate("BTC", 300, 1.0, 1).tail(40)
"""Hourly candles across a midnight."""

ROWS = FRAME.with_columns(pl.col("timestamp").dt.epoch("ms"))
ISO = FRAME.with_columns(pl.col("timestamp").dt.to_string("%Y-%m-%d %H:%M:%S"))
MS_PER_HOUR = 3_600_000


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def parquet(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


def csv(
    frame: pl.DataFrame,
    *,
    header: bool = True,
    above: str = "",
    separator: str = ",",
    decimal_comma: bool = False,
) -> bytes:
    text = frame.write_csv(include_header=header, separator=separator, decimal_comma=decimal_comma)
    return (above + text).encode()


def scaled(factor: int) -> pl.DataFrame:
    """With epochs in a finer unit than milliseconds."""
    return ROWS.with_columns(pl.col("timestamp") * factor)


def seconds() -> pl.DataFrame:
    return ROWS.with_columns(pl.col("timestamp") // 1000)


def stamped(form: str, zone: str = "UTC") -> pl.DataFrame:
    local = pl.col("timestamp").dt.convert_time_zone(zone)
    return FRAME.with_columns(local.dt.to_string(form))


def binance(frame: pl.DataFrame, factor: int = 1) -> pl.DataFrame:
    return frame.with_columns(
        close_time=pl.col("timestamp") + MS_PER_HOUR * factor - 1,
        quote_volume=pl.col("volume") * pl.col("close"),
        count=pl.lit(500),
        taker_buy_volume=pl.col("volume") / 2,
        taker_buy_quote_volume=pl.col("volume"),
        ignore=pl.lit(0),
    )


def mixed_units() -> pl.DataFrame:
    half = FRAME.height // 2
    return pl.concat([binance(ROWS).head(half), binance(scaled(1000), 1000).tail(FRAME.height - half)])


def kraken(*, with_vwap: bool) -> bytes:
    vwap = {"vwap": (pl.col("high") + pl.col("low")) / 2} if with_vwap else {}
    names = ["timestamp", "open", "high", "low", "close", *vwap, "volume", "count"]
    return csv(seconds().with_columns(count=pl.lit(7), **vwap).select(names), header=False)


def cryptodatadownload(coin: str = "BTC", quote: str = "USDT") -> bytes:
    """Newest first, below a banner, with the volume in both currencies."""
    frame = ROWS.reverse().select(
        pl.col("timestamp").alias("unix"),
        pl.lit("2024-01-01 00:00:00").alias("date"),
        pl.lit(f"{coin}/{quote}").alias("symbol"),
        *("open", "high", "low", "close"),
        pl.col("volume").alias(f"Volume {coin}"),
        (pl.col("volume") * pl.col("close")).alias(f"Volume {quote}"),
    )
    return csv(frame, above="https://www.CryptoDataDownload.com\n")


def lists(frame: pl.DataFrame) -> bytes:
    return json.dumps([list(row) for row in frame.rows()]).encode()


def yfinance(*, has_three_header_lines: bool) -> bytes:
    frame = stamped("%Y-%m-%d %H:%M:%S+00:00")
    if not has_three_header_lines:
        names = ["Datetime", "Open", "High", "Low", "Close", "Volume"]
        renamed = frame.rename(dict(zip(frame.columns, names, strict=True)))
        return csv(renamed.with_columns(pl.col("Close").alias("Adj Close")))
    above = (
        "Price,Open,High,Low,Close,Volume\nTicker,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD\nDatetime,,,,,\n"
    )
    return csv(frame, header=False, above=above)


def priced_in_money() -> pl.DataFrame:
    """With the money that was traded, as exchanges add it."""
    return ROWS.with_columns(turnover=pl.col("volume") * (pl.col("high") + pl.col("low")) / 2)


def texts(frame: pl.DataFrame, *, names: Sequence[str] | None = None) -> list[list[str]]:
    """Newest first and in quotes, as most exchanges answer."""
    return [[str(value) for value in row] for row in frame.reverse().select(names or frame.columns).rows()]


def okx(*, in_contracts: bool) -> list[list[str]]:
    frame = priced_in_money().with_columns(
        contracts=pl.col("volume") * 100, quote=pl.col("turnover"), confirm=1
    )
    volumes = ["contracts", "volume"] if in_contracts else ["volume", "turnover"]
    return texts(frame, names=[*ROWS.columns[:5], *volumes, "quote", "confirm"])


def kucoin() -> list[list[str]]:
    order = ["timestamp", "open", "close", "high", "low", "volume", "turnover"]
    return texts(priced_in_money().with_columns(pl.col("timestamp") // 1000), names=order)


def gate() -> list[list[str]]:
    frame = priced_in_money().with_columns(pl.col("timestamp") // 1000, closed=pl.lit("true"))
    return texts(frame, names=["timestamp", "turnover", "close", "high", "low", "open", "volume", "closed"])[
        ::-1
    ]


def document(**members: object) -> bytes:
    return json.dumps(members).encode()


def pandas_json(orient: Literal["split", "index", "columns", "table"], *, has_index: bool) -> bytes:
    """Times as pandas writes them. Its numbers are written in full: its own have ten digits at most."""
    import pandas as pd  # most of those who want a format want another

    table = pd.DataFrame({name: FRAME[name].to_list() for name in FRAME.columns})
    table = table.set_index("timestamp") if has_index else table
    shape = json.loads(table.to_json(orient=orient, date_format="iso"))
    return json.dumps(_write_in_full(shape)).encode()


def _write_in_full(shape: Any) -> Any:
    exact = {round(value, 10): value for name in FRAME.columns[1:] for value in FRAME[name]}
    if isinstance(shape, dict):
        return {key: _write_in_full(value) for key, value in shape.items()}
    if isinstance(shape, list):
        return [_write_in_full(value) for value in shape]
    return exact[shape] if isinstance(shape, float) else shape


def arrow(
    frame: pl.DataFrame, *, stream: bool = False, compression: Literal["uncompressed", "lz4"] = "lz4"
) -> bytes:
    out = io.BytesIO()
    if stream:
        frame.write_ipc_stream(out)
    else:
        frame.write_ipc(out, compression=compression)
    return out.getvalue()


def in_zone(zone: str) -> pl.DataFrame:
    return FRAME.with_columns(pl.col("timestamp").dt.convert_time_zone(zone))


def freqtrade() -> pl.DataFrame:
    return FRAME.rename({"timestamp": "date"}).with_columns(pl.col("date").dt.cast_time_unit("ns"))


# What writes such a file: its bytes, and what the report says about it.
def months(write: Callable[[pl.DataFrame], bytes]) -> dict[str, bytes]:
    """These candles as three files, which a zip does not hold in their order."""
    parts = {"01": ROWS[:10], "02": ROWS[10:25], "03": ROWS[25:]}
    return {f"BTCUSDT-1h-2025-{month}.csv": write(parts[month]) for month in ("02", "01", "03")}


FORMATS: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "Binance, milliseconds": (lambda: csv(binance(ROWS), header=False), ("Binance", "no header", "epoch milliseconds")),
    "Binance, microseconds": (lambda: csv(binance(scaled(1000), 1000), header=False), ("Binance", "microseconds")),
    "Binance, both units": (lambda: csv(mixed_units(), header=False), ("milliseconds and microseconds",)),
    "Binance with a header": (
        lambda: csv(binance(ROWS).rename({"timestamp": "open_time"})),
        ("Binance", "ignored columns: close_time, quote_volume"),
    ),
    "Binance, zipped": (
        lambda: zipped({"BTCUSDT-1h.csv": csv(binance(ROWS), header=False)}),
        ("CSV in zip", "read BTCUSDT-1h.csv of the zip"),
    ),
    "Binance, a zip of months": (
        lambda: zipped(months(lambda frame: csv(binance(frame), header=False))),
        ("CSV in zip", "Binance", "joined 3 files of the zip: BTCUSDT-1h-2025-01.csv to BTCUSDT-1h-2025-03.csv"),
    ),
    "a zip of months with headers": (lambda: zipped(months(csv)), ("joined 3 files of the zip",)),
    "a zip from a Mac": (lambda: zipped({"a.csv": csv(ROWS), "__MACOSX/._a.csv": b"x"}), ("read a.csv",)),
    "Kraken's download": (lambda: kraken(with_vwap=False), ("Kraken", "ignored columns: count", "epoch seconds")),
    "Kraken's API": (lambda: kraken(with_vwap=True), ("Kraken", "ignored columns: vwap, count")),
    "CryptoDataDownload": (
        cryptodatadownload,
        ("CryptoDataDownload", "skipped above the header: https://www.Crypto", "Volume BTC", "the newest row was first"),
    ),
    "CryptoDataDownload of a coin in another": (
        lambda: cryptodatadownload("ETH", "BTC"),
        ("volume taken from Volume ETH",),
    ),
    "ccxt": (lambda: lists(ROWS), ("JSON", "ccxt and freqtrade")),
    "freqtrade, gzipped JSON": (lambda: gzip.compress(lists(ROWS)), ("JSON in gzip",)),
    "the API of Binance": (
        lambda: lists(binance(ROWS).with_columns(pl.col(pl.Float64).cast(pl.String))),
        ("JSON", "Binance", "ignored columns: close_time"),
    ),
    "JSON of objects": (lambda: ROWS.with_columns(x=1).write_json().encode(), ("ignored columns: x",)),
    "JSON lines of objects": (lambda: ROWS.write_ndjson().encode(), ("JSON", "named columns")),
    "JSON lines of rows": (lambda: b"\n".join(json.dumps(row).encode() for row in ROWS.rows()), ("JSON",)),
    "freqtrade, feather": (lambda: arrow(freqtrade()), ("Arrow file (feather)", "freqtrade")),
    "freqtrade, Parquet": (lambda: parquet(freqtrade()), ("Parquet", "freqtrade")),
    "an Arrow file without compression": (lambda: arrow(FRAME, compression="uncompressed"), ("Arrow file",)),
    "an Arrow stream": (lambda: arrow(FRAME, stream=True), ("Arrow stream",)),
    "an Arrow stream in gzip": (lambda: gzip.compress(arrow(FRAME, stream=True)), ("Arrow stream in gzip",)),
    "Arrow in a named zone": (lambda: arrow(in_zone("Europe/Berlin")), ("converted from Europe/Berlin to UTC",)),
    "Parquet in a named zone": (lambda: parquet(in_zone("America/New_York")), ("from America/New_York to UTC",)),
    "Parquet with the index of pandas": (
        lambda: parquet(FRAME.select(*FRAME.columns[1:], pl.col("timestamp").alias("__index_level_0__"))),
        ("pandas",),
    ),
    "feather with a counter and a named index": (
        lambda: arrow(FRAME.rename({"timestamp": "Zeit"}).with_row_index("index")),
        ("time taken from the column 'Zeit'", "ignored columns: index"),
    ),
    "Parquet with epochs as fractions": (
        lambda: parquet(seconds().with_columns(pl.col("timestamp").cast(pl.Float64))),
        ("epoch seconds",),
    ),
    "yfinance": (lambda: yfinance(has_three_header_lines=False), ("yfinance", "ignored columns: Adj Close")),
    "yfinance, a header of three lines": (
        lambda: yfinance(has_three_header_lines=True),
        ("skipped below the header: Ticker,BTC-USD",),
    ),
    "TradingView": (
        lambda: csv(seconds().rename({"timestamp": "time", "volume": "Volume"})),
        ("TradingView", "epoch seconds"),
    ),
    "TradingView in local time, with an indicator": (
        lambda: csv(
            stamped("%Y-%m-%dT%H:%M:%S%:z", "Asia/Tokyo")
            .rename({"timestamp": "time", "volume": "Volume"})
            .with_columns(pl.lit(None).alias("Volume MA"), pl.lit("NaN").alias("RSI"))
        ),
        ("TradingView", "converted to UTC by their offset", "ignored columns: Volume MA, RSI"),
    ),
    "pandas with a counter": (lambda: csv(ISO.rename({"timestamp": "date"}).with_row_index("")), ("pandas",)),
    "pandas with an index without a name": (lambda: csv(ISO.rename({"timestamp": ""})), ("pandas", "column ''")),
    "pandas with a named index": (lambda: csv(ISO.rename({"timestamp": "Zeit"})), ("the column 'Zeit'",)),
    "pandas without names": (
        lambda: b"0,1,2,3,4,5\n" + csv(ROWS, header=False),
        ("a header of numbers: columns taken by position",),
    ),
    "pandas without names, with a counter": (
        lambda: b",0,1,2,3,4,5\n" + csv(ROWS.with_row_index(), header=False),
        ("a header of numbers: columns taken by position",),
    ),
    "JSON lines with blank lines": (lambda: ROWS.write_ndjson().encode().replace(b"\n", b"\n\n"), ("JSON",)),
    "the API of HTX": (
        lambda: document(
            status="ok",
            data=json.loads(
                priced_in_money()
                .with_columns(pl.col("timestamp") // 1000)
                .rename({"timestamp": "id", "volume": "amount", "turnover": "vol"})
                .write_json()
            ),
        ),
        ("time taken from the column 'id'", "volume taken from amount"),
    ),
    "the API of Upbit": (
        lambda: ISO.rename(
            {
                "timestamp": "candle_date_time_utc",
                "open": "opening_price",
                "high": "high_price",
                "low": "low_price",
                "close": "trade_price",
                "volume": "candle_acc_trade_volume",
            }
        )
        .with_columns(market=pl.lit("KRW-BTC"), candle_date_time_kst=stamped("%F %T", "Asia/Seoul")["timestamp"])
        .write_json()
        .encode(),
        ("ignored columns: market, candle_date_time_kst",),
    ),
    "the API of Deribit": (
        lambda: document(
            result={
                **{name: FRAME[name].to_list() for name in ROWS.columns[1:]},
                "ticks": ROWS["timestamp"].to_list(),
                "status": "ok",
            }
        ),
        ("time taken from the column 'ticks'", "JSON"),
    ),
    "full names of months": (lambda: csv(stamped("%B %d, %Y %H:%M")), ("without a zone",)),
    "dates of e-mails": (lambda: csv(stamped("%a, %d %b %Y %H:%M:%S GMT")), ("CSV",)),
    "dates of JavaScript": (lambda: csv(stamped("%a %b %d %Y %H:%M:%S GMT+0000")), ("named columns",)),
    "a zip with what macOS adds": (lambda: zipped({"a.csv": csv(ROWS), ".DS_Store": b"x"}), ("read a.csv",)),
    "yfinance, an older header of three lines": (
        lambda: csv(
            stamped("%Y-%m-%d %H:%M:%S+00:00"),
            header=False,
            above=",Open,High,Low,Close,Volume\n,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD\nDate,,,,,\n",
        ),
        ("skipped below the header: ,BTC-USD",),
    ),
    "newest first": (lambda: csv(ISO.reverse()), ("the newest row was first",)),
    "semicolons and decimal commas": (
        lambda: csv(ISO, separator=";", decimal_comma=True),
        ("columns separated by semicolons", "decimal commas read as points"),
    ),
    "decimal commas in quotes": (lambda: csv(ISO, decimal_comma=True), ("decimal commas read as points",)),
    "tabs": (lambda: csv(ISO, separator="\t"), ("columns separated by tabs",)),
    "bars": (lambda: csv(ISO, separator="|"), ("columns separated by bars",)),
    "further columns": (lambda: csv(seconds().with_columns(trades=1, note=pl.lit("x"))), ("ignored columns: trades, note",)),
    "short names": (lambda: csv(ROWS.rename({n: n[0] for n in ROWS.columns})), ("epoch milliseconds",)),
    "nanoseconds": (lambda: csv(scaled(1_000_000)), ("epoch nanoseconds",)),
    "fractions of seconds": (
        lambda: csv(seconds().with_columns(pl.col("timestamp").cast(pl.Float64))),
        ("epoch seconds",),
    ),
    "a zone by name": (
        lambda: csv(stamped("%Y-%m-%d %H:%M Europe/Berlin", "Europe/Berlin")),
        ("converted from Europe/Berlin to UTC",),
    ),
    "day first": (lambda: csv(stamped("%d/%m/%Y %H:%M")), ("day, month, year",)),
    "month first, twelve hours": (lambda: csv(stamped("%m/%d/%Y %I:%M:%S %p")), ("month, day, year",)),
    "CryptoDataDownload's hours": (lambda: csv(stamped("%Y-%m-%d %I-%p")), ("without a zone",)),
    "names of months": (lambda: csv(stamped("%d %b %Y %H:%M")), ("without a zone",)),
    "dates with points": (lambda: csv(stamped("%d.%m.%Y %H:%M:%S.000")), ("day, month, year",)),
    "old Mac line ends": (lambda: csv(ISO).replace(b"\n", b"\r"), ("old Mac line ends",)),
    "UTF-16": (lambda: csv(ISO).decode().encode("utf-16"), ("UTF-16",)),
    "a byte order mark": (lambda: b"\xef\xbb\xbf" + csv(ISO), ("without a zone",)),
    "a spreadsheet's semicolons": (
        lambda: b"\xef\xbb\xbfsep=;\r\n"
        + csv(stamped("%d.%m.%Y %H:%M"), separator=";", decimal_comma=True).replace(b"\n", b"\r\n")
        + b";;;;;\r\n;;;;;\r\n",
        ("skipped above the header: sep=;", "skipped below the rows: ;;;;;; ;;;;;", "day, month, year"),
    ),
    "remarks above and below": (
        lambda: b"# BTC, hourly\n" + csv(ROWS) + b"# 40 rows\n",
        ("skipped above the header: # BTC, hourly", "skipped below the rows: # 40 rows"),
    ),
    "numbers in quotes": (lambda: ROWS.write_csv(quote_style="always").encode(), ("epoch milliseconds",)),
    "epochs with an exponent": (
        lambda: csv(seconds().with_columns(pl.format("{}E9", pl.col("timestamp") / 1e9).alias("timestamp"))),
        ("epoch seconds",),
    ),
    "prices with their unit": (
        lambda: csv(ROWS.rename({name: f"{name} (USDT)" for name in ("open", "high", "low", "close")})),
        ("epoch milliseconds",),
    ),
    "times without marks": (lambda: csv(stamped("%Y%m%dT%H%M%SZ")), ("named columns",)),
    "Dukascopy in local time": (
        lambda: csv(stamped("%d.%m.%Y %H:%M:%S.000 GMT%z", "Asia/Tokyo")),
        ("converted to UTC by their offset",),
    ),
    "Bitfinex": (
        lambda: lists(ROWS.reverse().select("timestamp", "open", "close", "high", "low", "volume")),
        ("Bitfinex", "columns taken as timestamp, open, close, high, low, volume", "the newest row was first"),
    ),
    "Coinbase": (
        lambda: lists(seconds().reverse().select("timestamp", "low", "high", "open", "close", "volume")),
        ("Coinbase", "columns taken as timestamp, low, high, open, close, volume"),
    ),
    "Gate.io's files": (
        lambda: csv(seconds().select("timestamp", "volume", "close", "high", "low", "open"), header=False),
        ("Gate.io", "columns taken as timestamp, volume, close, high, low, open"),
    ),
    "the API of Gate.io": (lambda: json.dumps(gate()).encode(), ("Gate.io", "ignored columns: quote_volume, is_closed")),
    "the API of OKX": (
        lambda: document(code="0", msg="", data=okx(in_contracts=False)),
        ("OKX", "rows taken from 'data'", "ignored columns: volCcy, volCcyQuote, confirm"),
    ),
    "the API of OKX, a swap": (
        lambda: document(code="0", msg="", data=okx(in_contracts=True)),
        ("OKX", "ignored columns: contracts, volCcyQuote, confirm"),
    ),
    "the API of Bybit": (
        lambda: document(retCode=0, result={"symbol": "BTCUSDT", "list": texts(priced_in_money())}, time=1),
        ("Bybit", "rows taken from 'result.list'", "ignored columns: turnover"),
    ),
    "the API of KuCoin": (
        lambda: document(code="200000", data=kucoin()),
        ("KuCoin", "columns taken as timestamp, open, close"),
    ),
    "the API of Bitstamp": (
        lambda: document(data={"ohlc": json.loads(ROWS.write_json()), "pair": "BTC/USD"}),
        ("rows taken from 'data.ohlc'",),
    ),
    "the API of Hyperliquid": (
        lambda: ROWS.rename({n: n[0] for n in ROWS.columns})
        .with_columns(T=pl.col("t") + MS_PER_HOUR - 1, s=pl.lit("BTC"), n=pl.lit(7))
        .write_json()
        .encode(),
        ("ignored columns: T, s, n",),
    ),
    "a chart's JSON": (
        lambda: document(s="ok", **{name[0]: seconds()[name].to_list() for name in ROWS.columns}),
        ("JSON by columns read as rows", "epoch seconds"),
    ),
    "pandas, JSON split": (lambda: pandas_json("split", has_index=True), ("JSON by columns read as rows",)),
    "pandas, JSON split, with a counter": (lambda: pandas_json("split", has_index=False), ("JSON by columns",)),
    "pandas, JSON by index": (lambda: pandas_json("index", has_index=True), ("JSON by columns read as rows",)),
    "pandas, JSON by columns": (lambda: pandas_json("columns", has_index=True), ("JSON by columns read as rows",)),
    "pandas, JSON as a table": (lambda: pandas_json("table", has_index=False), ("rows taken from 'data'",)),
    "Binance with its checksum": (
        lambda: zipped({"BTC-1h.csv": csv(ROWS), "BTC-1h.csv.CHECKSUM": b"00  BTC-1h.csv\n"}),
        ("read BTC-1h.csv of the zip",),
    ),
    "Parquet of nanoseconds in a zone": (
        lambda: parquet(in_zone("Asia/Kolkata").with_columns(pl.col("timestamp").dt.cast_time_unit("ns"))),
        ("converted from Asia/Kolkata to UTC",),
    ),
    "Arrow with a dictionary of texts": (
        lambda: arrow(ISO.with_columns(pl.col("timestamp").cast(pl.Categorical))),
        ("times without a zone taken as UTC",),
    ),
    "one coin's name on each row of Parquet": (
        lambda: parquet(ROWS.with_columns(symbol=pl.lit("BTC/USD"))),
        ("the rows name the coin 'BTC/USD'",),
    ),
    "one coin's name on each row": (
        lambda: csv(ROWS.with_columns(symbol=pl.Series(["BTC/USD", "BTC-USD"] * (ROWS.height // 2)))),
        ("ignored columns: symbol",),
    ),
    "one coin's name on some rows": (
        lambda: parquet(ROWS.with_columns(symbol=pl.Series([None, "BTC/USD"] * (ROWS.height // 2)))),
        ("ignored columns: symbol",),
    ),
}  # fmt: skip
