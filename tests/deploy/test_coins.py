"""Which coins a release must carry: who may say so, what they are told first, and what is safe when they do."""

import json
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from accounts.roles import Actor, Role
from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed
from deploy.alarms import detect
from deploy.models import Release
from deploy.pointer import pointer
from deploy.releases import coins, decide, settle
from deploy.rules import MoveKind, ReleaseState
from deploy.serving import signing
from tests import factories, scenarios
from tests.deploy.commands import run
from tests.scenarios import APPROVER, LAUNCHER
from training.models import Coin

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


def add(symbol: str = "DOT", actor: Actor = LAUNCHER, reason: str = "the desk trades it") -> Coin:
    return coins.add_coin(symbol, name="Polkadot", actor=actor, reason=reason)


def change(coin: Coin, is_required: bool, actor: Actor = APPROVER, **more: Any) -> Coin:
    told: dict[str, Any] = {"reason": "as the desk decided", "is_confirmed": True, **more}
    return coins.set_required(coin, is_required, actor=actor, **told)


def sol() -> Coin:
    return Coin.objects.get(symbol="SOL")


def kinds() -> list[str]:
    return list(
        AuditEvent.objects.filter(kind__startswith="coin.").order_by("seq").values_list("kind", flat=True)
    )


def test_a_coin_that_is_added_is_not_required() -> None:
    assert (add().symbol, add("ada").symbol) == ("DOT", "ADA")
    assert not Coin.objects.get(symbol="DOT").is_required
    assert kinds() == ["coin.added", "coin.added"]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"symbol": "DOT!"}, InvalidInput),
        ({"symbol": ""}, InvalidInput),
        ({"symbol": "BTC"}, Conflict),
        ({"reason": " "}, InvalidInput),
        ({"actor": APPROVER}, NotAllowed),
    ],
    ids=[
        "no symbol there can be",
        "none",
        "one there is",
        "without a reason",
        "by somebody who is no operator",
    ],
)
def test_a_coin_that_cannot_be_added_leaves_an_event_and_nothing_else(
    given: dict[str, Any], error: type[DomainError]
) -> None:
    scenarios.coins()
    with pytest.raises(error):
        add(**given)
    assert (Coin.objects.count(), kinds()) == (3, ["coin.add.refused"])


def test_requiring_a_coin_that_nothing_holds_lists_the_consequences_first() -> None:
    inherited = scenarios.service_in_use().release
    waiting = scenarios.awaiting_approval()
    coin = add()
    with pytest.raises(Conflict) as refused:
        change(coin, True, is_confirmed=False)
    for says in (
        f"What the bots run, {inherited}, has no model for DOT",
        "a pin sends every bot offline",
        f"{waiting} was launched without DOT and can no longer go live",
        "There are no candles of DOT",
    ):
        assert says in refused.value.message
    assert not Coin.objects.get(symbol="DOT").is_required


def test_a_coin_that_the_live_release_lacks_breaks_nothing_silently() -> None:
    before = scenarios.service_in_use()
    waiting = scenarios.awaiting_approval()
    served = scenarios.snapshot_document(before)
    change(add(), True)
    now = pointer.get_current()
    assert now == before
    assert scenarios.snapshot_document(before) == served
    assert {alarm.name for alarm in detect.list_alarms()} == {"fallback", "coins"}
    with pytest.raises(Conflict, match="DOT: the release has no bundle"):
        decide.approve(waiting, actor=APPROVER, reason="passed", revision=1)
    assert decide.pin(actor=APPROVER, reason="to be safe").kind == MoveKind.OFFLINE
    event = AuditEvent.objects.get(kind="coin.required")
    assert "a pin sends every bot offline" in " ".join(json.loads(event.body)["detail"]["consequences"])
    assert audit.verify() == []


def test_dropping_a_coin_clears_its_alarm_and_bots_keep_its_model() -> None:
    before = scenarios.service_in_use()
    coin = change(add(), True)
    change(coin, False)
    assert detect.list_alarms() == []
    change(sol(), False)
    assert "SOL" in scenarios.snapshot_document(before)["models"]
    assert kinds() == ["coin.added", "coin.required", "coin.released", "coin.released"]


@pytest.mark.parametrize(
    ("unfinished", "says"),
    [
        ({"untrained": {"SOL"}}, "has no bundle for SOL, and bots would refuse it"),
        ({"unmeasured": {"SOL"}}, "has no diagnosis of SOL under policy"),
    ],
    ids=["no bundle", "no measurement"],
)
def test_a_release_with_an_unfinished_dropped_coin_is_not_approved(
    unfinished: dict[str, Any], says: str
) -> None:
    """Its bundle would be missing or unproven, so nothing would be signed for the bots."""
    scenarios.service_in_use()
    release = scenarios.Build(seed=2, **unfinished).release()
    change(sol(), is_required=False)
    settle.advance(release)
    release = Release.objects.get(pk=release.pk)
    assert release.state == ReleaseState.AWAITING_APPROVAL
    with pytest.raises(Conflict, match=says):
        decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    assert signing.get_envelope().body


@pytest.mark.parametrize("actor", [LAUNCHER, scenarios.VIEWER], ids=["an operator", "a viewer"])
def test_what_a_release_must_carry_takes_an_approver(actor: Actor) -> None:
    scenarios.coins()
    with pytest.raises(NotAllowed, match="approver role"):
        change(sol(), False, actor=actor)
    assert (sol().is_required, kinds()) == (True, ["coin.release.refused"])


def test_a_reason_is_needed() -> None:
    scenarios.coins()
    with pytest.raises(InvalidInput, match="Give a reason"):
        change(sol(), False, reason="  ")


def test_who_launched_what_is_undecided_does_not_drop_a_coin_it_must_carry() -> None:
    scenarios.service_in_use()
    scenarios.awaiting_approval()
    both = Actor(LAUNCHER.name, frozenset({Role.OPERATOR, Role.APPROVER}))
    with pytest.raises(NotAllowed, match="it takes another approver"):
        change(sol(), False, actor=both)
    assert not change(sol(), False).is_required


def test_the_last_required_coin_stays() -> None:
    btc, eth, _ = scenarios.coins()
    change(sol(), False)
    change(eth, False)
    with pytest.raises(Conflict, match="last required coin"):
        change(btc, False)


def test_a_change_that_changes_nothing_is_refused() -> None:
    scenarios.coins()
    with pytest.raises(Conflict, match="SOL is required already"):
        change(sol(), True)


def test_an_old_event_does_not_cover_a_new_change() -> None:
    scenarios.coins()
    change(sol(), False)
    change(sol(), True)
    with pytest.raises(IntegrityError, match="under its own event alone"), transaction.atomic():
        Coin.objects.filter(symbol="SOL").update(is_required=False)


def test_the_command_lists_adds_and_requires() -> None:
    factories.person("olivia", "operator")
    factories.person("anna", "approver")
    scenarios.service_in_use()
    assert run("coins", "add", "dot", "--reason", "traded", "--as", "olivia")[0] == 0
    why = ("--reason", "traded", "--as", "anna")
    status, said = run("coins", "require", "DOT", *why)
    assert (status, "Confirm the consequences (on a terminal: --confirmed)" in said) == (1, True)
    status, said = run("coins", "require", "DOT", *why, "--confirmed")
    assert status == 0
    assert "DOT          required" in said
    assert "ALARM: The fallback v5" in run("active")[1]
    assert run("coins", "release", "NONE", *why)[0] == 1
    rows = json.loads(run("coins", "--json")[1])
    assert [(row["symbol"], row["is_required"]) for row in rows][1] == ("DOT", True)
