"""Names and figures tell which column is the time, in which zone, and which one is the volume of the coin."""

import json

import numpy as np
import polars as pl
import pytest

from mlcore.data.readers import Options, read_file
from mlcore.data.simulate import simulate
from mlcore.data.tables.names import find_asset, find_zone, is_closing, is_opening, simplify_name
from mlcore.errors import CandlesRefused
from tests.mlcore.candle_formats import (
    FRAME,
    ISO,
    MS_PER_HOUR,
    ROWS,
    csv,
    lists,
    parquet,
    priced_in_money,
    seconds,
    stamped,
)

MONEY = priced_in_money()
CONTRACTS = MONEY.with_columns(contracts=pl.col("volume") * 100)
INVERSE = MONEY.with_columns(contracts=(pl.col("turnover") / 100))


def refusal(data: bytes) -> str:
    with pytest.raises(CandlesRefused) as refused:
        read_file(data, "a.csv")
    return str(refused.value)


def renamed(frame: pl.DataFrame, **names: str) -> bytes:
    return csv(frame.rename(names))


PROVEN = {
    "HTX": (renamed(MONEY, volume="amount", turnover="vol"), "volume taken from amount"),
    "Poloniex": (renamed(MONEY, volume="quoteVolume", turnover="volume"), "volume taken from quoteVolume"),
    "money called volume, in Parquet": (
        parquet(MONEY.rename({"volume": "quantity", "turnover": "volume"})),
        "volume taken from quantity",
    ),
    "money called volume, in JSON": (
        MONEY.rename({"volume": "base_volume", "turnover": "volume"}).write_json().encode(),
        "volume taken from base_volume",
    ),
    "money called volume, with decimal commas": (
        csv(MONEY.rename({"volume": "quantity", "turnover": "volume"}), separator=";", decimal_comma=True),
        "volume taken from quantity",
    ),
    "contracts of OKX beside coins and money": (
        renamed(CONTRACTS, contracts="vol", volume="volCcy", turnover="volCcyQuote"),
        "volume taken from volCcy",
    ),
    "contracts of 100 dollars beside coins": (
        renamed(INVERSE.drop("turnover"), contracts="volume", volume="quote_volume"),
        "volume taken from quote_volume",
    ),
}
"""Another column than the one of that name counts the coins of these candles, and the figures show it."""


@pytest.mark.parametrize(("data", "said"), PROVEN.values(), ids=PROVEN)
def test_the_volume_in_coins_is_found_by_its_figures(data: bytes, said: str) -> None:
    found = read_file(data, "a")
    assert found.frame.equals(FRAME)
    assert any(note.startswith(said) and "as its figures show" in note for note in found.report.notes)


def test_the_volume_is_found_where_the_first_rows_are_without_trades() -> None:
    traded = pl.when(pl.int_range(pl.len()) < 25).then(0.0)
    frame = MONEY.with_columns(traded.otherwise(name).alias(name) for name in ("volume", "turnover"))
    named = frame.rename({"volume": "amount", "turnover": "vol"})
    for data in (csv(named), parquet(named), named.write_json().encode()):
        assert read_file(data, "a").frame["volume"].equals(frame["volume"])


KEPT = {
    "a constant says nothing": ROWS.with_columns(quote_volume=1),
    "money proves the volume": MONEY.rename({"turnover": "quote_volume"}),
    "a share of the buyers is no money": ROWS.with_columns(
        taker_buy_volume=pl.col("volume") / pl.col("close")
    ),
    "another figure says nothing": ROWS.with_columns(amount=pl.int_range(pl.len()) + 1),
}


@pytest.mark.parametrize("frame", KEPT.values(), ids=KEPT)
def test_the_volume_stays_where_figures_do_not_contradict_its_name(frame: pl.DataFrame) -> None:
    assert read_file(csv(frame), "a").frame.equals(FRAME)


NO_COINS = {
    "contracts with money alone": renamed(CONTRACTS.drop("volume"), contracts="volume"),
    "Gate.io's contracts": renamed(CONTRACTS.drop("volume"), contracts="v", turnover="sum"),
    "money with two columns that may be coins": renamed(
        MONEY.with_columns(size=pl.col("volume")), turnover="volume", volume="amount"
    ),
}


