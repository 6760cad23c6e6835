"""What is really running: heartbeats, acknowledgements, convergence, and the alarms about bots that do not follow."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import services as accounts
from accounts.models import ApiToken
from accounts.roles import Actor, Role
from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict, InvalidInput, NotAllowed
from deploy.alarms import detect
from deploy.alarms.record import record_alarms
from deploy.bots import fleet, heartbeats
from deploy.bots.convergence import monitor_bots
from deploy.bots.heartbeat_checks import Heartbeat, ReceivedHeartbeat
from deploy.bots.heartbeats import HeartbeatAnswer, receive_heartbeat, receive_heartbeats
from deploy.models import Acknowledgement, Alarm, Bot, Convergence, PointerMove, Release
from deploy.pointer import pointer
from deploy.prune import prune
from deploy.releases import decide
from deploy.rules import AlarmName, Running, describe_mismatch
from deploy.serving import snapshot
from tests import factories, scenarios
from tests.scenarios import APPROVER

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql, pytest.mark.slow]

TRADER = Actor("trader", is_bot=True)


@pytest.fixture(autouse=True)
def trader(db: None) -> None:
    """The account the bots' tokens belong to."""
    factories.token(factories.person("trader"), "bot")


def bundles_of(release: Release | None) -> dict[str, str]:
    release_coins = release.coins.select_related("coin", "bundle") if release else []
    return {
        release_coin.coin.symbol: release_coin.bundle.digest
        for release_coin in release_coins
        if release_coin.bundle
    }


def on(move: PointerMove, instance: str = "desk-1", **changes: Any) -> Heartbeat:
    """What a bot says that runs this move's release."""
    release = move.release
    running = Running(move.release_id, release.line if release else None, bundles_of(release))
    said: dict[str, Any] = {
        "instance": instance,
        "client_version": "0.1.0",
        "service": snapshot.get_service_name(),
        "revision": move.revision,
        "running": running,
    }
    return Heartbeat(**said | changes)


def hear(said: Heartbeat, actor: Actor = TRADER) -> HeartbeatAnswer:
    return receive_heartbeat(said, actor=actor)


def nothing_yet(instance: str = "desk-1") -> Heartbeat:
    return Heartbeat(instance, "0.1.0", None, None, Running(None, None, {}))


def with_sol_of(other: Release, move: PointerMove) -> Heartbeat:
    """A mixture: one coin of another release."""
    running = on(move).running
    mixed = {**running.bundles, "SOL": bundles_of(other)["SOL"]}
    return on(move, running=Running(running.release, running.line, mixed))


def approved() -> PointerMove:
    now = pointer.get_current()
    assert now is not None
    return decide.approve(
        scenarios.awaiting_approval(), actor=APPROVER, reason="every gate passed", revision=now.revision
    )


def aged(rows: Any, seconds: float, *columns: str) -> None:
    """So long ago, for whatever waits for time to pass."""
    rows.update(**{column: timezone.now() - timedelta(seconds=seconds) for column in columns})


