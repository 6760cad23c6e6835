"""The candles that a bot hands in: in whatever form, of the model's interval, and of now; or one sentence says why not."""

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crpbot_runtime import (
    CandlesRefused,
    Client,
    ClientError,
    Decision,
    Misconfigured,
    MlcoreError,
    UnknownCoin,
    read_candles,
)
from crpbot_runtime.frames import to_candles
from crpbot_runtime.timing import find_fault
from mlcore.data.simulate import simulate
from mlcore.data.validation import validate_candles
from tests.runtime.conftest import MakeBot
from tests.runtime.stub_service import TOKEN, Release, StubService

pytestmark = pytest.mark.slow

NUMBERS = ("open", "high", "low", "close", "volume")
HOUR = 3600
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Capsule:
    """What any library of Arrow tables has (https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html)."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


def to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: frame[name].to_numpy() for name in frame.columns})


def to_rows(frame: pl.DataFrame) -> list[list[float]]:
    """As `fetch_ohlcv` of ccxt returns them."""
    return [list(row) for row in frame.with_columns(pl.col("timestamp").dt.epoch("ms")).rows()]


def index_by_time(frame: pl.DataFrame) -> pd.DataFrame:
    return to_pandas(frame).set_index("timestamp")


def localize(frame: pl.DataFrame, zone: str) -> pd.DataFrame:
    table = to_pandas(frame)
    return table.assign(timestamp=table.timestamp.dt.tz_localize("UTC").dt.tz_convert(zone))


FORMS: dict[str, Callable[[pl.DataFrame], Any]] = {
    "microseconds": lambda f: f.with_columns(pl.col("timestamp").dt.cast_time_unit("us")),
    "naive": lambda f: f.with_columns(pl.col("timestamp").dt.replace_time_zone(None)),
    "in Berlin": lambda f: f.with_columns(pl.col("timestamp").dt.convert_time_zone("Europe/Berlin")),
    "epoch milliseconds": lambda f: f.with_columns(pl.col("timestamp").dt.epoch("ms")),
    "epoch seconds": lambda f: f.with_columns(pl.col("timestamp").dt.epoch("s")),
    "text": lambda f: f.with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ")),
    "other order": lambda f: f.select("close", "open", "high", "low", "volume", "timestamp"),
    "other columns": lambda f: f.with_columns(trades=pl.lit(7)),
    "contracts that follow each other": lambda f: f.with_columns(
        instrument=pl.Series(["BTC-26SEP"] * 50 + ["BTC-27DEC"] * 50)
    ),
    "capitals": lambda f: f.rename(str.title),
    "pandas": to_pandas,
    "pandas, UTC": lambda f: localize(f, "UTC"),
    "pandas, in Tokyo": lambda f: localize(f, "Asia/Tokyo"),
    "pandas, seconds": lambda f: to_pandas(f).astype({"timestamp": "datetime64[s]"}),
    "pandas, indexed by time": index_by_time,
    "pandas, index without a name": lambda f: index_by_time(f).rename_axis(None),
    "pandas, two levels of columns": lambda f: pd.concat({"BTC": index_by_time(f)}, axis=1).swaplevel(axis=1),
    "pandas, objects": lambda f: to_pandas(f).astype(object),
    "pandas, decimals": lambda f: to_pandas(f).assign(
        close=pd.Series([Decimal(repr(x)) for x in f["close"]], dtype=object)
    ),
    "columns of pandas, in Tokyo": lambda f: dict(localize(f, "Asia/Tokyo").items()),
    "index of pandas, in Tokyo": lambda f: {
        **f.to_dict(as_series=False),
        "timestamp": pd.DatetimeIndex(localize(f, "Asia/Tokyo").timestamp),
    },
    "times of NumPy in a list": lambda f: {
        **f.to_dict(as_series=False),
        "timestamp": list(f["timestamp"].to_numpy()),
    },
    "Arrow": Capsule,
    "rows": to_rows,
    "rows as tuples": lambda f: tuple(map(tuple, to_rows(f))),
    "dictionaries": lambda f: f.to_dicts(),
    "columns": lambda f: f.to_dict(as_series=False),
    "array": lambda f: np.array(to_rows(f)),
}


@pytest.mark.parametrize("form", FORMS)
def test_candles_in_any_form_are_the_same_candles(candles: pl.DataFrame, form: str) -> None:
    frame = candles.tail(100)
    found = to_candles(FORMS[form](frame), "the candles of BTC")
    assert found.with_columns(pl.col("timestamp").dt.cast_time_unit("ms")).equals(frame)


def test_whole_numbers_are_prices(candles: pl.DataFrame) -> None:
    """A market in won or yen, as a CSV is read."""
    whole = candles.tail(100).with_columns(
        pl.col("open", "close").round(), pl.col("high").ceil(), pl.col("low").floor(), pl.col("volume").ceil()
    )
    found = to_candles(whole.with_columns(pl.col(NUMBERS).cast(pl.Int64)), "the candles of BTC")
    assert found.equals(whole)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "NoneType is no table of timestamp, open"),
        ("BTC.csv", "str is no table"),
        (pl.LazyFrame(), "LazyFrame is no table"),
        ([[1, 2, 3]], "list is no table"),
        ([None], "list cannot be read as a table"),
        (pd.Series([1.0]), "Series is no table"),
        (pl.DataFrame(), "without the column timestamp"),
        (pd.DataFrame({"close": [1.0]}), "without the column timestamp, open, high, low, volume"),
        (pd.concat([index_by_time(simulate("BTC", 9, 0, 1))] * 2, axis=1), "there more than once"),
        (simulate("BTC", 9, 0, 1).with_columns(timestamp=pl.lit(5)), "timestamp is 5, not a time"),
        (simulate("BTC", 9, 0, 1).with_columns(close=pl.Series([object()] * 9)), "close holds Object"),
        (
            to_pandas(simulate("BTC", 9, 0, 1)).assign(timestamp=pd.Series([pd.NaT] * 9)),
            "row 1: timestamp is empty",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_table_of_candles_is_refused_in_one_sentence(table: object, message: str) -> None:
    with pytest.raises(CandlesRefused, match=message) as refused:
        to_candles(table, "the candles of BTC")
    assert str(refused.value).startswith("the candles of BTC") and "\n" not in str(refused.value)


@dataclass
class Desk:
    """One bot on one release, and the time that its clock shows."""

    client: Client
    now: list[datetime]

    def predict(self, table: object, at: datetime) -> Decision:
        self.now[0] = at
        return self.client.predict("BTC", table)


@pytest.fixture
def desk(service: StubService, bot: MakeBot, old: Release) -> Callable[..., Desk]:
    service.point_at(old)

    def open_desk(**options: Any) -> Desk:
        now = [service.issued_at]
        client = bot(clock=lambda: now[0], fresh_for_s=10**9, **{"max_age_s": None, **options})
        client.refresh()
        return Desk(client, now)

    return open_desk


def end_at(frame: pl.DataFrame, last: datetime) -> pl.DataFrame:
    """The same bars, the last of which opens at `last`."""
    return frame.with_columns(pl.col("timestamp") + (last - frame["timestamp"][-1]))


def bars(step_s: int, last: datetime) -> pl.DataFrame:
    return end_at(simulate("BTC", 2_100, 1.2, 3, interval_seconds=step_s), last)


class TestNow:
    @pytest.mark.parametrize(
        ("age", "reason"),
        [
            (timedelta(hours=1), ""),
            (timedelta(hours=1, seconds=-4), ""),
            (timedelta(hours=1, seconds=-6), "has not closed yet: leave it out"),
            (timedelta(minutes=20), "has not closed yet"),
            (timedelta(0), "has not closed yet"),
            (timedelta(minutes=-1), "opens in the future"),
            (timedelta(days=-7000), "opens in the future"),
            (timedelta(hours=2, seconds=29), ""),
            (timedelta(hours=2, minutes=2), "is 2.03 h old, more than 2 h: the feed stopped"),
            (timedelta(days=7), "is 7 d old"),
        ],
        ids=str,
    )
    def test_the_last_bar_has_just_closed(
        self, desk: Callable[..., Desk], age: timedelta, reason: str
    ) -> None:
        decision = desk().predict(bars(HOUR, NOON), NOON + age)
        assert reason in decision.reason
        assert (decision.line is None, decision.direction == "neutral" or not reason) == (bool(reason), True)
        assert bool(decision.probabilities) is not bool(reason)

    @pytest.mark.parametrize(
        ("max_age_s", "is_refused"), [(8 * HOUR, False), (6 * HOUR, True), (math.inf, False)]
    )
    def test_a_bot_says_how_old_the_last_bar_may_be(
        self, desk: Callable[..., Desk], max_age_s: float, is_refused: bool
    ) -> None:
        decision = desk(max_age_s=max_age_s).predict(bars(HOUR, NOON), NOON + timedelta(hours=7))
        assert (decision.line is None) is is_refused

    def test_candles_of_any_age_have_closed_all_the_same(self, desk: Callable[..., Desk]) -> None:
        decision = desk(max_age_s=math.inf).predict(bars(HOUR, NOON), NOON + timedelta(minutes=20))
        assert "has not closed yet" in decision.reason

    def test_too_many_gaps(self, desk: Callable[..., Desk]) -> None:
        whole = end_at(simulate("BTC", 4_000, 1.2, 3), NOON)
        few = whole.filter((pl.int_range(4_000) % 40 != 0) | (pl.int_range(4_000) == 3_999))
        many = whole.filter((pl.int_range(4_000) % 15 != 0) | (pl.int_range(4_000) == 3_999))
        at = NOON + timedelta(hours=1)
        assert desk().predict(few, at).reason == ""
        decision = desk().predict(many, at)
        assert (decision.line, decision.direction) == (None, "neutral")
        assert "bars are missing (7%), more than 5%" in decision.reason

    def test_bars_of_another_interval_at_the_end(self, desk: Callable[..., Desk]) -> None:
        """So few that most bars are of the model's interval, and hardly any is missing."""
        hourly = bars(HOUR, NOON)
        few = end_at(simulate("BTC", 20, 1.2, 3, interval_seconds=4 * HOUR), NOON)
        earlier = hourly.with_columns(pl.col("timestamp") - pl.duration(hours=80))
        decision = desk().predict(pl.concat([earlier, few]), NOON + timedelta(hours=1))
        assert decision.line is None
        assert "bars that are 4 h apart are among those of 1 h" in decision.reason

    def test_what_is_refused_is_neither_counted_nor_hidden_from_the_service(
        self, desk: Callable[..., Desk]
    ) -> None:
        at_desk = desk()
        at_desk.predict(bars(HOUR, NOON), NOON)
        updater = at_desk.client._updater
        assert (
            "BTC: the last bar, 2026-05-01 12:00:00Z, has not" in updater.build_heartbeat("x")["last_error"]
        )
        assert updater._windows._open == {}
        at_desk.predict(bars(HOUR, NOON), NOON + timedelta(hours=1))
        assert updater.build_heartbeat("x")["last_error"] is None
        assert len(updater._windows._open) == 1

    @pytest.mark.parametrize(
        ("step_s", "apart"), [(60, "1 min"), (300, "5 min"), (4 * HOUR, "4 h"), (24 * HOUR, "1 d")]
    )
    def test_another_interval_than_the_models(
        self, desk: Callable[..., Desk], step_s: int, apart: str
    ) -> None:
        opens = NOON - timedelta(seconds=NOON.timestamp() % step_s)
        decision = desk().predict(bars(step_s, opens), opens + timedelta(seconds=step_s))
        assert (decision.line, decision.direction) == (None, "neutral")
        assert f"the bars are {apart} apart, and the model was trained on 1 h" in decision.reason