@pytest.mark.parametrize("data", NO_COINS.values(), ids=NO_COINS)
def test_a_volume_that_counts_something_else_is_refused(data: bytes) -> None:
    assert "counts money or contracts, not coins" in refusal(data)


def test_a_volume_of_contracts_without_names_is_taken_in_coins() -> None:
    """Binance writes its contracts of 100 dollars in the columns of its coins."""
    frame = INVERSE.select(
        "timestamp", "open", "high", "low", "close", "contracts",
        (pl.col("timestamp") + MS_PER_HOUR - 1).alias("closes"), "volume",
        pl.lit(5).alias("count"), pl.lit(1).alias("a"), pl.lit(1).alias("b"), pl.lit(0).alias("c"),
    )  # fmt: skip
    assert read_file(csv(frame, header=False), "a").frame.equals(FRAME)


@pytest.mark.parametrize(
    "name",
    ["volume_24h", "Volume MA", "volume_sma20", "vol_20", "Vol %", "Volume $", "volume_buy", "volume ratio", "Volume USD",
     "Volume (thousands)"],
)  # fmt: skip
def test_a_figure_about_the_volume_is_no_volume(name: str) -> None:
    said = refusal(renamed(ISO, volume=name))
    assert "without the column volume" in said or "counts money" in said


@pytest.mark.parametrize(
    ("name", "asset"),
    [("Volume BTC", "btc"), ("vol_1inch", "1inch"), ("Volume (ETH)", "eth"), ("Volume EMA9", "")],
)
def test_a_volume_names_its_coin(name: str, asset: str) -> None:
    assert find_asset(name) == asset


class TestWithoutNames:
    """Eight columns without trades in their first rows: nothing tells a mean price from a volume."""

    @staticmethod
    def write(*, quiet: int, last: str) -> bytes:
        traded = pl.when(pl.int_range(pl.len()) < quiet).then(0.0)
        frame = MONEY.with_columns(
            traded.otherwise("volume").alias("volume"), traded.otherwise("turnover").alias("turnover")
        )
        third = pl.col("timestamp") + MS_PER_HOUR if last == "MEXC" else pl.col("turnover")
        order = (third.alias("third"), pl.col("turnover"))
        return lists(frame.select("timestamp", "open", "high", "low", "close", "volume", *order))

    @pytest.mark.parametrize("quiet", [0, 25], ids=["from the first on", "in the middle"])
    @pytest.mark.parametrize("writer", ["MEXC", "Bitget"])
    def test_traded_rows_tell_the_writer(self, writer: str, quiet: int) -> None:
        found = read_file(self.write(quiet=quiet, last=writer), "a")
        assert found.frame["volume"][quiet:].equals(FRAME["volume"][quiet:])
        assert found.report.layout == writer

    @pytest.mark.parametrize("writer", ["MEXC", "Bitget"])
    def test_rows_without_trades_do_not(self, writer: str) -> None:
        assert "8 columns without names: write a header line" in refusal(self.write(quiet=40, last=writer))


EXCHANGED = {
    "under a header": csv(ROWS.rename({"open": "close", "close": "open"})),
    "without names": csv(ROWS.select("timestamp", "close", "high", "low", "open", "volume"), header=False),
    "newest first": lists(ROWS.reverse().select("timestamp", "close", "high", "low", "open", "volume")),
}


@pytest.mark.parametrize("data", EXCHANGED.values(), ids=EXCHANGED)
def test_open_and_close_in_each_others_place_are_refused(data: bytes) -> None:
    assert "open and close are exchanged" in refusal(data)


OPENING = [
    "openTimestamp",
    "open_timestamp",
    "kline_start_time",
    "window_start",
    "startedAt",
    "start_at",
    "Open Time (ms)",
]
CLOSING = [
    "closeTimestamp",
    "bar_end",
    "candle_end",
    "close_timestamp",
    "Close Time",
    "endTime",
    "period_end_ms",
]


