"""Candles come in whole, once, and under their content's name; a file that cannot be trusted leaves nothing behind."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from audit.models import AuditEvent
from common.errors import InvalidInput, NotAllowed, NotFound
from tests import factories
from training import artifact_store
from training.models import Coin, Dataset
from training.services import coins, datasets

pytestmark = pytest.mark.django_db


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


class TestSimulatedCandles:
    def test_say_so_and_how_they_were_made(self, btc: Coin) -> None:
        dataset = datasets.simulate_candles(btc, bars=300, drift=1.2, seed=7, actor=factories.OPERATOR)
        assert dataset.is_simulated
        assert dataset.rows == 300
        assert dataset.origin == "simulated: drift 1.2, 300 bars, seed 7"

    def test_are_the_same_dataset_when_made_again(self, btc: Coin) -> None:
        first = datasets.simulate_candles(btc, bars=300, drift=0, seed=7, actor=factories.OPERATOR)
        assert datasets.simulate_candles(btc, bars=300, drift=0, seed=7, actor=factories.OPERATOR) == first
        other = datasets.simulate_candles(btc, bars=300, drift=0, seed=8, actor=factories.OPERATOR)
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
