"""An alarm on the board, the status line when there is none, and the coins page."""

import re
from collections.abc import Callable, Iterator

import pytest
from django.core.cache import cache
from django.db import OperationalError
from django.test import Client

from audit import triggers
from deploy.alarms.record import record_alarms
from tests import scenarios
from tests.pages.conftest import SignedIn
from tests.pages.example_data import ExampleData
from training.models import Coin

pytestmark = pytest.mark.django_db


@pytest.fixture
def broken(examples: ExampleData) -> Iterator[Callable[[], None]]:
    """Damages the fallback that all tests here share, and repairs it afterwards."""
    changed: list[None] = []

    def damage() -> None:
        scenarios.damage(examples.fallback)
        changed.append(None)
        cache.clear()
        record_alarms()

    yield damage
    for _ in changed:
        scenarios.damage(examples.fallback)  # the same bit once more
    cache.clear()


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_a_ready_fallback_is_one_line_without_alarm(examples: ExampleData, signed_in: SignedIn) -> None:
    page = signed_in("victor").get("/").content.decode()
    assert 'class="alarm' not in page
    assert re.search(r"v5 ready\s+measured .*(ago|now) , files checked", words(page))


def test_a_damaged_fallback_is_an_alarm_at_the_top_of_the_board(
    broken: Callable[[], None], signed_in: SignedIn
) -> None:
    broken()
    for person in ("victor", "anna"):
        page = signed_in(person).get("/").content.decode()
        assert page.index('class="alarm critical"') < page.index('id="live-now"')
        assert "a pin would send every bot offline" in words(page)
        assert re.search(r"Launch a new release of v5 .* Since \d", words(page))


def test_the_api_reports_the_same_alarm(broken: Callable[[], None], signed_in: SignedIn) -> None:
    client = signed_in("victor")
    quiet = client.get("/api/v1/alarms/").json()
    assert (quiet["count"], quiet["fallback"]["line"], quiet["fallback"]["is_ready"]) == (0, "v5", True)
    assert client.get("/healthz").json() == {"ok": True, "alarms": []}
    broken()
    told = client.get("/api/v1/alarms/").json()
    assert (told["count"], told["alarms"][0]["severity"], told["fallback"]["is_ready"]) == (
        1,
        "critical",
        False,
    )
    assert told["fallback"]["problems"] == [
        "SOL model.onnx: the stored bytes are not those that were measured"
    ]
    assert told["alarms"][0]["raised_at"] is not None
    health = client.get("/healthz")
    assert (health.status_code, health.json()["alarms"]) == (200, ["fallback"])


def test_a_process_is_alive_without_its_database_and_not_ready(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OperationalError("the database went away")

    monkeypatch.setattr(triggers, "find_missing", fail)
    assert client.get("/healthz").status_code == 503
    alive = client.get("/healthz/live")
    assert (alive.status_code, alive.json()) == (200, {"ok": True})


class TestCoins:
    def test_an_operator_adds_a_coin_and_an_approver_requires_it(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        added = {"symbol": "dot", "name": "Polkadot", "reason": "traded"}
        assert signed_in("olivia").post("/coins/", added).status_code == 302
        approver = signed_in("anna")
        page = words(approver.get("/coins/").content.decode())
        assert "a pin sends every bot offline" in page
        required = {"is_required": "yes", "reason": "traded"}
        assert approver.post("/coins/DOT/", required, follow=True).status_code == 200
        assert Coin.objects.get(symbol="DOT").is_required
        assert "DOT: became required" in words(approver.get("/").content.decode())

    def test_a_missing_reason_is_shown_at_the_field(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("anna").post("/coins/SOL/", {"is_required": "no"})
        assert (answer.status_code, "Give a reason" in answer.content.decode()) == (400, True)
        assert Coin.objects.get(symbol="SOL").is_required

    def test_a_refusal_is_shown_on_the_page(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("olivia").post("/coins/SOL/", {"is_required": "no", "reason": "no longer"})
        assert (answer.status_code, "approver role" in answer.content.decode()) == (403, True)
        assert signed_in("olivia").post("/coins/", {"symbol": "BTC", "reason": "again"}).status_code == 409