class TestTwoTimes:
    """A bar's opening time stands beside its closing time, and beside one whose name says nothing."""

    CLOSES = ROWS.with_columns(pl.col("timestamp") + MS_PER_HOUR)

    @pytest.mark.parametrize("name", OPENING)
    def test_the_opening_time_is_taken(self, name: str) -> None:
        assert is_opening(simplify_name(name)) or simplify_name(name) == "opentime"
        assert read_file(csv(self.CLOSES.with_columns(ROWS["timestamp"].alias(name))), "a").frame.equals(
            FRAME
        )

    @pytest.mark.parametrize("name", CLOSING)
    def test_a_closing_time_is_refused_and_converted_on_request(self, name: str) -> None:
        assert is_closing(simplify_name(name))
        data = renamed(self.CLOSES, timestamp=name)
        assert "only of closing times" in refusal(data)
        assert read_file(data, "a", Options(closing_times=True)).frame.equals(FRAME)

    def test_a_time_that_repeats_the_closing_time_is_one(self) -> None:
        data = csv(self.CLOSES.with_columns(pl.col("timestamp").alias("close_time")))
        assert "only of closing times" in refusal(data)
        assert read_file(data, "a", Options(closing_times=True)).frame.equals(FRAME)

    def test_a_time_that_says_the_closing_time_in_another_form_is_one(self) -> None:
        ends = self.CLOSES.with_columns(pl.col("timestamp") - 1).select(
            pl.from_epoch("timestamp", "ms").dt.to_string("%Y-%m-%d %H:%M:%S%.3f").alias("end_time")
        )
        data = csv(pl.concat([self.CLOSES, ends], how="horizontal"))
        assert "only of closing times" in refusal(data)
        assert read_file(data, "a", Options(closing_times=True)).frame.equals(FRAME)

    def test_bitmex_writes_closing_times_and_counts_dollars(self) -> None:
        columns = {"volume": "homeNotional", "turnover": "foreignNotional"}
        frame = (
            self.CLOSES.with_columns(MONEY["turnover"])
            .rename(columns)
            .with_columns(volume=pl.col("foreignNotional").round(), lastSize=10)
        )
        assert "only of closing times" in refusal(csv(frame))
        assert read_file(csv(frame), "a", Options(closing_times=True)).frame.equals(FRAME)

    @pytest.mark.parametrize("name", ["time", "date", "datetime", "t"])
    def test_a_capital_t_beside_another_time_is_the_closing_time(self, name: str) -> None:
        frame = self.CLOSES.rename({"timestamp": "T"}).with_columns(ROWS["timestamp"].alias(name))
        assert read_file(csv(frame), "a").frame.equals(FRAME)

    def test_a_capital_t_alone_is_the_closing_time_beside_words(self) -> None:
        data = renamed(self.CLOSES, timestamp="T")
        assert "only of closing times" in refusal(data)
        assert read_file(data, "a", Options(closing_times=True)).frame.equals(FRAME)
        assert read_file(
            csv(ROWS.rename({name: name[0].upper() for name in ROWS.columns})), "a"
        ).frame.equals(FRAME)

    def test_closing_times_may_end_with_the_last_microsecond(self) -> None:
        ends = FRAME.with_columns(
            pl.col("timestamp").dt.cast_time_unit("us") + pl.duration(microseconds=3_599_999_999)
        )
        written = ends.with_columns(pl.col("timestamp").dt.to_string("%Y-%m-%dT%H:%M:%S.%6fZ"))
        for data in (parquet(ends), csv(written)):
            assert "the times are closing times" in refusal(data)
            assert read_file(data, "a", Options(closing_times=True)).frame.equals(FRAME)

    @pytest.mark.parametrize("name", ["close", "closed", "c", "open", "o", "opened"])
    def test_a_price_or_a_flag_is_no_time(self, name: str) -> None:
        assert not is_opening(name)
        assert not is_closing(name)


