"""Candles come in whole, once, and under their content's name; a file that cannot be trusted leaves nothing behind."""

import gzip
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from audit.models import AuditEvent
from common.errors import InvalidInput, NotAllowed, NotFound
from mlcore.data import candles
from tests import factories
from training import artifact_store
from training.models import Coin, Dataset
from training.services import coins, datasets

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture
def btc() -> Coin:
    return coins.find_coin("BTC")


def import_(coin: Coin, data: bytes, name: str = "BTC.csv", **more: Any) -> Dataset:
    return datasets.import_candles(coin, data, **{"name": name, "actor": factories.OPERATOR, **more}).dataset


def stored_files(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file()]


def test_the_three_initial_coins_cannot_be_deleted_by_hand() -> None:
    coins.ensure_coins()
    assert [coin.symbol for coin in Coin.objects.all()] == ["BTC", "ETH", "SOL"]
    with pytest.raises(IntegrityError, match="rows are kept"), transaction.atomic():
        Coin.objects.get(symbol="SOL").delete()
    with pytest.raises(IntegrityError, match="under its own event alone"), transaction.atomic():
        Coin.objects.update(is_required=False)


def test_a_sound_file_becomes_a_dataset_with_its_event(btc: Coin) -> None:
    dataset = import_(btc, factories.candle_csv(5))
    assert (dataset.rows, dataset.interval_seconds, dataset.gaps, dataset.source) == (5, 3600, 0, "upload")
    assert dataset.origin == "BTC.csv"
    assert not dataset.is_simulated
    event = AuditEvent.objects.get(kind="dataset.added")
    assert (event.actor, event.object_id) == ("olivia", str(dataset.pk))
    assert dataset.digest in event.body


def test_what_was_done_with_the_file_is_stored_and_never_changes(btc: Coin) -> None:
    header, *rows = factories.candle_csv(4).splitlines()
    dataset = import_(btc, b"\n".join([header, *reversed(rows)]))
    assert json.loads(dataset.import_report) == {
        "format": "CSV",
        "layout": "named columns",
        "notes": ["sorted: the newest row was first"],
    }
    with pytest.raises(IntegrityError), transaction.atomic():
        Dataset.objects.update(import_report="")


def test_what_is_stored_is_what_was_imported(btc: Coin) -> None:
    dataset = import_(btc, factories.candle_csv(4))
    assert artifact_store.read_candles(dataset)["close"].to_list() == [105.0] * 4
    assert artifact_store.is_intact(dataset.digest.removeprefix("sha256:"), dataset.size)


def test_the_same_candles_in_another_format_are_the_same_dataset(btc: Coin) -> None:
    first = import_(btc, factories.candle_csv(4))
    again = import_(btc, gzip.compress(factories.candle_csv(4)), "other.csv.gz")
    assert again == first
    assert again.origin == "BTC.csv"
    assert AuditEvent.objects.filter(kind="dataset.added").count() == 1


def test_two_coins_may_hold_the_same_candles(btc: Coin, store: Path) -> None:
    first = import_(btc, factories.candle_csv())
    second = import_(coins.find_coin("ETH"), factories.candle_csv())
    assert first != second
    assert first.digest == second.digest
    assert len(stored_files(store)) == 1


SOUND = factories.candle_csv(3)
MALFORMED = {
    "an empty file": b"",
    "a header alone": b"timestamp,open,high,low,close,volume\n",
    "binary rubbish": bytes(range(256)),
    "gzip cut off": gzip.compress(SOUND)[:-9],
    "Parquet's first bytes alone": b"PAR1" + b"\0" * 40 + b"PAR1",
    "one row alone": factories.candle_csv(1),
    "NaN": factories.candle_csv(close="nan"),
    "a time twice": factories.candle_csv(timestamp="2024-01-01T00:00:00Z"),
}
"""One of each kind: each starts a sandbox. tests/mlcore/test_candle_files.py has the others."""


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_file_is_refused_and_leaves_nothing(btc: Coin, store: Path, data: bytes) -> None:
    events = AuditEvent.objects.count()
    with pytest.raises(InvalidInput) as refusal:
        import_(btc, data)
    assert refusal.value.status == 400
    assert refusal.value.field == "file"
    assert "BTC.csv" in refusal.value.message
    assert not Dataset.objects.exists()
    assert AuditEvent.objects.count() == events
    assert stored_files(store) == []


