"""What bots count of their predictions: judged as it comes, and enough of them hold everybody on the fallback."""

import json
import math
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.roles import Actor
from audit.models import AuditEvent
from crpbot_runtime.live_windows import LiveWindows
from deploy.alarms import detect
from deploy.alarms.record import record_alarms
from deploy.bots import live_gates, live_windows
from deploy.bots.live_rules import is_majority, must_pin_fallback
from deploy.models import Alarm, Bot, LiveTotal, LiveWindow, PointerMove
from deploy.pointer import pointer
from deploy.pointer.fallback import check_fallback_cached
from deploy.prune import prune_rows
from deploy.releases import decide
from deploy.rules import AlarmName, MoveKind, ReleaseState, Severity
from gates.catalogue.live import RECENT_PREDICTIONS, Tally, judge_live
from gates.services import policies
from mlcore.bundle.predictor import Prediction
from mlcore.confidence_bands import BANDS
from mlcore.constants import CLASSES
from tests import factories, scenarios
from tests.api.callers import Caller, assert_problem
from tests.scenarios import APPROVER, COINS

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql, pytest.mark.slow]

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
V6_LOGITS = [(9301.0, -4022.0, -12527.0), (6120.0, -310.0, -4488.0), (702.0, -88.0, -655.0)]
V7_LOGITS = [(-0.9, 0.2, 1.1), (1.3, -0.4, -0.8), (0.1, 0.7, -0.6)]


def answer(logits: tuple[float, ...], at: datetime) -> Prediction:
    powers = [math.exp(logit - max(logits)) for logit in logits]
    shares = dict(zip(CLASSES, (power / sum(powers) for power in powers), strict=True))
    return Prediction(max(shares, key=shares.__getitem__), shares, logits, at, 0)


@dataclass
class Desk:
    """One bot: it says what it runs, predicts, and posts what its own client counts of that."""

    instance: str
    api: Caller
    summaries: LiveWindows = field(default_factory=LiveWindows)
    clock: datetime = NOON
    predictions: int = 0

    def follow(self) -> None:
        now = pointer.get_current()
        assert now is not None
        said = self.api.post("bots/heartbeat/", scenarios.heartbeat_fields(now, self.instance))
        assert said.status_code == 200, said.content

    def predict(
        self, coin: str, like: list[tuple[float, float, float]], revision: int
    ) -> list[dict[str, Any]]:
        """One prediction; what the service answered to the windows that are complete by it."""
        self.clock += timedelta(milliseconds=20)
        logits = like[self.predictions % len(like)]
        self.predictions += 1
        self.summaries.add(revision, coin, answer(logits, self.clock), self.clock)
        return self.post()

    def post(self) -> list[dict[str, Any]]:
        answers = []
        for window in self.summaries.pop_closed(self.clock):
            said = self.api.post("bots/windows/", window.to_document(self.instance))
            assert said.status_code == 201, said.content
            answers.append(said.json())
        return answers


@pytest.fixture
def bots(db: None) -> Caller:
    return Caller(Client(), factories.token(factories.person("trader"), "bot"))


def fleet_of(size: int, api: Caller) -> list[Desk]:
    desks = [Desk(f"desk-{number}", api) for number in range(1, size + 1)]
    for desk in desks:
        desk.follow()
    return desks


def swapped() -> PointerMove:
    """V7 is live: it passed every gate, and was approved."""
    scenarios.service_in_use()
    return decide.approve(scenarios.awaiting_approval(), actor=APPROVER, reason="passed", revision=1)


def now() -> PointerMove:
    found = pointer.get_current()
    assert found is not None
    return found


def window(revision: int, instance: str = "desk-1", *, ill: bool = False, **changes: Any) -> dict[str, Any]:
    """Thirty predictions as a client sends them."""
    summaries = LiveWindows()
    for number in range(30):
        logits = (V6_LOGITS if ill else V7_LOGITS)[number % 3]
        summaries.add(revision, "BTC", answer(logits, NOON), NOON)
    found = summaries.pop_closed(NOON + timedelta(minutes=2))
    return {**found[0].to_document(instance), **changes}


def alarm(name: AlarmName) -> Alarm | None:
    return next((t for t in detect.detect_alarms(check_fallback_cached()) if t.name == name), None)


def tell(api: Caller, body: dict[str, Any]) -> dict[str, Any]:
    said = api.post("bots/windows/", body)
    assert said.status_code == 201, said.content
    found: dict[str, Any] = said.json()
    return found