@pytest.mark.parametrize(
    "first", ["2024-01-01", "2024-01-04", "2024-01-07"], ids=["Monday", "Thursday", "Sunday"]
)
def test_weeks_may_begin_on_any_day_and_end_as_other_bars_do(first: str) -> None:
    week, opened = timedelta(weeks=1), datetime.fromisoformat(first).replace(tzinfo=UTC)
    weekly = validate_candles(end_at(simulate("BTC", 300, 1.2, 3, interval_seconds=HOUR * 24 * 7), opened))
    fault = partial(find_fault, weekly, interval_s=7 * 24 * HOUR, max_age_s=None)
    assert fault(now=opened + week) == fault(now=opened + 2 * week) == ""
    assert "has not closed yet" in fault(now=opened + week - timedelta(hours=1))
    assert "is 15 d old, more than 14 d" in fault(now=opened + 2 * week + timedelta(days=1))


class TestClock:
    """The snapshots that the service signs show a bot that its own clock is wrong, in both directions."""

    @pytest.mark.parametrize(
        ("hours", "message"),
        [(24, "this machine's clock is ahead"), (-24, "this machine's clock is behind"), (-0.1, "is behind")],
    )
    def test_a_wrong_clock_is_said_and_follows_nothing(
        self, service: StubService, bot: MakeBot, old: Release, hours: float, message: str
    ) -> None:
        service.point_at(old)
        client = bot(clock=lambda: service.issued_at + timedelta(hours=hours))
        problem = client.refresh().problem
        assert message in str(problem)
        assert client.active.revision is None, "what may be replayed is not followed"

    def test_a_clock_that_was_set_back_keeps_the_set_and_says_so(
        self, service: StubService, bot: MakeBot, old: Release, new: Release, candles: pl.DataFrame
    ) -> None:
        now = [service.issued_at]
        client = bot(clock=lambda: now[0])
        service.point_at(old)
        assert client.refresh().problem is None
        now[0] -= timedelta(hours=1)
        service.point_at(new)
        assert "is behind" in str(client.refresh().problem)
        decision = client.predict("BTC", candles)
        assert (decision.release, "is behind" in decision.reason) == (old.number, True)
        now[0] += timedelta(hours=1)
        assert client.refresh().release == new.number

    def test_seconds_do_not_matter(self, service: StubService, bot: MakeBot, old: Release) -> None:
        service.point_at(old)
        client = bot(clock=lambda: service.issued_at - timedelta(seconds=170))
        assert client.refresh().problem is None


