"""Candles from an exchange: page after page, tried again when the network stumbles, up to the last complete bar."""

from datetime import UTC, datetime
from typing import Any

import ccxt
import pytest

from common.errors import InvalidInput, NotAllowed, Unavailable
from tests import factories
from training import artifact_store, exchange
from training.models import Dataset
from training.rules import Source
from training.services import coins, datasets

pytestmark = pytest.mark.django_db

HOUR = 3_600_000
START = datetime(2024, 1, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)


class Exchange:
    """An exchange with 2,500 hours of candles, the last of which still moves."""

    timeframes = {"1h": "1h"}
    bars = 2500
    stumbles = 0

    def __init__(self, config: dict[str, Any]) -> None:
        self.pages: list[int] = []
        type(self).last = self  # type: ignore[attr-defined]

    def load_markets(self) -> None:
        self.markets: dict[str, dict[str, object]] = {"BTC/USDT": {}}

    def parse_timeframe(self, interval: str) -> int:
        return {"1h": 3600}[interval]

    def milliseconds(self) -> int:
        return START_MS + (self.bars - 1) * HOUR + HOUR // 2

    def fetch_ohlcv(self, pair: str, interval: str, since: int, limit: int) -> list[list[float]]:
        if type(self).stumbles:
            type(self).stumbles -= 1
            raise ccxt.RequestTimeout("slow today")
        self.pages.append(since)
        first = max(0, -(-(since - START_MS) // HOUR))
        hours = range(first, min(first + limit, self.bars))
        return [[START_MS + h * HOUR, 100.0 + h, 101.0 + h, 99.0 + h, 100.5 + h, 5.0] for h in hours]


@pytest.fixture
def binance(monkeypatch: pytest.MonkeyPatch) -> type[Exchange]:
    kind = type("Binance", (Exchange,), {})
    monkeypatch.setattr(ccxt, "binance", kind)
    monkeypatch.setattr(exchange, "FIRST_PAUSE_SECONDS", 0.0)
    return kind


def fetch(**changes: Any) -> Dataset:
    asked: dict[str, Any] = {"exchange": "binance", "interval": "1h", "since": START}
    coin = coins.find_coin(changes.pop("symbol", "BTC"))
    return datasets.fetch_candles(coin, **{**asked, "actor": factories.OPERATOR, **changes})


def test_all_complete_bars_become_a_dataset(binance: Any) -> None:
    dataset = fetch()
    assert (dataset.rows, dataset.interval_seconds, dataset.gaps) == (2499, 3600, 0)
    assert dataset.source == Source.EXCHANGE
    assert dataset.origin == "binance BTC/USDT 1h"
    assert not dataset.is_simulated
    assert artifact_store.read_candles(dataset)["open"][-1] == 100 + 2498
    assert len(binance.last.pages) == 3


def test_a_stumbling_network_is_tried_again(binance: Any) -> None:
    binance.stumbles = 3
    assert fetch().rows == 2499


def test_an_exchange_that_stays_silent_is_said_so_and_nothing_is_written(binance: Any) -> None:
    binance.stumbles = 100
    with pytest.raises(Unavailable, match=r"binance does not answer.*slow today"):
        fetch()
    assert not Dataset.objects.exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"exchange": "goxmt"}, "no exchange 'goxmt'"),
        ({"symbol": "SOL"}, "does not trade SOL/USDT"),
        ({"interval": "7h"}, "has no 7h candles"),
        ({"since": datetime(2100, 1, 1, tzinfo=UTC)}, "not in the past"),
        ({"since": datetime(2024, 4, 14, 3, 20, tzinfo=UTC)}, "no complete candle since"),
    ],
    ids=["an unknown exchange", "an unknown pair", "an unknown interval", "the future", "too late"],
)
def test_what_cannot_be_fetched_is_refused(binance: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        fetch(**changes)
    assert not Dataset.objects.exists()


def test_candles_that_make_no_sense_are_refused_wherever_they_come_from(
    binance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[START_MS + h * HOUR, 100.0, 90.0, 95.0, 100.0, 5.0] for h in range(3)]
    monkeypatch.setattr(binance, "fetch_ohlcv", lambda self, *_, **__: rows)
    with pytest.raises(InvalidInput, match="row 1"):
        fetch()


def test_fetching_takes_an_operator(binance: Any) -> None:
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