class TestMixedIntervals:
    """A file has bars of one interval. Gaps do not repeat with one length, and bars of another interval do."""

    HOURS = simulate("BTC", 4000, 1.0, 1)
    BARS_OF_FOUR = HOURS.group_by_dynamic("timestamp", every="4h").agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )[1:-1]

    def test_longer_bars_after_short_ones_are_refused_with_their_row(self) -> None:
        until = self.BARS_OF_FOUR["timestamp"][50]
        mixed = pl.concat([self.HOURS.filter(pl.col("timestamp") < until), self.BARS_OF_FOUR[50:150]])
        row = mixed.filter(pl.col("timestamp") <= until).height
        with pytest.raises(
            CandlesRefused, match="99 bars from here on are 14,400 s apart, and most others 3,600 s"
        ) as refused:
            read_file(parquet(mixed), "a")
        assert refused.value.row == row

    def test_short_bars_after_longer_ones_are_refused(self) -> None:
        mixed = pl.concat(
            [
                self.BARS_OF_FOUR[:400],
                self.HOURS.filter(pl.col("timestamp") >= self.BARS_OF_FOUR["timestamp"][400])[:100],
            ]
        )
        assert "are 3,600 s apart, and most others 14,400 s" in refusal(parquet(mixed))

    def test_bars_that_are_missing_here_and_there_are_gaps(self) -> None:
        kept = np.random.default_rng(1).random(4000) < 0.6
        thin = self.HOURS.filter(pl.Series(kept))
        assert read_file(parquet(thin), "a").frame.equals(thin)


class TestZones:
    """Times without an offset are UTC, unless the file says otherwise: then they are refused, and not shifted."""

    @pytest.mark.parametrize(
        ("name", "zone"),
        [
            ("Date (EST)", "EST"), ("time_est", "est"), ("Datetime (Europe/Berlin)", "Europe/Berlin"),
            ("Time (UTC+8)", "UTC+8"), ("datetimeKST", "KST"), ("Eastern Time", "Eastern"), ("Local time", "Local"),
        ],
    )  # fmt: skip
    def test_a_zone_in_the_name_of_the_column(self, name: str, zone: str) -> None:
        assert find_zone(name) == zone
        assert f"the times are of the zone {zone!r}" in refusal(renamed(ISO, timestamp=name))

    @pytest.mark.parametrize(
        "name", ["Date (UTC)", "time_utc", "Time (GMT)", "Timestamp (UTC+0)", "Date/Time", "timestamp"]
    )
    def test_utc_and_other_words_are_no_zone(self, name: str) -> None:
        assert read_file(renamed(ISO, timestamp=name), "a").frame.equals(FRAME)

    @pytest.mark.parametrize(
        ("column", "zone"), [("timezone", "America/New_York"), ("utc_offset", "+02:00"), ("tz", "EST")]
    )
    def test_a_column_of_zones(self, column: str, zone: str) -> None:
        assert f"zone {zone!r}" in refusal(csv(ISO.with_columns(pl.lit(zone).alias(column))))
        assert read_file(csv(ISO.with_columns(pl.lit("UTC").alias(column))), "a").frame.equals(FRAME)

    def test_a_zone_beside_the_rows_of_json(self) -> None:
        series = {row["timestamp"]: {name: row[name] for name in ISO.columns[1:]} for row in ISO.to_dicts()}
        document = {"Meta Data": {"7. Time Zone": "US/Eastern"}, "Time Series (60min)": series}
        assert "zone 'US/Eastern'" in refusal(json.dumps(document).encode())
        document["Meta Data"] = {"7. Time Zone": "UTC"}
        assert read_file(json.dumps(document).encode(), "a").frame.equals(FRAME)

    def test_an_offset_or_an_epoch_says_more_than_a_name(self) -> None:
        offset = stamped("%d.%m.%Y %H:%M:%S.000 GMT%z", "Europe/Berlin").rename({"timestamp": "Local time"})
        for frame in (offset, ROWS.rename({"timestamp": "time (EST)"})):
            assert read_file(csv(frame), "a").frame.equals(FRAME)


