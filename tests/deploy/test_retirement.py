"""Retiring a silent bot: nobody waits for it, until it reports again."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from accounts.roles import Actor
from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed, NotFound
from deploy.alarms import detect
from deploy.bots import fleet, key_trust
from deploy.bots.heartbeats import receive_heartbeat
from deploy.bots.retirement import find_bot, retire_bot
from deploy.models import Bot
from deploy.pointer import pointer
from tests import factories, scenarios
from tests.deploy.commands import run
from tests.scenarios import APPROVER, LAUNCHER

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

BOT = ("trader", "desk-1")
WHY = "its machine was given back"


@pytest.fixture(autouse=True)
def silent(db: None) -> None:
    """A bot that was killed two minutes ago, so that its silence is an alarm."""
    scenarios.service_in_use()
    factories.token(factories.person("trader"), "bot")
    report()
    Bot.objects.update(last_heard_at=timezone.now() - timedelta(seconds=settings.BOT_LATE_SECONDS + 60))


def report() -> None:
    move = pointer.get_current()
    assert move is not None
    receive_heartbeat(scenarios.heartbeat(move), actor=Actor("trader", is_bot=True))


def retire(actor: Actor = LAUNCHER, reason: str = WHY, bot: tuple[str, str] = BOT) -> Any:
    return retire_bot(*bot, actor=actor, reason=reason)


def list_alarms_of_bots() -> list[str]:
    return [alarm.name for alarm in detect.list_alarms() if alarm.name in ("silent", "behind", "mixture")]


def list_events() -> list[str]:
    return list(AuditEvent.objects.filter(object_type="bot").order_by("seq").values_list("kind", flat=True))


@pytest.mark.parametrize("actor", [LAUNCHER, APPROVER], ids=["an operator", "an approver"])
def test_a_retired_bot_is_gone_and_nobody_waits_for_it(actor: Actor) -> None:
    move = pointer.get_current()
    assert (list_alarms_of_bots(), fleet.count_bots(move, None).silent) == (["silent"], 1)
    assert len(key_trust.load_fleet_trust().trusted) == 1
    assert retire(actor).state == "gone"
    assert (list_alarms_of_bots(), fleet.count_bots(move, None).known) == ([], 0)
    assert len(key_trust.load_fleet_trust().trusted) == 0


def test_it_is_an_event_with_the_reason_and_the_chain_stays_whole() -> None:
    heard = Bot.objects.get().last_heard_at
    retire()
    event = AuditEvent.objects.get(kind="bot.retired")
    assert (event.actor, event.object_name, event.reason) == (LAUNCHER.name, "trader (desk-1)", WHY)
    assert json.loads(event.body)["detail"] == {"revision": 1, "last_heard_at": heard.isoformat()}
    assert audit.verify() == []


def test_the_next_heartbeat_brings_it_back() -> None:
    retire()
    report()
    assert (find_bot(*BOT).state, fleet.count_bots(pointer.get_current(), None).live) == ("current", 1)
    Bot.objects.update(last_heard_at=timezone.now() - timedelta(hours=1))
    assert list_alarms_of_bots() == ["silent"]


def test_a_silent_bot_with_wrong_bundles_is_retired_too() -> None:
    Bot.objects.update(mismatch="SOL is missing")
    assert list_alarms_of_bots() == ["mixture"]
    retire()
    assert list_alarms_of_bots() == []


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"actor": Actor("victor")}, NotAllowed, "may not retire a bot"),
        ({"reason": " "}, InvalidInput, "reason"),
        ({"bot": ("trader", "desk-2")}, NotFound, "There is no bot trader (desk-2)"),
    ],
    ids=["without the role", "without a reason", "a bot that never reported"],
)
def test_a_refusal_changes_nothing(changes: Any, error: type[DomainError], sentence: str) -> None:
    with pytest.raises(error) as refused:
        retire(**changes)
    assert sentence in str(refused.value)
    assert (list_alarms_of_bots(), Bot.objects.get().is_stopped) == (["silent"], False)
    assert "bot.retired" not in list_events()


def test_a_bot_that_reports_is_not_retired() -> None:
    report()
    with pytest.raises(Conflict, match="Stop its program"):
        retire()
    assert (find_bot(*BOT).state, list_events()) == ("current", ["bot.retire.refused"])


def test_a_heartbeat_that_arrives_meanwhile_wins() -> None:
    """Stored just before the update, as by another process that takes no lock of the audit."""
    waiting = [report]

    def interrupt(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith('UPDATE "deploy_bot"') and waiting:
            waiting.pop()()
        return execute(sql, *rest)

    with connection.execute_wrapper(interrupt), pytest.raises(Conflict, match="reports"):
        retire()
    assert (waiting, Bot.objects.get().is_stopped, list_events()) == ([], False, ["bot.retire.refused"])


def test_a_bot_that_is_gone_already_is_not_retired_again() -> None:
    retire()
    with pytest.raises(Conflict, match="gone already"):
        retire()
    assert list_events() == ["bot.retired", "bot.retire.refused"]


def test_the_command_retires_and_explains_a_refusal() -> None:
    factories.person("olivia", "operator")
    command = ("retire_bot", *BOT, "--reason", WHY, "--as", "olivia")
    assert run(*command) == (0, "trader (desk-1) is gone; its next heartbeat brings it back\n")
    status, said = run(*command)
    assert (status, "gone already" in said) == (1, True)