def test_a_fleet_that_predicts_like_v6_is_pinned_within_100_predictions(
    bots: Caller,
) -> None:
    revision = swapped().revision
    desks = fleet_of(3, bots)
    for turn in range(300):
        for desk in desks:
            desk.predict(COINS[turn % 3], V7_LOGITS, revision)
    assert (now().revision, LiveWindow.objects.filter(breach="").count()) == (revision, 9)

    ill = 0
    while now().revision == revision:
        for desk in desks:
            desk.predict(COINS[ill % 3], V6_LOGITS, revision)
            ill += 1
        assert ill < 100
    held = now()
    assert held.release is not None
    assert (held.kind, held.release.line, held.moved_by) == (MoveKind.PIN, "v5", "the live gates")
    assert (
        "2 of 3 bots that predict on revision 2 breach the live gates (1 of 1 owners): trader (desk-1): BTC logit range"
        in held.reason
    )
    assert PointerMove.objects.count() == 3


def test_the_windows_stand_in_the_moves_own_event(bots: Caller) -> None:
    revision = swapped().revision
    (desk,) = fleet_of(1, bots)
    live_release = now().release
    tell(desk.api, window(revision, ill=True))
    event = AuditEvent.objects.get(kind="pointer.pin")
    assert event.actor == "the live gates"
    (evidence,) = json.loads(event.body)["detail"]["evidence"]
    assert evidence["bot"] == "trader (desk-1)"
    assert (evidence["coin"], evidence["predictions"], evidence["logits"]) == ("BTC", 10, [-12527.0, 9301.0])
    assert evidence["window"] == LiveWindow.objects.get().pk
    assert live_release is not None
    assert live_release.__class__.objects.get(pk=live_release.pk).status.state == ReleaseState.ROLLED_BACK


def test_one_broken_bot_of_several_is_an_alarm_and_moves_nothing(bots: Caller) -> None:
    revision = swapped().revision
    fleet_of(3, bots)
    for instance in ("desk-2", "desk-3"):
        tell(bots, window(revision, instance))
    said = tell(bots, window(revision, ill=True))
    assert said["breach"].startswith("logit range: logits −12,527 … +9,301")
    assert now().revision == revision
    record_alarms()
    raised = Alarm.objects.get(name=AlarmName.LIVE)
    assert (raised.severity, "trader (desk-1)" in raised.sentence) == (Severity.WARNING, True)
    for at in range(1, 11):  # as soon as what it predicts looks healthy for long enough, it is over
        tell(
            bots,
            window(
                revision,
                first_at=(NOON + timedelta(hours=at)).isoformat(),
                last_at=(NOON + timedelta(hours=at)).isoformat(),
            ),
        )
    record_alarms()
    assert Alarm.objects.filter(name=AlarmName.LIVE, cleared_at=None).count() == 0


def test_a_bot_alone_is_its_own_majority(bots: Caller) -> None:
    revision = swapped().revision
    fleet_of(1, bots)
    tell(bots, window(revision, ill=True))
    assert now().kind == MoveKind.PIN


@pytest.mark.parametrize(
    ("breaching", "bots", "is_one"), [(0, 0, False), (1, 1, True), (1, 2, False), (2, 3, True), (2, 4, False)]
)
def test_a_majority_is_more_than_half_of_the_live_bots(breaching: int, bots: int, is_one: bool) -> None:
    assert is_majority(breaching, bots) is is_one


@pytest.mark.parametrize(
    ("kind", "holds"), [("inherited", True), ("swap", True), ("pin", False), ("offline", False)]
)
def test_there_is_nowhere_to_send_bots_that_are_on_the_fallback(kind: str, holds: bool) -> None:
    assert must_pin_fallback(kind=kind, breaching=3, voters=3) is holds


def test_what_the_bot_inherited_is_judged_like_everything_else(bots: Caller) -> None:
    scenarios.service_in_use()
    fleet_of(1, bots)
    tell(bots, window(1, ill=True))
    assert (now().revision, now().kind) == (2, MoveKind.PIN)


def test_a_window_of_another_revision_is_kept_and_counts_for_nothing(bots: Caller) -> None:
    revision = swapped().revision
    fleet_of(1, bots)
    assert tell(bots, window(1, ill=True)) == {"breach": "", "warning": ""}
    assert (now().revision, LiveWindow.objects.get().move_id) == (revision, 1)
    tell(bots, window(revision))
    assert live_gates.pin_if_breached() is None