TWO_COLUMNS = {
    "a clock": ("Time", "%Y-%m-%d", "%H:%M"),
    "Stooq": ("<TIME>", "%Y%m%d", "%H%M%S"),
    "a number of hours": ("hour", "%d.%m.%Y", "%H"),
}


@pytest.mark.parametrize(("name", "day", "clock"), TWO_COLUMNS.values(), ids=TWO_COLUMNS)
def test_day_and_time_of_day_in_two_columns_are_refused(name: str, day: str, clock: str) -> None:
    """Their zone is never said: MetaTrader writes that of its server, other programs that of their exchange."""
    data = csv(
        stamped(day).with_columns(stamped(clock)["timestamp"].alias(name)).rename({"timestamp": "<DATE>"})
    )
    assert "day and time of day are in two columns; write them in one, in UTC" in refusal(data)


def test_times_of_metatraders_server_are_refused() -> None:
    frame = (
        stamped("%Y.%m.%d %H:%M")
        .rename({"timestamp": "<DATE>", "volume": "<VOL>"})
        .with_columns(pl.lit(5).alias("<TICKVOL>"))
    )
    assert 'zone "of MetaTrader\'s server"' in refusal(csv(frame, separator="\t"))


GROUPED = {
    "English": (",", ".", ","),
    "German": (".", ",", ";"),
}


@pytest.mark.parametrize(("thousands", "decimal", "separator"), GROUPED.values(), ids=GROUPED)
def test_separators_of_thousands_are_read_where_a_decimal_mark_follows(
    thousands: str, decimal: str, separator: str
) -> None:
    whole = FRAME.with_columns(pl.col(name).round(2) * 1000 for name in ("open", "high", "low", "close"))
    marks = str.maketrans({",": thousands, ".": decimal})
    written = whole.with_columns(
        pl.Series(name, [f"{value:,.2f}".translate(marks) for value in whole[name]])
        for name in ("open", "high", "low", "close")
    ).with_columns(
        pl.Series("volume", [f"{value:.17g}".translate(marks) for value in whole["volume"]]), ISO["timestamp"]
    )
    found = read_file(csv(written, separator=separator), "a")
    assert np.abs(found.frame["open"].to_numpy() - whole["open"].to_numpy()).max() < 0.01
    assert found.frame["volume"].equals(whole["volume"])
    assert any("read as separators of thousands" in note for note in found.report.notes)
    misplaced = written.with_columns(close=pl.lit("1,2,3.4".translate(marks)))
    assert "row 1 (line 2 of the file): close is" in refusal(csv(misplaced, separator=separator))


@pytest.mark.parametrize("form", ["%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S"])
def test_a_day_and_a_time_of_day_in_one_number_are_no_epoch(form: str) -> None:
    """As milliseconds, 202009201300 would lie in 1976, and days would be ten seconds apart."""
    written = stamped(form)
    for data in (csv(written), parquet(written.with_columns(pl.col("timestamp").cast(pl.Int64)))):
        assert read_file(data, "a").frame.equals(FRAME)


def test_points_that_may_separate_thousands_are_refused() -> None:
    rows = "".join(f"2024-01-01 {hour:02}:00;1.050;1.100;1.000;1.050;{hour}\n" for hour in range(24))
    assert "'1.050' may have a decimal point or a separator of thousands" in refusal(
        b"time;open;high;low;close;volume\n" + rows.encode()
    )
    assert read_file(csv(ISO, separator=";"), "a").frame.equals(FRAME)


@pytest.mark.parametrize("column", ["coin", "asset", "product_id", "Currency_Pair", "base"])
def test_two_coins_one_after_the_other_are_refused(column: str) -> None:
    coins = pl.Series(column, ["BTC"] * 20 + ["ETH"] * 20)
    assert "is of 'ETH', not of 'BTC' as row 1" in refusal(csv(ISO.with_columns(coins)))
    assert read_file(csv(ISO.with_columns(pl.Series(column, range(40)))), "a").frame.equals(FRAME)


