"""Heartbeats as bots send them, and what a program reads of bots and of who followed a move."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from deploy.bots.convergence import monitor_bots
from deploy.models import Acknowledgement, Bot
from deploy.releases import decide
from deploy.serving import protocol
from tests import scenarios
from tests.api.callers import Caller, assert_problem
from tests.scenarios import APPROVER

pytestmark = pytest.mark.django_db

HEARTBEAT = "bots/heartbeat/"


def approved() -> Any:
    waiting = scenarios.awaiting_approval()
    return decide.approve(waiting, actor=APPROVER, reason="every gate passed", revision=1)


def test_a_heartbeat_answer_has_interval_revision_and_next_release(bot: Caller) -> None:
    now = scenarios.service_in_use()
    answer = bot.post(HEARTBEAT, scenarios.heartbeat_fields(now))
    assert (answer.status_code, answer.json()) == (
        200,
        {"heartbeat_seconds": 10, "revision": 1, "next": None},
    )
    waiting = scenarios.awaiting_approval()
    said = scenarios.heartbeat_fields(
        now, prefetched_next=waiting.pk, last_error="", stale_since="2026-11-22T08:00:00Z"
    )
    assert bot.post(HEARTBEAT, said).json()["next"] == waiting.pk


def test_a_bot_without_a_model_says_so(bot: Caller) -> None:
    scenarios.service_in_use()
    none = dict.fromkeys(("service", "revision", "line", "release"))
    answer = bot.post(HEARTBEAT, {"instance": "a", "client_version": "0.1.0", **none, "bundles": {}})
    assert (answer.status_code, Bot.objects.get().revision) == (200, None)


def test_the_audit_head_that_a_bot_saw_is_stored(bot: Caller) -> None:
    head = {"seq": 3, "hash": "9a" * 32}
    said = scenarios.heartbeat_fields(scenarios.service_in_use(), audit_head=head)
    assert bot.post(HEARTBEAT, said).status_code == 200
    assert Bot.objects.values("audit_seq", "audit_hash").get() == {"audit_seq": 3, "audit_hash": head["hash"]}


@pytest.mark.parametrize(("is_stopping", "code"), [(True, 200), (False, 200), ("yes", 400), (1, 400)])
def test_the_last_heartbeat_may_say_that_the_bot_stops(bot: Caller, is_stopping: object, code: int) -> None:
    said = scenarios.heartbeat_fields(scenarios.service_in_use(), is_stopping=is_stopping)
    assert bot.post(HEARTBEAT, said).status_code == code


def test_a_bot_that_states_no_protocol_has_the_first(bot: Caller) -> None:
    said = scenarios.heartbeat_fields(scenarios.service_in_use())
    assert bot.post(HEARTBEAT, said).status_code == 200
    assert bot.post(HEARTBEAT, {**said, "instance": "earlier", "protocol": None}).status_code == 200
    del said["protocol"]
    assert bot.post(HEARTBEAT, {**said, "instance": "earliest"}).status_code == 200
    assert list(Bot.objects.order_by("pk").values_list("protocol", flat=True)) == [protocol.VERSION, 1, 1]


def test_what_a_newer_protocol_added_is_left_out_and_the_rest_understood(bot: Caller) -> None:
    newer = {"version": protocol.VERSION + 1, "oldest_reader": protocol.VERSION, "build": "later"}
    head = {"seq": 1, "hash": "9a" * 32, "root": {"of": "a later version"}}
    said = scenarios.heartbeat_fields(
        scenarios.service_in_use(), protocol=newer, audit_head=head, added=["by", "a later version"]
    )
    assert bot.post(HEARTBEAT, said).status_code == 200
    assert Bot.objects.get().protocol == protocol.VERSION + 1


def test_a_heartbeat_for_newer_services_only_is_refused_in_one_sentence(bot: Caller) -> None:
    newer = {"version": protocol.VERSION + 2, "oldest_reader": protocol.VERSION + 1}
    said = scenarios.heartbeat_fields(
        scenarios.service_in_use(), protocol=newer, revision={"another": "form"}
    )
    errors = assert_problem(bot.post(HEARTBEAT, said), 400)["errors"]
    assert errors == {
        "protocol": [
            f"This bot writes protocol {protocol.VERSION + 2}, for services of protocol {protocol.VERSION + 1} or later,"
            f" and this service has protocol {protocol.VERSION}. Upgrade the service, or install the crpbot-runtime of its"
            " version."
        ]
    }
    assert not Bot.objects.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"protocol": 2}, "protocol.body"),
        ({"protocol": {"version": 2}}, "protocol.oldest_reader"),
        ({"protocol": {"version": 0, "oldest_reader": 1}}, "protocol.version"),
        ({"protocol": {"version": 2, "oldest_reader": 1, "other": 1}}, "protocol.other"),
        ({"protocol": {"version": 2**15, "oldest_reader": 1}}, "protocol.version"),
        ({"protocol": {"version": True, "oldest_reader": True}}, "protocol.version"),
        ({"audit_head": {"seq": 0, "hash": "9a" * 32}}, "audit_head.seq"),
        ({"audit_head": {"seq": 1, "hash": "9a"}}, "audit_head.hash"),
        ({"instance": "desk 1"}, "instance"),
        ({"instance": "d" * 65}, "instance"),
        ({"client_version": ""}, "client_version"),
        ({"client_version": "v" * 65}, "client_version"),
        ({"revision": "1"}, "revision"),
        ({"revision": 0}, "revision"),
        ({"revision": 2**63}, "revision"),
        ({"release": True}, "release"),
        ({"prefetched_next": -1}, "prefetched_next"),
        ({"bundles": {"BTC": "51d7"}}, "bundles"),
        ({"bundles": {"BTC": None}}, "bundles"),
        ({"bundles": {"btc/": f"sha256:{'0' * 64}"}}, "bundles"),
        ({"bundles": {f"C{number}": f"sha256:{'0' * 64}" for number in range(501)}}, "bundles"),
        ({"bundles": []}, "bundles"),
        ({"last_error": "e" * 1001}, "last_error"),
        ({"stale_since": "yesterday"}, "stale_since"),
        ({"epochs": 1}, "epochs"),
        ({"revision": None}, "revision"),
        ({"service": None}, "service"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_bot_cannot_mean_is_refused_by_the_name_of_the_field(
    changes: dict[str, Any], field: str, bot: Caller
) -> None:
    said = scenarios.heartbeat_fields(scenarios.service_in_use(), **changes)
    assert field in assert_problem(bot.post(HEARTBEAT, said), 400)["errors"]
    assert not Bot.objects.exists()


def test_a_bot_of_another_service_is_told_which_is_which(bot: Caller) -> None:
    said = scenarios.heartbeat_fields(scenarios.service_in_use(), service="crpbot-other")
    assert_problem(
        bot.post(HEARTBEAT, said), 409, "follows the service crpbot-other", "cache folder of its own"
    )


def test_an_approver_does_not_speak_for_a_bot(as_approver: Caller) -> None:
    said = scenarios.heartbeat_fields(scenarios.service_in_use())
    assert_problem(as_approver.post(HEARTBEAT, said), 403, "only a bot reports what it runs")


def test_a_heartbeat_is_cheap(bot: Caller) -> None:
    said = scenarios.heartbeat_fields(scenarios.service_in_use())
    bot.post(HEARTBEAT, said)
    with CaptureQueriesContext(connection) as asked:
        bot.post(HEARTBEAT, said)
    assert len(asked) <= 5


def test_bots_are_listed_against_what_they_must_run_the_worst_first(bot: Caller, as_operator: Caller) -> None:
    before = scenarios.service_in_use()
    old = scenarios.heartbeat_fields(before, "b")
    bot.post(HEARTBEAT, old)
    now = approved()
    bot.post(HEARTBEAT, scenarios.heartbeat_fields(now, "a"))
    mixed = scenarios.heartbeat_fields(now, "c")
    mixed["bundles"] |= {"SOL": old["bundles"]["SOL"]}
    bot.post(HEARTBEAT, mixed)
    rows = as_operator.get("bots/").json()["results"]
    assert [(row["instance"], row["state"], row["revision"]) for row in rows] == [
        ("c", "mixture", 2),
        ("b", "moving", 1),
        ("a", "current", 2),
    ]
    assert rows[0]["bundles"] == mixed["bundles"]
    assert rows[0]["mismatch"].startswith("SOL is ")
    assert [row["instance"] for row in as_operator.get("bots/?state=moving").json()["results"]] == ["b"]
    assert as_operator.get("bots/?revision=2&limit=1").json()["count"] == 2
    assert_problem(as_operator.get("bots/?state=tired"), 400)


def test_a_move_says_who_followed_it_and_whether_all_did(bot: Caller, as_operator: Caller) -> None:
    before = scenarios.service_in_use()
    for instance in ("a", "b"):
        bot.post(HEARTBEAT, scenarios.heartbeat_fields(before, instance))
    now = approved()
    bot.post(HEARTBEAT, scenarios.heartbeat_fields(now, "a"))
    move = as_operator.get("moves/2/").json()
    assert (move["acknowledged"], move["live"], move["has_converged"], move["converged_at"]) == (
        1,
        2,
        False,
        None,
    )
    bot.post(HEARTBEAT, scenarios.heartbeat_fields(now, "b"))
    monitor_bots()
    move = as_operator.get("moves/2/").json()
    assert (move["bots"], move["has_converged"], move["is_current"]) == (2, True, True)
    rows = as_operator.get("moves/2/acknowledgements/").json()["results"]
    assert [row["instance"] for row in rows] == ["b", "a"]
    assert move["slowest_seconds"] == rows[0]["seconds"]
    assert not rows[0]["joined_later"]
    assert as_operator.get("moves/1/acknowledgements/?instance=a").json()["results"][0]["joined_later"]
    for path in ("moves/9/", "moves/9/acknowledgements/"):
        assert_problem(as_operator.get(path), 404, "There is no revision 9")


def test_a_move_that_was_overtaken_has_not_converged(bot: Caller, as_operator: Caller) -> None:
    bot.post(HEARTBEAT, scenarios.heartbeat_fields(scenarios.service_in_use()))
    Bot.objects.update(last_heard_at=timezone.now() - timedelta(seconds=60))
    approved()
    move = as_operator.get("moves/1/").json()
    assert (move["is_current"], move["has_converged"], move["acknowledged"]) == (False, False, 1)


def test_a_revoked_bot_is_heard_no_more(bot: Caller, approver: User) -> None:
    said = scenarios.heartbeat_fields(scenarios.service_in_use())
    User.objects.filter(username="trader").update(is_active=False)
    assert_problem(bot.post(HEARTBEAT, said), 401)
    assert not Acknowledgement.objects.exists()