def test_a_bot_that_runs_something_else_says_nothing_about_the_release(bots: Caller) -> None:
    revision = swapped().revision
    fleet_of(1, bots)
    said = scenarios.heartbeat_fields(now())
    bots.post("bots/heartbeat/", {**said, "bundles": {**said["bundles"], "BTC": "sha256:" + "0" * 64}})
    tell(bots, window(revision, ill=True))
    assert now().revision == revision


def test_bots_that_fell_silent_count_on_neither_side_and_reconcile_sees_it(bots: Caller) -> None:
    revision = swapped().revision
    fleet_of(3, bots)
    for instance in ("desk-2", "desk-3"):
        tell(bots, window(revision, instance))
    tell(bots, window(revision, ill=True))
    assert now().revision == revision
    Bot.objects.exclude(instance="desk-1").update(last_heard_at=timezone.now() - timedelta(minutes=5))
    live_gates.monitor_live_gates()
    assert now().moved_by == "the live gates"


@pytest.fixture
def others(bots: Caller) -> list[Caller]:
    """Two more owners of bot tokens."""
    return [Caller(Client(), factories.token(factories.person(name), "bot")) for name in ("rival", "third")]


def test_idle_instances_do_not_outvote_the_bots_that_predict(bots: Caller, others: list[Caller]) -> None:
    revision = swapped().revision
    fleet_of(4, others[0])
    for honest in (bots, others[1]):
        fleet_of(1, honest)
        tell(honest, window(revision, ill=True))
    assert now().kind == MoveKind.PIN


def test_bots_that_no_longer_predict_do_not_vote(bots: Caller) -> None:
    revision = swapped().revision
    fleet_of(5, bots)
    for number in (1, 2, 3):
        tell(bots, window(revision, f"desk-{number}"))
    for number in (4, 5):
        tell(bots, window(revision, f"desk-{number}", ill=True))
    long_ago = timezone.now() - live_windows.PREDICTS_WITHIN - timedelta(hours=1)
    LiveTotal.objects.filter(bot__instance__in=("desk-4", "desk-5")).update(received_at=long_ago)
    live_gates.monitor_live_gates()  # two of the three that predict would be a majority
    assert now().revision == revision
    status = live_windows.load_live_gate_status()
    assert status is not None
    assert (status.votes, status.breaching) == ([], [])


def test_many_lying_instances_of_one_owner_have_one_vote(bots: Caller, others: list[Caller]) -> None:
    revision = swapped().revision
    for honest in (bots, others[1]):
        fleet_of(1, honest)
        tell(honest, window(revision))
    for desk in fleet_of(4, others[0]):
        tell(others[0], window(revision, desk.instance, ill=True))
    assert now().revision == revision
    status = live_windows.load_live_gate_status()
    assert status is not None
    assert (status.votes, len(status.breaching_bots)) == (["rival"], 4)


def test_bots_that_predicted_under_an_earlier_revision_have_a_say(bots: Caller, others: list[Caller]) -> None:
    """After a move the first bot to send a window is not the only one that counts."""
    scenarios.service_in_use()
    for caller in (bots, *others):
        fleet_of(1, caller)
        tell(caller, window(1))
    passed = scenarios.awaiting_approval()
    revision = decide.approve(passed, actor=APPROVER, reason="passed", revision=1).revision
    for caller in (bots, *others):
        fleet_of(1, caller)
    tell(bots, window(revision, ill=True))
    assert now().revision == revision
    tell(others[0], window(revision, ill=True))
    assert now().kind == MoveKind.PIN


def test_a_window_sent_again_counts_once(bots: Caller) -> None:
    revision = swapped().revision
    fleet_of(2, bots)
    body = window(revision, ill=True)
    assert tell(bots, body) == tell(bots, body)
    assert LiveWindow.objects.count() == 1


def test_the_pin_happens_once_however_often_it_is_asked_for(bots: Caller) -> None:
    revision = swapped().revision
    desks = fleet_of(3, bots)
    for desk in desks:
        tell(bots, window(revision, desk.instance, ill=True))
    assert live_gates.pin_if_breached() is None
    assert PointerMove.objects.filter(kind=MoveKind.PIN).count() == 1


def test_without_a_fallback_that_is_fit_the_bots_go_offline_as_by_any_pin(bots: Caller) -> None:
    revision = swapped().revision
    fleet_of(1, bots)
    registered = pointer.get_fallback()
    assert registered is not None
    scenarios.damage(registered)
    tell(bots, window(revision, ill=True))
    assert now().kind == MoveKind.OFFLINE
    assert "the fallback is not ready" in now().reason