@pytest.mark.parametrize("name", ["timestamp_ms", "Timestamp (ms)", "ts_ms", "id", "ticks"])
def test_an_epoch_is_found_under_its_usual_names(name: str) -> None:
    assert read_file(renamed(seconds() if name == "id" else ROWS, timestamp=name), "a").frame.equals(FRAME)


@pytest.mark.parametrize("kind", [pl.Int8, pl.Int16, pl.UInt8, pl.UInt16])
def test_whole_numbers_of_few_bits_are_counters(kind: type[pl.DataType]) -> None:
    counter = pl.int_range(pl.len(), dtype=pl.Int64).cast(kind)
    assert "timestamp is 0, not a time" in refusal(parquet(ROWS.with_columns(timestamp=counter)))


def test_epochs_of_a_database_are_decimals() -> None:
    frame = ROWS.with_columns(pl.col("timestamp").cast(pl.Decimal(20, 3)))
    assert read_file(parquet(frame), "a").frame.equals(FRAME)


ZONES = {
    "hours behind GMT": stamped("%Y-%m-%d %H:%M:%S GMT+8", "Asia/Shanghai"),
    "hours behind UTC": stamped("%Y-%m-%d %H:%M:%S UTC-5", "Etc/GMT+5"),
    "a comma before the fraction": stamped("%Y-%m-%d %H:%M:%S,000"),
    "small letters": stamped("%Y-%m-%dt%H:%M:%Sz"),
}


@pytest.mark.parametrize("frame", ZONES.values(), ids=ZONES)
def test_times_are_read_as_programs_write_them(frame: pl.DataFrame) -> None:
    assert read_file(csv(frame, separator=";"), "a").frame.equals(FRAME)


def test_times_with_and_without_a_zone_in_one_file_are_refused() -> None:
    offset = stamped("%Y-%m-%d %H:%M:%S%:z", "Europe/Berlin")
    for first, second, says in ((ISO, offset, "a zone"), (offset, ISO, "no zone")):
        said = refusal(csv(pl.concat([first[:20], second[20:]])))
        assert f"has {says}, unlike the rows before" in said
        assert "row 21" in said


OTHER_EPOCHS = {
    "hundredths of seconds": pl.col("timestamp") // 10,
    "since 2001, as Apple counts": pl.col("timestamp") // 1000 - 978_307_200,
    "since 1601, as Windows counts": (pl.col("timestamp") + 11_644_473_600_000) * 10_000,
    "since the year 1, as .NET counts": (pl.col("timestamp") + 62_135_596_800_000) * 10_000,
}


@pytest.mark.parametrize("epoch", OTHER_EPOCHS.values(), ids=OTHER_EPOCHS)
def test_counts_that_would_lie_before_the_first_coin_are_refused(epoch: pl.Expr) -> None:
    said = refusal(csv(ROWS.with_columns(epoch.alias("timestamp"))))
    assert "row 1 " in said
    assert "a time before there were coins, read as" in said


def test_money_in_whole_numbers_is_not_taken_for_a_count_of_trades() -> None:
    """A market in won: seven columns of KuCoin look like those of Kraken, whose order makes no candles of them."""
    won = FRAME.with_columns((pl.col(name) * 1000).round() for name in ("open", "high", "low", "close"))
    money = (won["volume"] * won["close"]).round().cast(pl.Int64).alias("turnover")
    rows = won.with_columns(money, ROWS["timestamp"])
    data = csv(rows.select("timestamp", "open", "close", "high", "low", "volume", "turnover"), header=False)
    assert read_file(data, "a").frame.equals(won)


DAMAGED = {
    "a lone carriage return in a field": csv(ISO, separator=";").replace(b";", b"\r;", 9),
    "a word for a price in twelve columns": lists(
        ROWS.with_columns(pl.lit("x").alias("low"), *(pl.lit(1).alias(f"c{n}") for n in range(6)))
    ),
    "half a letter": b'{"t":[1610395200],"o":[1],"h":[1],"l":[1],"c":[1],"v":[1],"\\ud800":[1]}',
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_refused(data: bytes) -> None:
    assert refusal(data).startswith("a.csv")
