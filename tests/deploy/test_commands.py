"""The same decisions on a terminal: same rules, same messages, an exit status a script can use."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import override_settings
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from accounts.roles import Actor
from deploy.alarms import detect
from deploy.api.bots import Bots
from deploy.api.releases import serialize_release
from deploy.bots.heartbeats import receive_heartbeat
from deploy.management.commands.release import Command as ReleaseCommand
from deploy.models import Bot, Release
from deploy.pointer import pointer
from deploy.releases.presentation import format_gate_table
from deploy.rules import ReleaseState
from tests import factories, scenarios
from tests.deploy.commands import run
from training.models import Dataset, TrainingRun

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture
def cast() -> None:
    for name, role in (("olivia", "operator"), ("anna", "approver"), ("victor", "viewer")):
        factories.person(name, role)
    scenarios.service_in_use()


@pytest.mark.usefixtures("cast")
def test_active_prints_what_every_bot_must_use() -> None:
    status, said = run("active")
    assert status == 0
    assert "revision 1: v6_enhanced" in said
    document = json.loads(run("active", "--json")[1])
    assert (document["revision"], sorted(document["models"])) == (1, ["BTC", "ETH", "SOL"])


def test_active_without_a_pointer_fails_with_a_remedy() -> None:
    status, said = run("active")
    assert status == 1
    assert "must inherit" in said


@pytest.mark.usefixtures("cast")
def test_approve_moves_the_pointer() -> None:
    release = scenarios.awaiting_approval()
    status, said = run("approve", str(release.pk), "--reason", "all passed", "--as", "anna")
    assert (status, "the pointer: v7_fixed (revision 2)" in said) == (0, True)


@pytest.mark.usefixtures("cast")
@pytest.mark.parametrize(
    ("person", "says"),
    [("victor", "may not approve"), ("olivia", "may not approve"), ("nobody", "no active user")],
)
def test_approve_by_the_wrong_person_exits_non_zero(person: str, says: str) -> None:
    release = scenarios.awaiting_approval()
    status, said = run("approve", str(release.pk), "--reason", "all passed", "--as", person)
    assert status == 1
    assert says in said


@pytest.mark.usefixtures("cast")
def test_approve_on_an_old_revision_is_refused_with_a_problem_document() -> None:
    release = scenarios.awaiting_approval()
    status, said = run(
        "approve", str(release.pk), "--reason", "x", "--as", "anna", "--revision", "0", "--json"
    )
    assert (status, json.loads(said)["status"]) == (1, 409)


@pytest.mark.usefixtures("cast")
def test_decline_and_pin_and_restore_and_cancel() -> None:
    first, second = scenarios.awaiting_approval(1), scenarios.awaiting_approval(2)
    run("approve", str(first.pk), "--reason", "passed", "--as", "anna")
    assert run("decline", str(second.pk), "--reason", "one is enough", "--as", "anna")[0] == 0
    assert "revision 3: v5" in run("pin", "--reason", "it trades oddly", "--as", "anna")[1]
    assert "revision 4" in run("restore", str(first.pk), "--reason", "it was the exchange", "--as", "anna")[1]
    status, said = run("cancel", str(first.pk), "--reason", "too late", "--as", "olivia")
    assert (status, "cannot be cancelled" in said) == (1, True)


@pytest.mark.usefixtures("cast")
def test_an_unknown_release_is_said_so() -> None:
    status, said = run("approve", "999", "--reason", "x", "--as", "anna")
    assert (status, "There is no release 999" in said) == (1, True)


@pytest.mark.usefixtures("cast")
def test_release_launches_and_says_where_it_stands() -> None:
    status, said = run("release", "--line", "v7_fixed", "--epochs", "3", "--as", "olivia", "--json")
    answer = json.loads(said)
    assert (status, answer["state"]) == (0, ReleaseState.BUILDING)
    release = Release.objects.get(pk=answer["id"])
    assert release.parameters == {"epochs": 3}


def test_a_release_that_passed_says_who_is_asked_next() -> None:
    release = scenarios.awaiting_approval()
    said = ReleaseCommand().format_answer(serialize_release(release))
    assert said.endswith(
        f"Next, by an approver who did not launch it: manage.py approve {release.pk} --reason … (or decline)"
    )
    assert "Next" not in ReleaseCommand().format_answer(serialize_release(scenarios.inherited()))


def test_a_table_of_gates_tells_advice_from_what_decides() -> None:
    gates = re.findall(
        r"^(\w+) .*\n(\(advisory\))?",
        format_gate_table(serialize_release(scenarios.awaiting_approval())["coins"]),
        re.MULTILINE,
    )
    said = {gate: bool(mark) for gate, mark in gates}
    assert (said["calibration"], said["drift"]) == (True, True)
    assert (said["accuracy"], said["bundle"]) == (False, False)


@pytest.mark.usefixtures("cast")
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--line", "v9"], "v9"),
        (["--line", "v7_fixed", "--epochs", "900"], "epochs"),
        (["--line", "v7_fixed", "--dataset", "BTC"], "say COIN=ID"),
        (["--line", "v7_fixed", "--dataset", "BTC=12345"], "say COIN=ID"),
    ],
)
def test_release_with_wrong_arguments_writes_nothing(args: list[str], says: str) -> None:
    status, said = run("release", *args, "--as", "olivia")
    assert (status, says in said) == (1, True)
    assert not TrainingRun.objects.exists()


@pytest.mark.usefixtures("cast")
def test_release_takes_a_coin_named_once() -> None:
    one = f"BTC={Dataset.objects.filter(coin__symbol='BTC')[0].pk}"
    status, said = run("release", "--line", "v7_fixed", "--dataset", one, "--dataset", one, "--as", "olivia")
    assert (status, "--dataset names BTC twice" in said) == (1, True)


@pytest.mark.usefixtures("cast")
def test_a_token_says_who_decides_and_as_is_for_the_embedded_profile_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = scenarios.awaiting_approval()
    with override_settings(IS_EMBEDDED=False):
        status, said = run("approve", str(release.pk), "--reason", "x", "--as", "anna")
        assert (status, "embedded profile only" in said) == (1, True)
        monkeypatch.setenv("CRPBOT_TOKEN", factories.token(User.objects.get(username="anna"), "approver"))
        assert run("approve", str(release.pk), "--reason", "all passed")[0] == 0
    now = pointer.get_current()
    assert now is not None
    assert now.moved_by == "anna"


@pytest.mark.usefixtures("cast")
def test_without_anybody_to_decide_a_command_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRPBOT_TOKEN", raising=False)
    status, said = run("pin", "--reason", "x")
    assert (status, "set CRPBOT_TOKEN" in said) == (1, True)
    monkeypatch.setenv("CRPBOT_TOKEN", "crp_made_up")
    assert "unknown, expired or revoked" in run("pin", "--reason", "x")[1]


@pytest.mark.usefixtures("cast")
def test_verify_audit_says_the_chain_is_sound() -> None:
    status, said = run("verify_audit")
    assert (status, "is sound" in said) == (0, True)


def test_register_fallback_and_inherit_begin_the_service() -> None:
    factories.person("anna", "approver")
    v5 = scenarios.Build(line="v5", purpose=scenarios.Purpose.FALLBACK).settled()
    v6 = scenarios.Build(line="v6_enhanced", purpose=scenarios.Purpose.INHERITED).release()
    assert run("register_fallback", str(v5.pk), "--reason", "it behaved", "--as", "anna")[0] == 0
    status, said = run("inherit", str(v6.pk), "--reason", "as the bot stands", "--as", "anna")
    assert (status, "v6_enhanced (revision 1)" in said) == (0, True)


@pytest.mark.usefixtures("committed", "cast")
def test_reconcile_once_moves_a_waiting_release_along() -> None:
    release = scenarios.Build().release()
    call_command("reconcile", "--once")
    assert Release.objects.get(pk=release.pk).state == ReleaseState.AWAITING_APPROVAL


@pytest.mark.usefixtures("cast")
def test_a_key_is_changed_on_the_terminal(settings: Settings, tmp_path: Path) -> None:
    settings.SIGNING_KEYS_DIR = tmp_path
    old = run("keys", "export")[1].strip()
    because = ("--reason", "yearly change", "--as", "anna")
    (made,) = json.loads(run("keys", "create", *because, "--json")[1])["keys"]
    assert run("keys", "export")[1].strip() == f"2:{old.removeprefix('1:')},{made['public']}"
    assert run("keys", "activate", made["key_id"][:8], *because)[0] == 0
    first = next(line.split()[0] for line in run("keys")[1].splitlines() if old[2:] in line)
    assert "trusted by 0 of 0 bots; 0 trust no other key that signs" in run("keys")[1]
    assert run("keys", "retire", first, *because)[0] == 0
    assert run("keys", "export")[1].strip() == f"3:{made['public']}"
    listed = [line.split()[1] for line in run("keys", "list")[1].splitlines() if not line.startswith(" ")]
    assert listed == ["retired", "active"]


@pytest.mark.usefixtures("cast")
def test_a_key_that_bots_need_is_retired_by_two_people(settings: Settings, tmp_path: Path) -> None:
    settings.SIGNING_KEYS_DIR = tmp_path
    factories.person("amelie", "approver")
    factories.token(factories.person("trader"), "bot")
    move, because = pointer.get_current(), ("--reason", "stolen", "--as", "anna")
    assert move is not None
    run("keys", "export")
    receive_heartbeat(scenarios.heartbeat(move), actor=Actor("trader", is_bot=True))
    (made,) = json.loads(run("keys", "create", *because, "--json")[1])["keys"]
    run("keys", "activate", made["key_id"], *because)
    first = next(line.split()[0] for line in run("keys")[1].splitlines() if made["public"] not in line)
    assert "1 trust no other key that signs" in run("bots")[1]
    assert run("keys", "retire", first, *because)[0] == 1
    assert run("keys", "propose", first, *because)[0] == 0
    assert "anna proposes to retire it: stolen" in run("keys")[1]
    other = ("--reason", "stolen", "--as", "amelie")
    assert run("keys", "approve", first, *other)[0] == 1
    assert run("keys", "approve", first, "--cut-off", "1", *because)[0] == 1
    assert run("keys", "approve", first, "--cut-off", "1", *other)[0] == 0


@pytest.mark.usefixtures("cast")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "--as", "anna"), "Give a reason"),
        (("create", "--reason", "x", "--as", "olivia"), "approver role"),
        (("activate", "--reason", "x", "--as", "anna"), "Say which key"),
        (("retire", "abc", "--reason", "x", "--as", "anna"), "no signing key 'abc'"),
        (("create", "--reason", "x"), "needs an actor"),
    ],
    ids=["no reason", "another role", "no key", "an unknown key", "nobody"],
)
def test_a_change_of_keys_that_is_not_sound_changes_nothing(
    arguments: tuple[str, ...], words: str, settings: Settings, tmp_path: Path
) -> None:
    settings.SIGNING_KEYS_DIR = tmp_path
    status, said = run("keys", *arguments)
    assert (status, words in said) == (1, True), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("cast")
def test_the_revision_is_advanced_on_the_terminal() -> None:
    assert run("advance_revision", "--by", "3", "--reason", "restored", "--as", "olivia")[0] == 1
    status, said = run("advance_revision", "--by", "3", "--reason", "restored", "--as", "anna")
    assert (status, said.startswith("revision 4: v6_enhanced as before (restored")) == (0, True)


@pytest.mark.usefixtures("cast")
def test_bots_prints_the_fleet_report_and_fails_on_problems() -> None:
    assert run("bots") == (0, "revision 1: bots must run v6_enhanced (release 2)\nNo bot has reported yet.\n")
    move, fallback = pointer.get_current(), pointer.get_pinnable()
    assert move is not None and fallback is not None
    trader = Actor("trader", is_bot=True)
    factories.token(factories.person("trader"), "bot")
    for said in (
        replace(scenarios.heartbeat(move, "desk-1"), prefetched_fallback=fallback.pk),
        scenarios.heartbeat(move, "desk-2"),
    ):
        receive_heartbeat(said, actor=trader)
    Bot.objects.update(first_heard_at=move.moved_at - timedelta(hours=1))
    status, said_of_all = run("bots")
    assert (status, "2 of 2 live bots run it, 1 of 2 hold the fallback (release 1)" in said_of_all) == (
        0,
        True,
    )
    assert re.search(
        r"trader \(desk-1\) +current +1 +v6_enhanced \(release 2\) +after \d+\.\d s +\d+ s ago +held",
        said_of_all,
    )

    error = "release 1 cannot be prefetched: BTC: the disk is full"
    receive_heartbeat(replace(scenarios.heartbeat(move, "desk-1"), last_error=error), actor=trader)
    desk_2 = Bot.objects.filter(instance="desk-2")
    desk_2.update(last_heard_at=timezone.now() - timedelta(seconds=45))
    status, said_of_all = run("bots")
    assert (status, "silent" in said_of_all) == (0, True), "it may be restarting"
    assert "silent" not in {alarm.name for alarm in detect.list_alarms()}
    desk_2.update(last_heard_at=timezone.now() - timedelta(minutes=7))
    status, said_of_all = run("bots")
    assert "silent" in {alarm.name for alarm in detect.list_alarms()}
    first, second = (said_of_all.index(f"trader (desk-{number})") for number in (2, 1))
    assert (status, first < second) == (1, True), "what troubles somebody comes first"
    assert error in said_of_all and "7 min ago" in said_of_all

    document = json.loads(run("bots", "--json")[1])
    assert document["problems"] == {"silent": ["trader (desk-2)"]}
    assert {name: document[name] for name in ("revision", "release", "live", "current", "prefetched_fallback", "next")} == {
        "revision": 1, "release": 2, "live": 1, "current": 1, "prefetched_fallback": 0, "next": None,
    }  # fmt: skip
    listed = Bots.Output(Bots().get_queryset(), many=True).data
    assert [set(bot) for bot in document["bots"]] == [set(bot) for bot in listed], "the same as the API says"
    assert (
        [bot["state"] for bot in document["bots"]]
        == [bot["state"] for bot in listed]
        == ["silent", "current"]
    )