WRONG: dict[str, list[Any]] = {
    "url": [
        None, 7, b"http://x", "", "ftp://x", "http://", "http://[::1", "http://x:y", "http://a:b@c",
        "http://x..y", f"http://{'a' * 64}", f"https://gate.{'a' * 64}.example",
    ],
    "token": [None, 7, "", "two words", "ä"],
    "public_key": [None, 7, b"34", [7], [], "", "34", "zz" * 32, "x:" + "34" * 32],
    "cache_dir": [None, 7, b"x", ["x"], "", "\0", "\udcff"],
    "coins": ["BTC", 7, [7], [None]],
    "timeout_s": [None, "10", 0, -1, math.nan, math.inf, 1e300, 10**400],
    "fresh_for_s": [None, 0, math.nan, 1e300, 10**400],
    "max_age_s": ["x", 0, -1, math.nan, -math.inf, 10**400],
    "spread_s": [None, -1, math.inf, 10**400],
    "instance": [7, "", "two words", "x" * 65],
    "clock": [None, 7, lambda: None, datetime.now, lambda: date(2026, 1, 1), lambda: 1 / 0, lambda at: at],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_argument_is_refused_in_one_sentence(
    service: StubService, cache_dir: Path, name: str, value: Any
) -> None:
    right = {"url": service.url, "token": TOKEN, "public_key": service.public_key, "cache_dir": cache_dir}
    with pytest.raises(Misconfigured) as refused:
        Client(**{**right, name: value})
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, releases: list[Release]) -> Iterator[Client]:
    """One client for many calls, with a model."""
    service = StubService()
    try:
        service.point_at(releases[0])
        with Client(service.url, TOKEN, service.public_key, tmp_path_factory.mktemp("cache")) as client:
            client.refresh()
            yield client
    finally:
        service.stop()