def test_the_message_names_the_row_and_its_figures(btc: Coin) -> None:
    with pytest.raises(InvalidInput, match=r"row 2.*close 111.*high 110"):
        import_(btc, factories.candle_csv(close="111"))


def test_a_file_over_the_limit_is_refused_unread(btc: Coin, settings: Any, store: Path) -> None:
    settings.DATASET_UPLOAD_LIMIT_BYTES = 100
    with pytest.raises(InvalidInput, match="limit is 100"):
        import_(btc, factories.candle_csv(5))
    assert stored_files(store) == []


def test_a_viewer_may_not_import(btc: Coin, store: Path) -> None:
    with pytest.raises(NotAllowed, match="operator"):
        import_(btc, factories.candle_csv(), actor=factories.VIEWER)
    assert not Dataset.objects.exists()
    assert stored_files(store) == []


def test_an_unknown_coin_is_not_found_and_the_known_ones_are_named() -> None:
    with pytest.raises(NotFound, match="BTC, ETH, SOL"):
        coins.find_coin("DOGE")


def test_a_path_in_a_files_name_is_not_kept(btc: Coin) -> None:
    assert import_(btc, factories.candle_csv(), "../../home/somebody/BTC.csv").origin == "BTC.csv"


def csv_ending_at(last: datetime, *, rows: int = 4, interval: timedelta = timedelta(hours=1)) -> bytes:
    """Bars of which the last opens at this time."""
    times = [last - interval * n for n in reversed(range(rows))]
    lines = [f"{time.isoformat()},100,110,90,105,1" for time in times]
    return "\n".join(["timestamp,open,high,low,close,volume", *lines]).encode()


class TestClosedBars:
    NOW = datetime(2026, 11, 22, 12, 20, tzinfo=UTC)

    @pytest.fixture(autouse=True)
    def _at_noon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timezone, "now", lambda: self.NOW)

    def test_a_last_bar_that_has_closed_is_kept(self, btc: Coin) -> None:
        dataset = import_(btc, csv_ending_at(self.NOW.replace(hour=11, minute=0)))
        assert dataset.rows == 4
        assert "left out" not in dataset.import_report

    def test_a_last_bar_that_has_not_closed_is_left_out_with_a_note(self, btc: Coin) -> None:
        data = csv_ending_at(self.NOW.replace(minute=0))
        note = "left out the last bar, which opened at 2026-11-22 12:00Z: it had not closed"
        preview = datasets.preview_import(btc, data, name="BTC.csv", actor=factories.OPERATOR)
        assert (preview.content.rows, note in preview.import_report.notes) == (3, True)
        dataset = import_(btc, data)
        assert dataset.rows == 3
        assert note in dataset.import_report

    @pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=3650)], ids=str)
    def test_bars_of_the_future_are_refused(self, btc: Coin, store: Path, ahead: timedelta) -> None:
        with pytest.raises(InvalidInput, match="in the future"):
            import_(btc, csv_ending_at(self.NOW.replace(minute=0) + ahead))
        assert stored_files(store) == []

    def test_simulated_bars_may_be_of_any_time(self, btc: Coin) -> None:
        data = csv_ending_at(self.NOW.replace(minute=0) + timedelta(days=3650))
        assert import_(btc, data, simulated=True).rows == 4