class TestOnTheFallback:
    @pytest.fixture(autouse=True)
    def pinned(self, db: None) -> PointerMove:
        scenarios.service_in_use()
        return decide.pin(actor=APPROVER, reason="to be sure")

    def test_v5_need_not_pass_the_gates_on_confidence_and_logits(self, bots: Caller) -> None:
        fleet_of(1, bots)
        assert tell(bots, window(2, ill=True)) == {"breach": "", "warning": ""}

    def test_non_finite_answers_of_the_fallback_are_critical_and_move_nothing(self, bots: Caller) -> None:
        fleet_of(1, bots)
        summaries = LiveWindows()
        for _ in range(10):
            summaries.add(2, "BTC", None, NOON)
        (none,) = summaries.pop_closed(NOON)
        assert (
            tell(bots, none.to_document("desk-1"))["breach"]
            == "finite answers: 10 of 10 predictions not finite"
        )
        found = alarm(AlarmName.LIVE)
        assert (now().revision, found.severity if found else None) == (2, Severity.CRITICAL)


def test_class_shares_of_thousands_of_predictions_warn_and_nothing_more(bots: Caller) -> None:
    revision = swapped().revision
    fleet_of(1, bots)
    always = [V7_LOGITS[0]]
    desk = Desk("desk-1", bots)
    said = [a for _ in range(2900) for a in desk.predict("BTC", always, revision)]
    assert {a["warning"] for a in said} == {""}
    said = [a for _ in range(100) for a in desk.predict("BTC", always, revision)]
    assert said[-1] == {"breach": "", "warning": "class balance: 0.0 % / 0.0 % / 100.0 % down / neutral / up"}
    found = alarm(AlarmName.DRIFT)
    assert found is not None
    assert (found.severity, found.sentence.endswith("BTC.")) == (Severity.WARNING, True)
    assert now().revision == revision


