"""Candles from an exchange. The real ccxt talks to a stub of Binance over HTTP, which misbehaves as exchanges do."""

import fcntl
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ccxt
import pytest
from django.conf import settings

from common.errors import Conflict, InvalidInput, NotAllowed, Unavailable
from tests import factories
from tests.training.exchange_stub import HOUR, START_MS, ExchangeStub, kline, serve
from training import artifact_store, exchange
from training.models import Dataset
from training.rules import Source
from training.services import coins, datasets

pytestmark = pytest.mark.django_db

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ExchangeStub]:
    """ccxt's `binance` asks the stub; its clock is the stub's."""
    stub = ExchangeStub()
    server = serve(stub)

    class Binance(ccxt.binance):
        def describe(self) -> Any:
            public = {"public": f"http://127.0.0.1:{server.server_port}/api/v3"}
            return self.deep_extend(
                super().describe(), {"urls": {"api": public}, "rateLimit": 1, "timeout": 1000}
            )

        def milliseconds(self) -> int:
            return stub.now_ms

    monkeypatch.setattr(ccxt, "binance", Binance)
    monkeypatch.setattr(exchange, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(settings, "FETCHED_DIR", tmp_path / "fetched")
    yield stub
    server.shutdown()
    server.server_close()


def fetch(**changes: Any) -> Dataset:
    asked: dict[str, Any] = {"exchange": "binance", "interval": "1h", "since": START}
    coin = coins.find_coin(changes.pop("symbol", "BTC"))
    said = changes.pop("said", [])
    options = {**asked, "actor": factories.OPERATOR, "report": said.append, **changes}
    return datasets.fetch_candles(coin, **options).dataset


LEFT_OUT = "Left out the last candle, from 2024-04-14 03:00 UTC on: not closed yet."


def test_all_complete_bars_become_a_dataset_and_the_last_is_named(stub: ExchangeStub) -> None:
    said: list[str] = []
    dataset = fetch(said=said)
    assert said == [LEFT_OUT]
    assert (dataset.rows, dataset.interval_seconds, dataset.gaps) == (2499, 3600, 0)
    assert dataset.source == Source.EXCHANGE
    assert dataset.origin == "binance BTC/USDT 1h"
    assert not dataset.is_simulated
    assert artifact_store.read_candles(dataset)["open"][-1] == 100 + 24.98
    assert stub.requests == [0, 1000, 2000]


@pytest.mark.parametrize(("days", "weekday"), [(0, "Mon"), (3, "Thu"), (6, "Sun")])
def test_weeks_begin_on_the_weekday_of_the_exchange(days: int, weekday: str, stub: ExchangeStub) -> None:
    stub.step_ms, stub.bars, stub.start_ms = 168 * HOUR, 60, START_MS + days * 24 * HOUR
    dataset = fetch(interval="1w")
    assert (dataset.rows, dataset.interval_seconds, dataset.gaps) == (59, 604_800, 0)
    assert f"{dataset.first_at:%a}" == weekday


class TestMisbehaviour:
    """Ways in which exchanges misbehave."""

    def test_an_empty_page_by_mistake_is_asked_for_again(self, stub: ExchangeStub) -> None:
        stub.before = lambda number, since: (200, b"[]", {}) if number == 2 else None
        assert (fetch().rows, stub.requests) == (2499, [0, 1000, 1000, 2000])

    def test_short_pages_are_not_the_end(self, stub: ExchangeStub) -> None:
        stub.edit = lambda page: page[:700]
        assert fetch().rows == 2499

    @pytest.mark.parametrize("is_windowed", [True, False], ids=["empty pages", "the next candles"])
    def test_a_long_halt_is_a_reported_gap(self, is_windowed: bool, stub: ExchangeStub) -> None:
        stub.halts, stub.is_windowed = [range(100, 2300)], is_windowed
        said: list[str] = []
        dataset = fetch(said=said)
        assert (dataset.rows, dataset.gaps, dataset.missing_bars) == (299, 1, 2200)
        assert said == [
            "Gap: 2,200 candles are missing between 2024-01-05 03:00 UTC and 2024-04-05 20:00 UTC.",
            LEFT_OUT,
        ]

    @pytest.mark.parametrize("is_windowed", [True, False], ids=["empty pages", "the next candles"])
    def test_a_listing_after_since_is_found(self, is_windowed: bool, stub: ExchangeStub) -> None:
        stub.first, stub.is_windowed = 2100, is_windowed
        said: list[str] = []
        assert fetch(said=said).rows == 399
        found = "The first candle is of 2024-03-28 12:00 UTC: the exchange has none between"
        assert any(sentence.startswith(found) for sentence in said)

    @pytest.mark.parametrize(
        ("status", "says"),
        [(451, "refuses this region (HTTP 451)"), (403, "refuses this address (HTTP 403)")],
    )
    def test_a_refused_region_or_address_is_named_at_once(
        self, status: int, says: str, stub: ExchangeStub
    ) -> None:
        stub.before = lambda number, since: (status, b'{"code": 0, "msg": "restricted location"}', {})
        with pytest.raises(InvalidInput, match="another exchange") as refused:
            fetch()
        assert says in refused.value.message
        assert len(stub.requests) == 1

    def test_too_many_requests_are_made_again_after_the_pause_asked_for(
        self, stub: ExchangeStub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", pauses.append)
        busy = (429, b'{"code": -1003, "msg": "Too many requests."}', {"Retry-After": "7"})
        stub.before = lambda number, since: busy if number in (2, 3) else None
        assert fetch().rows == 2499
        assert [pause for pause in pauses if pause > 1] == [7.0, 7.0]

    @pytest.mark.parametrize(
        ("seconds", "pause"), [(20, 20), (-20, 0), (900, 60)], ids=["later", "past", "too long"]
    )
    def test_a_pause_may_be_asked_for_as_a_date(self, seconds: int, pause: float) -> None:
        moment = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        client = SimpleNamespace(last_response_headers={"Retry-After": moment})
        assert exchange._get_retry_after(client) == pytest.approx(pause, abs=2)

    @pytest.mark.parametrize("hours", [4, 24])
    def test_another_interval_than_the_one_asked_for_is_refused(self, hours: int, stub: ExchangeStub) -> None:
        stub.edit = lambda page: [row for row in page if row[0] % (hours * HOUR) == 0]
        with pytest.raises(
            InvalidInput, match=rf"candles are {hours * 3600:,} s apart, and those of 1h are 3,600 s"
        ):
            fetch()
        assert not Dataset.objects.exists()

    def test_shorter_bars_than_those_asked_for_are_refused(self, stub: ExchangeStub) -> None:
        stub.step_ms = HOUR // 4
        with pytest.raises(InvalidInput, match="candles are 900 s apart"):
            fetch()

    def test_a_page_that_is_repeated_leaves_a_reported_end(self, stub: ExchangeStub) -> None:
        stub.edit = lambda page: [kline(hour) for hour in range(1000)]
        said: list[str] = []
        assert fetch(said=said).rows == 1000
        assert said[-1].startswith(
            "The last candle is of 2024-02-11 15:00 UTC: 1,499 that have closed since are missing"
        )

    def test_an_exchange_that_only_has_the_newest_page_says_so(self, stub: ExchangeStub) -> None:
        stub.edit = lambda page: [kline(hour) for hour in range(1500, 2500)]
        said: list[str] = []
        assert fetch(said=said).rows == 999
        assert any("the exchange keeps only the newest candles" in sentence for sentence in said)

    def test_an_answer_that_is_cut_off_is_asked_for_again(self, stub: ExchangeStub) -> None:
        stub.before = lambda number, since: (
            (200, b"[[17040", {"Content-Length": "90000"}) if number == 1 else None
        )
        assert fetch().rows == 2499

    def test_an_exchange_that_fails_is_tried_again(self, stub: ExchangeStub) -> None:
        stub.before = lambda number, since: (502, b"<html>Bad Gateway</html>", {}) if number < 4 else None
        assert fetch().rows == 2499

    def test_an_exchange_that_hangs_is_tried_again(self, stub: ExchangeStub) -> None:
        def hang(number: int, since: int) -> None:
            if number == 1:
                time.sleep(1.5)  # longer than the client's timeout

        stub.before = hang
        assert (fetch().rows, stub.requests[:2]) == (2499, [0, 0])

    @pytest.mark.parametrize(
        "body", [b"<html>sign in to this network</html>", b'[[1704067200000, "1', b'{"rows": []}']
    )
    def test_something_other_than_candles_is_said_so(self, body: bytes, stub: ExchangeStub) -> None:
        stub.before = lambda number, since: (200, body, {})
        with pytest.raises((Unavailable, InvalidInput), match="binance"):
            fetch()
        assert not Dataset.objects.exists()

    def test_pages_in_disorder_with_repeated_and_unasked_rows_are_put_in_order(
        self, stub: ExchangeStub
    ) -> None:
        stub.edit = lambda page: [*page[::-1], *page[:3], kline(0)]
        assert fetch().rows == 2499

    def test_two_different_candles_of_one_time_are_refused(self, stub: ExchangeStub) -> None:
        stub.edit = lambda page: [*page, [*page[5][:4], "60.0", *page[5][5:]]]
        with pytest.raises(Unavailable, match="two different candles for 2024-01-01 05:00 UTC"):
            fetch()

    def test_a_candle_without_a_figure_is_refused_with_its_row(self, stub: ExchangeStub) -> None:
        stub.edit = lambda page: [[*row[:5], None, *row[6:]] if row == kline(7) else row for row in page]
        with pytest.raises(InvalidInput, match=r"row 8.*volume is None"):
            fetch()

    def test_a_clock_ahead_of_the_exchanges_takes_no_bar_that_still_forms(self, stub: ExchangeStub) -> None:
        stub.clock_hours_behind, said = 3.0, list[str]()
        assert fetch(said=said).rows == 2496
        left_out = "Left out the last 4 candles, from 2024-04-14 00:00 UTC on: not closed yet"
        assert any(sentence.startswith(left_out) for sentence in said)


class TestInterrupted:
    @pytest.mark.parametrize(
        "cut_off",
        ['{"next": 17', json.dumps({"next": START_MS + 2400 * HOUR, "rows": []})],
        ids=["half", "no end"],
    )
    def test_the_same_call_continues(self, cut_off: str, stub: ExchangeStub, tmp_path: Path) -> None:
        stub.before = lambda number, since: (500, b"", {}) if number > 2 else None
        with pytest.raises(Unavailable, match=r"binance does not answer.*what was fetched is kept"):
            fetch()
        assert not Dataset.objects.exists()
        (pages,) = (tmp_path / "fetched").iterdir()
        pages.write_bytes(pages.read_bytes() + cut_off.encode())  # killed while it wrote
        stub.before = lambda number, since: None
        stub.requests.clear()
        said: list[str] = []
        assert fetch(said=said).rows == 2499
        assert stub.requests == [2000]
        assert said == ["Continuing after 2,000 candles that were fetched before.", LEFT_OUT]
        assert not list((tmp_path / "fetched").iterdir())

    def test_another_since_does_not_continue_it(self, stub: ExchangeStub, tmp_path: Path) -> None:
        folder = tmp_path / "fetched"
        folder.mkdir()
        page = {"next": START_MS + 2400 * HOUR, "rows": []}
        (folder / f"binance-BTC-USDT-1h-{START_MS}.jsonl").write_text(json.dumps(page) + "\n")
        assert fetch(since=datetime(2024, 1, 2, tzinfo=UTC)).rows == 2475

    def test_two_at_a_time_are_refused(self, stub: ExchangeStub, tmp_path: Path) -> None:
        (tmp_path / "fetched").mkdir()
        with (tmp_path / "fetched" / f"binance-BTC-USDT-1h-{START_MS}.jsonl").open("wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(Conflict, match="another process"):
                fetch()

    def test_without_a_folder_nothing_is_kept(
        self, stub: ExchangeStub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(settings, "FETCHED_DIR", None)
        stub.before = lambda number, since: (500, b"", {}) if number > 2 else None
        with pytest.raises(Unavailable, match=r"Try again later\.$"):
            fetch()
        stub.before = lambda number, since: None
        assert fetch().rows == 2499

    def test_progress_is_reported(self, stub: ExchangeStub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(exchange, "REPORT_EVERY_SECONDS", 0.0)
        said: list[str] = []
        fetch(said=said)
        assert said[0] == "1,000 candles, up to 2024-02-11 15:00 UTC (40%)"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"exchange": "goxmt"}, "no exchange 'goxmt'"),
        ({"symbol": "SOL"}, "does not trade SOL/USDT"),
        ({"interval": "7h"}, "has no 7h candles"),
        ({"interval": "1M"}, "1M candles are of months or years, which differ in length"),
        ({"since": datetime(2100, 1, 1, tzinfo=UTC)}, "not in the past"),
        ({"since": datetime(2024, 4, 14, 3, 20, tzinfo=UTC)}, "no complete candle since"),
        ({"since": datetime(1990, 1, 1, tzinfo=UTC), "interval": "1m"}, "more than 4,000,000 candles"),
    ],
    ids=[
        "an unknown exchange",
        "an unknown pair",
        "an unknown interval",
        "calendar months",
        "the future",
        "too late",
        "too much",
    ],
)
def test_what_cannot_be_fetched_is_refused(stub: ExchangeStub, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        fetch(**changes)
    assert not Dataset.objects.exists()


def test_candles_that_make_no_sense_are_refused_and_not_kept(stub: ExchangeStub, tmp_path: Path) -> None:
    stub.edit = lambda page: [[*row[:2], "40.0", *row[3:]] for row in page]
    with pytest.raises(InvalidInput, match="row 1"):
        fetch()
    assert not list((tmp_path / "fetched").iterdir())


def test_fetching_takes_an_operator(stub: ExchangeStub) -> None:
    with pytest.raises(NotAllowed):
        fetch(actor=factories.VIEWER)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-01", START),
        ("2024-01-01T00:00", START),
        ("2024-01-01T02:00+02:00", START),
    ],
)
def test_a_beginning_is_in_utc_unless_it_says_otherwise(text: str, moment: datetime) -> None:
    assert exchange.parse_since(text) == moment


def test_a_beginning_that_is_no_date_is_refused() -> None:
    with pytest.raises(InvalidInput, match="2020-09-20"):
        exchange.parse_since("last week")