def moved_ago(move: PointerMove, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Now is so much later than the move, for every part of the service: a move's own time cannot be changed."""
    later = move.moved_at + timedelta(seconds=seconds)
    monkeypatch.setattr(timezone, "now", lambda: later)


def states() -> dict[str, str]:
    return dict(
        fleet.order_by_urgency(fleet.list_bots_with_state(pointer.get_current())).values_list(
            "instance", "state"
        )
    )


def troubles() -> dict[str, str]:
    bots = ("mixture", "behind", "silent")
    return {str(t.name): t.sentence for t in detect.list_alarms() if t.name in bots}


class TestDifferences:
    HOLDS = Running(3, "v7_fixed", {"BTC": "sha256:b", "ETH": "sha256:e"})

    def test_the_whole_release_is_no_difference(self) -> None:
        assert (
            describe_mismatch(Running(3, "v7_fixed", {"ETH": "sha256:e", "BTC": "sha256:b"}), self.HOLDS)
            == ""
        )

    @pytest.mark.parametrize(
        ("bundles", "says"),
        [
            ({"BTC": "sha256:b", "ETH": "sha256:x"}, "ETH is x, the release holds e"),
            ({"BTC": "sha256:b"}, "ETH is missing"),
            ({**HOLDS.bundles, "SOL": "sha256:s"}, "SOL is not of this release"),
            ({}, "BTC is missing; ETH is missing"),
        ],
        ids=["another bundle", "a coin too few", "a coin too many", "none at all"],
    )
    def test_any_other_set_is_one(self, bundles: Mapping[str, str], says: str) -> None:
        assert describe_mismatch(Running(3, "v7_fixed", bundles), self.HOLDS) == says

    def test_so_is_another_release_of_the_same_bundles(self) -> None:
        assert describe_mismatch(Running(4, "v7_fixed", self.HOLDS.bundles), self.HOLDS) == (
            "it names release 4 (v7_fixed), the revision is of release 3 (v7_fixed)"
        )

    def test_many_are_told_in_few_words(self) -> None:
        many = Running(3, "v7_fixed", {f"C{number}": "sha256:c" for number in range(60)})
        assert describe_mismatch(many, self.HOLDS).endswith("and 58 more")


class TestHeartbeat:
    def test_only_the_first_heartbeat_of_a_revision_acknowledges_it(self) -> None:
        now = scenarios.service_in_use()
        assert hear(on(now)).revision == 1
        first = Acknowledgement.objects.get()
        assert first.seconds == pytest.approx((first.at - now.moved_at).total_seconds())
        hear(on(now))
        assert Acknowledgement.objects.get() == first
        assert str(Bot.objects.get()) == "trader (desk-1)"

    def test_every_instance_acknowledges_for_itself_and_every_revision_again(self) -> None:
        before = scenarios.service_in_use()
        hear(on(before))
        hear(on(before, "desk-2"))
        after = approved()
        hear(on(after))
        rows = Acknowledgement.objects.order_by("id").values_list("bot__instance", "move_id")
        assert list(rows) == [("desk-1", 1), ("desk-2", 1), ("desk-1", 2)]

    def test_a_bot_without_a_model_is_heard_and_acknowledges_nothing(self) -> None:
        scenarios.service_in_use()
        hear(nothing_yet())
        assert (Bot.objects.get().revision, Acknowledgement.objects.count()) == (None, 0)

    def test_it_is_heard_before_the_first_pointer_too(self) -> None:
        heard = hear(nothing_yet())
        assert (heard.revision, heard.next) == (None, None)
        assert states() == {"desk-1": "current"}

    def test_it_is_told_the_release_to_fetch_ahead(self) -> None:
        now = scenarios.service_in_use()
        assert hear(on(now)).next is None
        waiting = scenarios.awaiting_approval()
        assert hear(on(now)).next == waiting
        assert pointer.get_announced() == waiting

    def test_its_other_reports_are_kept(self) -> None:
        now = scenarios.service_in_use()
        since = timezone.now()
        hear(on(now))
        hear(on(now, client_version="0.2.0", last_error="disk full", stale_since=since, prefetched_next=9))
        bot = Bot.objects.get()
        assert (bot.client_version, bot.last_error, bot.stale_since, bot.prefetched_next) == (
            "0.2.0",
            "disk full",
            since,
            9,
        )

    def test_a_bot_of_another_service_is_refused_clearly(self) -> None:
        now = scenarios.service_in_use()
        with pytest.raises(Conflict, match="follows the service crpbot-other, and this is crpbot-"):
            hear(on(now, service="crpbot-other"))
        assert not Bot.objects.exists()

    def test_nobody_but_a_bot_says_what_a_bot_runs(self) -> None:
        now = scenarios.service_in_use()
        with pytest.raises(NotAllowed, match="anna is not a bot"):
            hear(on(now), actor=APPROVER)

    @pytest.mark.parametrize(
        "changes",
        [{"revision": None}, {"service": None}],
        ids=["bundles of no revision", "a revision of no service"],
    )
    def test_what_cannot_be_meant_is_refused(self, changes: Mapping[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            hear(on(scenarios.service_in_use(), **changes))
        assert not Bot.objects.exists()

    def test_made_up_instances_do_not_grow_without_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = scenarios.service_in_use()
        monkeypatch.setattr(heartbeats, "MAX_INSTANCES", 2)
        for instance in ("a", "b"):
            hear(on(now, instance))
        with pytest.raises(Conflict, match="2 instances already"):
            hear(on(now, "c"))
        hear(on(now, "a"))

    def test_it_costs_few_questions_and_leaves_the_audit_alone(self) -> None:
        now = scenarios.service_in_use()
        hear(on(now))
        said = on(now)
        with CaptureQueriesContext(
            connection,
        ) as asked:
            hear(said)
        assert len(asked) <= 3
        after = approved()
        events, said = AuditEvent.objects.count(), on(after)
        hear(on(after, "desk-2"))
        with CaptureQueriesContext(connection) as asked:
            hear(said)
        assert len([q for q in asked if "SAVEPOINT" not in q["sql"]]) <= 5
        assert AuditEvent.objects.count() == events


class TestMixture:
    def test_a_mixture_is_an_alarm_and_an_event_and_no_acknowledgement(self) -> None:
        scenarios.service_in_use()
        now = approved()
        old = Release.objects.get(line="v6_enhanced")
        hear(with_sol_of(old, now))
        assert not Acknowledgement.objects.exists()
        assert states() == {"desk-1": "mixture"}
        assert "trader (desk-1)" in troubles()["mixture"]
        event = AuditEvent.objects.get(kind="bot.mixture")
        detail = json.loads(event.body)["detail"]
        assert (event.actor, event.reason[:6]) == ("trader", "SOL is")
        assert detail["bundles"]["SOL"] == bundles_of(old)["SOL"]
        assert detail["expected"] == bundles_of(now.release)
        assert audit.verify() == []

    def test_it_is_one_event_for_a_revision_whatever_it_says_how_often(self) -> None:
        scenarios.service_in_use()
        now = approved()
        mixed = with_sol_of(Release.objects.get(line="v6_enhanced"), now)
        for said in (mixed, mixed, on(now), mixed):
            hear(said)
        assert AuditEvent.objects.filter(kind="bot.mixture").count() == 1

    def test_it_ends_with_the_heartbeat_that_names_the_whole_release(self) -> None:
        scenarios.service_in_use()
        now = approved()
        hear(with_sol_of(Release.objects.get(line="v6_enhanced"), now))
        record_alarms()
        hear(on(now))
        record_alarms()
        assert (troubles(), states()) == ({}, {"desk-1": "current"})
        assert Acknowledgement.objects.get().move == now
        alarm = Alarm.objects.get(name="mixture")
        assert alarm.cleared_at is not None
        kinds = AuditEvent.objects.filter(object_type="alarm").order_by("seq").values_list("kind", flat=True)
        assert list(kinds) == ["alarm.raised", "alarm.cleared"]

    def test_a_revision_this_service_never_had_is_one_until_it_comes(self) -> None:
        now = scenarios.service_in_use()
        hear(on(now, revision=2))
        assert Bot.objects.get().mismatch == "this service never had revision 2"
        hear(on(approved()))
        assert states() == {"desk-1": "current"}

    def test_a_bot_on_the_revision_before_is_no_mixture(self) -> None:
        before = scenarios.service_in_use()
        approved()
        hear(on(before))
        assert states() == {"desk-1": "moving"}


class TestStanding:
    def test_a_bot_is_late_once_the_move_is_old_and_not_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = scenarios.service_in_use()
        hear(on(before))
        aged(Bot.objects, 3600, "first_heard_at")
        after = approved()
        assert (states(), troubles()) == ({"desk-1": "moving"}, {})
        moved_ago(after, settings.BOT_LATE_SECONDS + 1, monkeypatch)
        hear(on(before))
        assert states() == {"desk-1": "behind"}
        assert troubles() == {
            "behind": "These bots have not followed the pointer to revision 2: trader (desk-1)."
        }
        hear(on(after))
        assert (states(), troubles()) == ({"desk-1": "current"}, {})

    def test_a_bot_that_has_only_come_is_given_the_same_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = scenarios.service_in_use()
        moved_ago(now, 3600, monkeypatch)
        hear(nothing_yet())
        assert states() == {"desk-1": "moving"}

    def test_three_heartbeats_missed_are_silence_and_a_minute_of_it_an_alarm(self) -> None:
        now = scenarios.service_in_use()
        hear(on(now))
        aged(Bot.objects, 29, "last_heard_at")
        assert states() == {"desk-1": "current"}
        aged(Bot.objects, 31, "last_heard_at")
        assert (states(), troubles()) == ({"desk-1": "silent"}, {})
        aged(Bot.objects, settings.BOT_LATE_SECONDS + 1, "last_heard_at")
        assert "trader (desk-1)" in troubles()["silent"]

    def test_a_bot_with_a_revoked_token_or_silent_for_a_day_is_gone(self) -> None:
        now = scenarios.service_in_use()
        hear(on(now))
        aged(Bot.objects, settings.BOT_GONE_SECONDS + 1, "last_heard_at")
        assert (states(), troubles()) == ({"desk-1": "gone"}, {})
        aged(Bot.objects, 3600, "last_heard_at")
        assert states() == {"desk-1": "silent"}
        accounts.revoke_token(ApiToken.objects.get(user__username="trader"), actor="the tests")
        assert (states(), troubles()) == ({"desk-1": "gone"}, {})

    def test_a_bot_that_was_stopped_on_purpose_is_gone_until_it_reports_again(self) -> None:
        now = scenarios.service_in_use()
        hear(on(now))
        hear(on(now, is_stopping=True))
        assert (states(), troubles()) == ({"desk-1": "gone"}, {})
        assert fleet.count_bots(now, None).known == 0
        aged(Bot.objects, settings.BOT_LATE_SECONDS + 1, "last_heard_at")
        assert (states(), troubles()) == ({"desk-1": "gone"}, {})
        hear(on(now))
        assert (states(), fleet.count_bots(now, None).live) == ({"desk-1": "current"}, 1)

    def test_what_troubles_somebody_comes_first(self) -> None:
        scenarios.service_in_use()
        now = approved()
        hear(on(now, "a"))
        hear(on(now, "b"))
        aged(Bot.objects.filter(instance="b"), 40, "last_heard_at")
        hear(on(now, "c", revision=9))
        assert list(states()) == ["c", "b", "a"]

    def test_an_alarm_names_a_few_and_stays_the_same_while_others_follow(self) -> None:
        now = scenarios.service_in_use()
        for number in range(6):
            hear(on(now, f"desk-{number}", revision=9))
        sentence = troubles()["mixture"]
        assert sentence.endswith("trader (desk-0), trader (desk-1), trader (desk-2) and others.")
        hear(on(now, "desk-5"))
        assert troubles()["mixture"] == sentence


class TestConvergence:
    def test_a_move_has_converged_once_every_live_bot_runs_it(self) -> None:
        before = scenarios.service_in_use()
        for instance in ("a", "b"):
            hear(on(before, instance))
        after = approved()
        hear(on(after, "a"))
        monitor_bots()
        assert not Convergence.objects.filter(move=after).exists()
        hear(on(after, "b"))
        monitor_bots()
        monitor_bots()
        made = Convergence.objects.get(move=after)
        slowest = max(Acknowledgement.objects.filter(move=after).values_list("seconds", flat=True))
        assert (made.bots, made.slowest_seconds) == (2, slowest)
        event = AuditEvent.objects.get(kind="pointer.converged", object_id="2")
        assert json.loads(event.body)["detail"] == {"bots": 2, "slowest_seconds": slowest}

    def test_silent_bots_do_not_hold_it_up_and_none_at_all_is_no_convergence(self) -> None:
        before = scenarios.service_in_use()
        monitor_bots()
        assert not Convergence.objects.exists()
        hear(on(before, "away"))
        aged(Bot.objects, 60, "last_heard_at")
        hear(on(before, "here"))
        monitor_bots()
        assert Convergence.objects.get().bots == 1

    def test_who_came_after_the_move_says_nothing_of_how_fast_it_was(self) -> None:
        now = scenarios.service_in_use()
        hear(on(now))
        monitor_bots()
        assert Convergence.objects.get().slowest_seconds is None

    def test_a_bot_in_a_mixture_holds_it_up(self) -> None:
        now = scenarios.service_in_use()
        hear(on(now, revision=7))
        assert not fleet.count_bots(now, None).has_converged

    def test_all_follow_offline_too(self) -> None:
        scenarios.inherited()
        move = decide.pin(actor=APPROVER, reason="odd predictions")
        assert move.release is None
        hear(on(move))
        assert fleet.count_bots(move, None).has_converged

    @pytest.mark.parametrize("model", [Convergence, Acknowledgement])
    def test_neither_record_can_be_changed(self, model: Any) -> None:
        hear(on(scenarios.service_in_use()))
        monitor_bots()
        with pytest.raises(IntegrityError), transaction.atomic():
            model.objects.update(at=timezone.now())


class TestReady:
    def test_the_live_bots_that_hold_the_announced_release_are_counted(self) -> None:
        now = scenarios.service_in_use()
        waiting = scenarios.awaiting_approval()
        hear(on(now, "a", prefetched_next=waiting.pk))
        hear(on(now, "b"))
        counts = fleet.count_bots(now, pointer.get_announced())
        assert (counts.live, counts.prefetched_next, counts.all_have_next) == (2, 1, False)
        hear(on(now, "b", prefetched_next=waiting.pk))
        assert fleet.count_bots(now, pointer.get_announced()).all_have_next

    def test_the_live_bots_that_hold_the_fallback_are_counted(self) -> None:
        now = scenarios.service_in_use()
        fallback = pointer.get_pinnable()
        assert fallback is not None
        hear(on(now, "a", prefetched_fallback=fallback.pk))
        hear(on(now, "b"))
        counts = fleet.count_bots(now, None, fallback)
        assert (counts.live, counts.prefetched_fallback, counts.all_have_fallback) == (2, 1, False)
        hear(on(now, "b", prefetched_fallback=fallback.pk))
        assert fleet.count_bots(now, None, fallback).all_have_fallback

    def test_a_simulated_release_that_can_never_go_live_is_not_announced(self, settings: Any) -> None:
        scenarios.service_in_use()
        waiting = scenarios.Build(is_simulated=True).settled()
        assert pointer.get_announced() == waiting
        settings.ALLOW_SIMULATED = False
        assert pointer.get_announced() is None


class TestForgetting:
    def test_a_bot_not_heard_of_for_long_goes_with_what_it_acknowledged(self) -> None:
        now = scenarios.service_in_use()
        hear(on(now, "old"))
        hear(on(now, "new"))
        aged(Bot.objects.filter(instance="old"), settings.BOT_KEPT_SECONDS + 1, "last_heard_at")
        monitor_bots()
        assert list(Bot.objects.values_list("instance", flat=True)) == ["new"]
        assert Acknowledgement.objects.get().bot.instance == "new"

    def test_old_acknowledgements_go_but_not_those_of_what_the_bots_run(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hear(on(scenarios.service_in_use()))
        now = approved()
        hear(on(now))
        moved_ago(now, settings.BOT_KEPT_SECONDS + 60, monkeypatch)
        hear(on(now))
        prune()
        assert Acknowledgement.objects.get().move == now


def test_each_heartbeat_of_a_batch_is_answered_and_the_last_one_counts() -> None:
    before = scenarios.service_in_use()
    after = approved()
    mixed = on(after, "c", running=on(before).running)
    batch = [on(before, "a"), nothing_yet("b"), mixed, on(after, "b", service="crpbot-other"), on(after, "a")]
    outcomes = receive_heartbeats([ReceivedHeartbeat(TRADER, heartbeat) for heartbeat in batch])
    assert [isinstance(outcome, Conflict) for outcome in outcomes] == [False, False, False, True, False]
    assert states() == {"a": "current", "b": "moving", "c": "mixture"}
    acknowledged = Acknowledgement.objects.order_by("move")
    assert list(acknowledged.values_list("bot__instance", "move")) == [("a", 1), ("a", 2)]
    assert AuditEvent.objects.filter(kind="bot.mixture").count() == 1


@pytest.mark.parametrize("error", [timedelta(hours=1), -timedelta(hours=1)], ids=["ahead", "behind"])
def test_heartbeats_count_again_at_once_after_a_clock_error(error: timedelta) -> None:
    """Rows of the wrong hour would otherwise refuse every heartbeat until that hour comes."""
    scenarios.service_in_use()
    now = pointer.get_current()
    assert now is not None
    hear(on(now))
    Bot.objects.update(last_heard_at=timezone.now() + error)
    hear(on(now, client_version="0.2.0"))
    bot = Bot.objects.get()
    assert bot.client_version == "0.2.0"
    assert abs(bot.last_heard_at - timezone.now()) < timedelta(minutes=1)


def test_a_slow_process_does_not_overwrite_a_later_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = scenarios.service_in_use()
    after = approved()
    hear(on(after))
    heard_at = Bot.objects.get().last_heard_at
    monkeypatch.setattr(timezone, "now", lambda: heard_at - timedelta(seconds=1))
    hear(on(before))
    assert (Bot.objects.get().revision, Acknowledgement.objects.count()) == (2, 2)


def test_an_operator_is_no_bot_even_with_every_role() -> None:
    everything = Actor("ada", frozenset(Role))
    with pytest.raises(NotAllowed):
        hear(nothing_yet(), actor=everything)


class TestAuditHeads:
    """Bots keep the highest audit head that they saw signed. The service compares it with its chain."""

    def test_a_head_of_this_chain_is_no_alarm(self) -> None:
        now = scenarios.service_in_use()
        event = AuditEvent.objects.latest("seq")
        hear(on(now, audit_seq=event.seq, audit_hash=event.hash))
        assert fleet.list_bots_ahead_of_chain() == []

    @pytest.mark.parametrize("seq", [1, 10_000], ids=["rewritten", "cut short"])
    def test_a_head_that_the_chain_lacks_is_an_alarm_that_names_the_bot(self, seq: int) -> None:
        now = scenarios.service_in_use()
        hear(on(now, "desk-1", audit_seq=seq, audit_hash="0" * 64))
        (raised,) = [alarm for alarm in detect.list_alarms() if alarm.name == AlarmName.AUDIT]
        assert raised.is_critical
        assert "trader (desk-1)" in raised.sentence