def test_a_feed_that_breaks_mid_revision_is_not_hidden_by_good_weeks(bots: Caller) -> None:
    revision = swapped().revision
    (desk,) = fleet_of(1, bots)
    for _ in range(1000):
        desk.predict("BTC", V7_LOGITS, revision)
    sure = [(0.0, 0.0, 6.0)]  # certain of everything, though no logit explodes
    told = [a["breach"] for _ in range(100) for a in desk.predict("BTC", sure, revision)]
    assert any(breach.startswith("confidence: ") for breach in told)
    assert now().kind == MoveKind.PIN


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"predictions": 31}, "class_counts"),
        ({"predictions": 0}, "predictions"),
        ({"predictions": 100_001}, "predictions"),
        ({"predictions": True}, "predictions"),
        ({"class_counts": {"down": 30, "neutral": 0}}, "class_counts"),
        ({"class_counts": {"down": -1, "neutral": 1, "up": 30}}, "class_counts"),
        ({"confidence": {"edges": [0.0] * 36, "counts": [0] * 35}}, "confidence"),
        ({"logits": {"min": None, "max": 1.0}}, "logits"),
        ({"logits": {"min": 2.0, "max": 1.0}}, "logits"),
        ({"logits": {"min": -(10**400), "max": 1.0}}, "logits"),
        ({"first_at": "0001-01-01T00:00:00+14:00"}, "first_at"),
        ({"logits": {"min": None, "max": None}}, "logits"),
        ({"out_of_range": 72 * 30 + 1}, "out_of_range"),
        ({"last_at": "2026-11-22T11:00:00Z"}, "last_at"),
        ({"revision": 99}, "revision"),
        ({"coin": "DOGE"}, "coin"),
        ({"note": "hello"}, "note"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_figures_that_cannot_be_are_refused_by_the_name_of_the_field(
    changes: dict[str, Any], field: str, bots: Caller
) -> None:
    revision = swapped().revision
    fleet_of(1, bots)
    problem = assert_problem(bots.post("bots/windows/", {**window(revision), **changes}), 400)
    assert any(name.split(".")[0] == field for name in problem["errors"])
    assert not LiveWindow.objects.exists()


def test_an_instance_that_nobody_has_heard_of_is_asked_for_a_heartbeat(bots: Caller) -> None:
    revision = swapped().revision
    assert_problem(bots.post("bots/windows/", window(revision)), 409, "Send a heartbeat first")


def test_a_window_never_changes_and_goes_with_its_age(bots: Caller, settings: Any) -> None:
    revision = swapped().revision
    fleet_of(1, bots)
    tell(bots, window(revision))
    with pytest.raises(DatabaseError, match="never changes"), transaction.atomic():
        LiveWindow.objects.update(breach="nothing to see")
    prune_rows()
    assert LiveWindow.objects.exists()
    settings.BOT_KEPT_SECONDS = 0
    prune_rows()
    assert not LiveWindow.objects.exists()


def test_posting_takes_few_queries_however_long_the_revision_lasts(
    bots: Caller, django_assert_max_num_queries: Any
) -> None:
    revision = swapped().revision
    (desk,) = fleet_of(1, bots)
    for _ in range(3000):
        desk.predict("BTC", V7_LOGITS, revision)
    with django_assert_max_num_queries(20):
        tell(bots, window(revision, coin="BTC"))


def scan(found: LiveWindow, policy: dict[str, Any]) -> tuple[str, str]:
    """The verdict on a stored window, from all windows before it: what the totals must say without reading them."""
    rows = LiveWindow.objects.filter(
        bot=found.bot_id, move=found.move_id, coin=found.coin_id, pk__lt=found.pk
    )
    before = live_windows.add_tallies(rows)
    whole = Tally(
        before.predictions,
        before.non_finite,
        before.classes,
        out_of_range=before.out_of_range,
        ranged=before.ranged,
    )
    recent = found.tally
    if recent.predictions < RECENT_PREDICTIONS:
        for earlier in rows.order_by("-pk")[: live_windows.RECENT_WINDOWS - 1]:
            recent += earlier.tally
            if recent.predictions >= RECENT_PREDICTIONS:
                break
    texts: dict[bool, list[str]] = {True: [], False: []}
    for outcome in judge_live(recent, whole + found.tally, policy):
        if outcome.finding.verdict == "failed":
            texts[outcome.is_tripwire].append(f"{outcome.gate.replace('_', ' ')}: {outcome.finding.observed}")
    return ", ".join(texts[True]), ", ".join(texts[False])


def draw_tally(rng: random.Random) -> Tally:
    """One to a hundred predictions: mostly sound, sometimes certain, one-sided, out of range or not finite."""
    predictions = rng.choice([1, 1, 5, 30, 99, 100])
    non_finite = predictions if rng.random() < 0.03 else 0
    finite = predictions - non_finite
    up = finite if rng.random() < 0.5 else rng.randint(0, finite)
    bands = [0] * BANDS
    bands[-1 if rng.random() < 0.3 else 8] = finite
    reach = rng.choice([3.0, 3.0, 3.0, 40.0])
    ranged = finite if rng.random() < 0.8 else 0
    return Tally(
        predictions,
        non_finite,
        (finite - up, 0, up),
        tuple(bands),
        -reach if finite else None,
        reach if finite else None,
        rng.choice([0, 5 * ranged]),
        ranged,
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_running_totals_judge_as_a_scan_of_all_windows_does(bots: Caller, seed: int) -> None:
    """Over batches, several windows of a bot in one batch, repeated windows, other revisions and deleted windows."""
    revision = swapped().revision
    fleet_of(2, bots)
    rng, trader, at = random.Random(seed), Actor("trader", is_bot=True), NOON
    policy = policies.policy_in_force().document
    # A lone bot that breaches would be pinned; the second owner keeps the majority from breaching.
    judged = 0
    with override_settings(BOT_KEPT_SECONDS=10**6), pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_gates, "try_to_pin", lambda: None)
        for turn in range(25):
            batch = []
            for _ in range(rng.randint(1, 6)):
                at += timedelta(minutes=2)
                said = scenarios.posted_window(
                    draw_tally(rng),
                    rng.choice([revision, revision, revision, 1]),
                    at,
                    instance=rng.choice(["desk-1", "desk-2"]),
                    coin=rng.choice(["BTC", "ETH"]),
                )
                batch.append(live_gates.ReceivedWindow(trader, said))
            for stored in live_gates.receive_windows(batch):
                assert isinstance(stored, LiveWindow)
                expected = scan(stored, policy) if stored.move_id == revision else ("", "")
                assert (stored.breach, stored.warning) == expected
                judged += bool(stored.breach or stored.warning)
            repeated = live_gates.receive_windows(batch[:1])
            assert [getattr(one, "pk", None) for one in repeated] == [
                LiveWindow.objects.get(first_at=batch[0].posted.window.first_at).pk
            ]
            if turn % 10 == 9:
                live_windows.delete_old_windows(timezone.now() + timedelta(minutes=1), limit=7)
    assert judged > 5
    for total in LiveTotal.objects.select_related("bot", "coin"):
        rows = LiveWindow.objects.filter(bot=total.bot_id, move=total.move_id, coin=total.coin_id)
        tally, newest = live_windows.add_tallies(rows), rows.order_by("-pk").first()
        assert (total.predictions, total.non_finite, (total.down, total.neutral, total.up)) == (
            tally.predictions,
            tally.non_finite,
            tally.classes,
        )
        assert newest is not None
        assert (total.out_of_range, total.ranged) == (tally.out_of_range, tally.ranged)
        assert (total.breach, total.warning, total.received_at) == (
            newest.breach,
            newest.warning,
            newest.received_at,
        )
        assert live_windows.list_newest_windows([total]) == [newest]


def test_two_who_delete_the_same_old_windows_take_them_out_once(
    bots: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process deletes while another has found them and waits for the lock."""
    revision = swapped().revision
    fleet_of(1, bots)
    for minute in range(4):
        at = (NOON + timedelta(minutes=minute)).isoformat()
        tell(bots, window(revision, "desk-1", ill=False, first_at=at, last_at=at))
    soon, find, deleted = timezone.now() + timedelta(minutes=1), LiveTotal.objects.filter, list[int]()

    def wait_for_another(**lookups: Any) -> Any:
        monkeypatch.setattr(LiveTotal.objects, "filter", find)
        deleted.append(live_windows.delete_old_windows(soon, limit=2))
        return find(**lookups)

    before = LiveTotal.objects.get().predictions
    monkeypatch.setattr(LiveTotal.objects, "filter", wait_for_another)
    deleted.append(live_windows.delete_old_windows(soon, limit=2))
    assert deleted == [2, 0]
    assert LiveTotal.objects.get().predictions == before / 2


def test_a_total_that_is_deleted_before_its_lock_is_created_again(
    bots: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = swapped().revision
    fleet_of(1, bots)
    create, created = LiveTotal.objects.bulk_create, list[Any]()

    def create_and_lose(*args: Any, **options: Any) -> Any:
        created.append(create(*args, **options))
        if len(created) == 1:
            LiveTotal.objects.all().delete()

    monkeypatch.setattr(LiveTotal.objects, "bulk_create", create_and_lose)
    tell(bots, window(revision, "desk-1", ill=False))
    assert LiveTotal.objects.get().predictions == LiveWindow.objects.get().predictions


def test_a_look_of_the_live_gates_reads_no_window(bots: Caller) -> None:
    """Its cost depends on the bots and not on what they have sent."""
    revision = swapped().revision
    fleet_of(3, bots)
    for hour in range(3):
        at = (NOON + timedelta(hours=hour)).isoformat()
        for instance in ("desk-2", "desk-3", "desk-1"):
            tell(bots, window(revision, instance, ill=instance == "desk-1", first_at=at, last_at=at))
    with CaptureQueriesContext(connection) as asked:
        status = live_windows.load_live_gate_status()
        assert status is not None and len(status.breaching_bots) == 1
        assert status.move.release is not None
        live_windows.summarize_live_coins(status.move.release)
    assert not [one["sql"] for one in asked if '"deploy_livewindow"' in one["sql"]]


def test_a_batch_takes_as_many_queries_as_one_window(bots: Caller) -> None:
    revision = swapped().revision
    fleet_of(6, bots)
    trader, tally = (
        Actor("trader", is_bot=True),
        Tally(10, 0, (4, 3, 3), (0,) * 8 + (10,) + (0,) * (BANDS - 9), -1.0, 1.0),
    )

    def count(instances: list[str], at: datetime) -> int:
        batch = [
            live_gates.ReceivedWindow(trader, scenarios.posted_window(tally, revision, at, instance=instance))
            for instance in instances
        ]
        with CaptureQueriesContext(connection) as asked:
            outcomes = live_gates.receive_windows(batch)
        assert all(isinstance(outcome, LiveWindow) for outcome in outcomes), outcomes
        return len(asked)

    count(["desk-1"], NOON)
    one = count(["desk-1"], NOON + timedelta(hours=1))
    assert count([f"desk-{number}" for number in range(1, 7)], NOON + timedelta(hours=2)) == one