class TestClosingTimes:
    """Bars of 2024 from 01:00 to 04:00, of which only the ends are given."""

    @pytest.mark.parametrize(
        "before", [0, 1, 1000], ids=["the next opening", "a millisecond before", "a second before"]
    )
    def test_they_are_converted_on_request(self, btc: Coin, before: int) -> None:
        closing = _shift(factories.candle_csv(4), timedelta(hours=1, milliseconds=-before))
        assert (
            import_(btc, closing, closing_times=True).digest == import_(btc, factories.candle_csv(4)).digest
        )

    @pytest.mark.parametrize("before", [1, 1000])
    def test_they_are_recognised_and_refused(self, btc: Coin, before: int) -> None:
        closing = _shift(factories.candle_csv(4), timedelta(hours=1, milliseconds=-before))
        with pytest.raises(
            InvalidInput, match=r"closing times: each lies a .*second before the next bar; export"
        ):
            import_(btc, closing)

    def test_a_column_of_closing_times_alone_is_refused(self, btc: Coin) -> None:
        closing = _shift(factories.candle_csv(4), timedelta(hours=1)).replace(b"timestamp", b"close_time")
        with pytest.raises(InvalidInput, match="only of closing times"):
            import_(btc, closing)
        assert (
            import_(btc, closing, closing_times=True).digest == import_(btc, factories.candle_csv(4)).digest
        )

    @pytest.mark.parametrize(
        ("first", "weekday"), [("2024-01-01", "Mon"), ("2024-01-04", "Thu"), ("2024-01-07", "Sun")]
    )
    def test_a_week_may_begin_on_any_day(self, first: str, weekday: str, btc: Coin) -> None:
        header, *rows = factories.candle_csv(5).decode().splitlines()
        days = [date.fromisoformat(first) + timedelta(weeks=week) for week in range(5)]
        lines = [f"{day},{row.partition(',')[2]}" for day, row in zip(days, rows, strict=True)]
        found = import_(btc, "\n".join([header, *lines]).encode())
        assert (found.interval_seconds, f"{found.first_at:%a}") == (604_800, weekday)

    def test_bars_of_a_week_keep_their_weekday(self, btc: Coin) -> None:
        header, *rows = factories.candle_csv(3).decode().splitlines()
        ends = ("2024-01-07T23:59:59Z", "2024-01-14T23:59:59Z", "2024-01-21T23:59:59Z")
        lines = [f"{end},{row.partition(',')[2]}" for end, row in zip(ends, rows, strict=True)]
        found = import_(btc, "\n".join([header, *lines]).encode(), closing_times=True)
        assert (found.interval_seconds, f"{found.first_at:%a %Y-%m-%d}") == (604_800, "Mon 2024-01-01")

    @pytest.mark.parametrize("rows", [slice(1, None), slice(2, 3)], ids=["every row", "one row"])
    def test_a_conversion_hides_no_time_off_the_grid(self, btc: Coin, rows: slice) -> None:
        lines = factories.candle_csv(5).decode().splitlines()
        lines[rows] = [line.replace(":00:00Z", ":30:00Z") for line in lines[rows]]
        with pytest.raises(InvalidInput, match="off the grid"):
            import_(btc, "\n".join(lines).encode(), closing_times=True)

    def test_bars_off_the_grid_of_their_interval_are_refused(self, btc: Coin) -> None:
        with pytest.raises(InvalidInput, match=r"bars of 3,600 s that open 1,380 s off the grid"):
            import_(btc, _shift(factories.candle_csv(4), timedelta(minutes=23)))


def _shift(data: bytes, by: timedelta) -> bytes:
    """The same CSV with later times, in epoch milliseconds."""
    frame = candles.read_bytes(data, "a.csv")
    return frame.with_columns((frame["timestamp"] + by).dt.epoch("ms")).write_csv().encode()


class TestSimulatedCandles:
    def test_say_so_and_how_they_were_made(self, btc: Coin) -> None:
        dataset = datasets.simulate_candles(
            btc, bars=300, drift=1.2, seed=7, actor=factories.OPERATOR
        ).dataset
        assert dataset.is_simulated
        assert dataset.rows == 300
        assert dataset.origin == "simulated: drift 1.2, 300 bars, seed 7"

    def test_are_the_same_dataset_when_made_again(self, btc: Coin) -> None:
        first = datasets.simulate_candles(btc, bars=300, drift=0, seed=7, actor=factories.OPERATOR).dataset
        again = datasets.simulate_candles(btc, bars=300, drift=0, seed=7, actor=factories.OPERATOR)
        assert again == datasets.StoredDataset(first, is_new=False)
        other = datasets.simulate_candles(btc, bars=300, drift=0, seed=8, actor=factories.OPERATOR).dataset
        assert other != first

    @pytest.mark.parametrize("bars", [0, -5, 10**9])
    def test_of_an_impossible_length_are_refused(self, btc: Coin, bars: int) -> None:
        with pytest.raises(InvalidInput, match="bars"):
            datasets.simulate_candles(btc, bars=bars, drift=1, seed=1, actor=factories.OPERATOR)
        assert not Dataset.objects.exists()

    @pytest.mark.parametrize("changes", [{"seed": -1}, {"drift": float("nan")}, {"drift": 1e9}], ids=str)
    def test_of_impossible_settings_are_refused(self, btc: Coin, changes: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            datasets.simulate_candles(
                btc, **{"bars": 300, "drift": 1.0, "seed": 1, "actor": factories.OPERATOR, **changes}
            )

    def test_take_an_operator(self, btc: Coin) -> None:
        with pytest.raises(NotAllowed):
            datasets.simulate_candles(btc, bars=300, drift=1, seed=1, actor=factories.VIEWER)