class TestOnlyTwoClasses:
    """Whatever is handed in: a decision, a ClientError or an MlcoreError, and nothing else."""

    SCALARS = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9)
    )
    TABLES = st.recursive(
        SCALARS | st.datetimes() | st.decimals(),
        lambda inner: (
            st.lists(inner, max_size=7)
            | st.dictionaries(st.sampled_from(["timestamp", *NUMBERS, "x"]), inner)
        ),
        max_leaves=40,
    )
    CELLS: st.SearchStrategy[Any] = st.sampled_from(
        [None, 0, -1, 1, math.nan, math.inf, 2**63, "", "x", "1,5", "2026-01-01", 1e300, [], {}]
    )

    def ask(self, client: Client, coin: Any, table: Any) -> None:
        try:
            assert isinstance(client.predict(coin, table), Decision)
        except (ClientError, MlcoreError) as error:
            assert "\n" not in str(error)

    @given(coin=SCALARS | st.just("BTC") | st.lists(st.integers()), table=TABLES)
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def test_for_odd_objects(self, one: Client, coin: Any, table: Any) -> None:
        self.ask(one, coin, table)
        self.ask(one, "BTC", table)

    @given(column=st.integers(0, 5), row=st.integers(0, 2_099), cell=CELLS)
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def test_for_one_odd_value(
        self, one: Client, candles: pl.DataFrame, column: int, row: int, cell: Any
    ) -> None:
        names = ["timestamp", *NUMBERS]
        rows = to_rows(candles)
        rows[row][column] = cell
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        for table in (rows, columns, pd.DataFrame(columns, dtype=object)):
            self.ask(one, "BTC", table)

    @pytest.mark.parametrize("coin", [None, 7, [], {}, object(), "DOGE", "x" * 10_000])
    def test_for_odd_coins(self, one: Client, candles: pl.DataFrame, coin: Any) -> None:
        with pytest.raises(UnknownCoin) as refused:
            one.predict(coin, candles)
        assert len(str(refused.value)) < 200

    def test_for_a_watch_that_cannot_be(self, one: Client) -> None:
        wrong: list[dict[str, Any]] = [{"every_s": 0}, {"every_s": "1"}, {"stop": 5}, {"on_change": None}]
        for options in wrong:
            with pytest.raises(Misconfigured):
                one.watch(**{"on_change": print, **options})

    @pytest.mark.parametrize("name", [None, 7, b"x", "\0", "", "/nonexistent"])
    def test_for_a_file_that_cannot_be(self, name: Any) -> None:
        with pytest.raises(CandlesRefused):
            read_candles(name)

    @pytest.mark.parametrize("send", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_for_a_client_that_is_sent_elsewhere(self, one: Client, send: Callable[[object], object]) -> None:
        """As `multiprocessing` does where it does not fork."""
        with pytest.raises(Misconfigured, match="make one there"):
            send(one)

    async def test_for_a_watch_inside_asyncio(self, one: Client) -> None:
        with pytest.raises(Misconfigured, match="use AsyncClient"):
            one.watch(print)
