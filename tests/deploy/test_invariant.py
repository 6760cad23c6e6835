"""Whatever people, workers and crashes do, in whatever order: the pointer never names what has not passed.

Hypothesis chooses the order. Decisions go through the services, on the real database with real commits; what workers
train and measure is written by the same leases that a worker writes it with. After every step the audit chain is replayed
by `ReferenceModel`, and what a bot would be given is verified as a bot does it.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck
from hypothesis import settings as trials_as
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from accounts.roles import Actor, Role
from audit import services as audit
from audit.hash_chain import to_canonical_json
from crpbot_runtime.protocol.envelope import verify_envelope
from crpbot_runtime.protocol.public_keys import PublicKeys
from deploy.bots import key_decisions, live_gates
from deploy.bots.heartbeats import receive_heartbeat
from deploy.models import Bot, PointerMove, Release, SigningKey
from deploy.pointer import pointer
from deploy.reconcile import reconcile_once
from deploy.releases import coins
from deploy.releases import decide as decide_service
from deploy.releases import launch as launch_service
from deploy.releases.decide import register_fallback
from deploy.releases.withdraw_dataset import withdraw_dataset
from deploy.rules import Action, Purpose, ReleaseState
from deploy.serving import keys, signing
from deploy.serving.advance import advance_revision
from gates.catalogue.live import Tally
from gates.models import GatePolicy, Measurement
from gates.services import policies
from mlcore.confidence_bands import BANDS
from tests import scenarios
from tests.deploy.code_faults import FAULTS, CodeFault
from tests.deploy.interruptions import Disturbance, Ground, Kill, Overtake, Swallowed, act
from tests.deploy.reference_model import ReferenceModel
from tests.scenarios import APPROVER, LAUNCHER, SECOND_APPROVER, VIEWER
from training import artifact_store
from training.jobs import leases, queue
from training.models import Coin, Dataset, Job, TrainingRun
from training.rules import JobState

pytestmark = pytest.mark.slow

BOTH = Actor("otto", frozenset({Role.VIEWER, Role.OPERATOR, Role.APPROVER}))
BOT = Actor("trader", is_bot=True)
CAST = (APPROVER, SECOND_APPROVER, LAUNCHER, BOTH, VIEWER)
MAY_DECIDE = (APPROVER, SECOND_APPROVER, BOTH)

FIGURES: dict[str, Callable[[str], dict[str, Any]]] = {
    "healthy": scenarios.healthy,
    "in doubt": lambda coin: _with_accuracy(scenarios.healthy(coin), point=0.66, lower=0.63),
    "inaccurate": scenarios.inaccurate,
    "collapsed": scenarios.collapsed,
}
OVERTAKING = ("approve", "adopt", "pin", "decline", "reconcile", "require", "register", "withdraw")

people = st.sampled_from([*MAY_DECIDE, *MAY_DECIDE, *CAST])
launchers = st.sampled_from([LAUNCHER, BOTH, LAUNCHER, BOTH, *CAST])
picks = st.integers(0, 5)
outcomes = st.sampled_from(["healthy", *FIGURES, "not measured"])
rivals = st.sampled_from(OVERTAKING)
disturbances: st.SearchStrategy[Disturbance] = st.one_of(
    st.none(),
    st.none(),
    st.none(),
    st.builds(Kill, st.integers(1, 60)),
    st.builds(Overtake, st.integers(1, 24), rivals),
    st.builds(Overtake, st.integers(1, 3), rivals, st.just(True)),
)


def _with_accuracy(document: dict[str, Any], **figures: float) -> dict[str, Any]:
    document["accuracy"] |= figures
    return document


class Clock:
    """Goes on by itself with every look, and by hours when it is told."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 22, tzinfo=UTC)

    def now(self) -> datetime:
        self.at += timedelta(microseconds=10)
        return self.at


class Service(RuleBasedStateMachine):
    """The service in use: V6 inherited, V5 the fallback; BTC and ETH required, SOL not."""

    ground: ClassVar[Ground]
    clock: ClassVar[Clock]
    both: ClassVar[Actor] = BOTH
    swallowed: ClassVar[Swallowed]
    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.ground.restore()
        self.clock.at = datetime(2026, 11, 22, tzinfo=UTC)
        self.hands: list[Job] = []
        self.workers = 0
        self.damaged: dict[str, bytes] = {}
        approvers = frozenset(person.name for person in MAY_DECIDE)
        lease = timedelta(seconds=settings.LEASE_SECONDS)
        self.oracle = ReferenceModel(approvers, required=set(scenarios.COINS), lease=lease)
        self.look()

    # What people ask for; what moves the pointer by what passed, twice as often

    @rule(who=launchers, seed=st.integers(1, 3), disturbed=disturbances)
    def launch(self, who: Actor, seed: int, disturbed: Disturbance) -> None:
        self.do(lambda: launch_service.launch("v7_fixed", actor=who, seed=seed), disturbed)

    @initialize(approved=st.lists(st.booleans(), max_size=3), newer=st.sampled_from([*scenarios.COINS, None]))
    def begin(self, approved: list[bool], newer: str | None) -> None:
        """On the first day, or later: with candidates that wait, and some that went live."""
        if newer is not None:
            self.bring_candles(newer, "b")
        for seed, is_approved in enumerate(approved, start=4):
            self._release_a_healthy_one(seed, is_approved=is_approved)

    @rule(
        seed=st.integers(1, 3),
        who=st.sampled_from([LAUNCHER, BOTH]),
        spoilt=st.none() | st.tuples(st.sampled_from(scenarios.COINS), outcomes),
    )
    def release_a_candidate(self, seed: int, who: Actor, spoilt: tuple[str, str] | None) -> None:
        """From the launch to its verdict, with all that workers do for it."""
        self.do(lambda: launch_service.launch("v7_fixed", actor=who, seed=seed), None)
        self.do(lambda: self._work_through(dict([spoilt] if spoilt else [])), None)

    @rule(seed=st.integers(6, 7), register=st.booleans(), disturbed=disturbances)
    def replace_the_fallback(self, seed: int, register: bool, disturbed: Disturbance) -> None:
        self.do(
            lambda: launch_service.launch("v5", actor=LAUNCHER, seed=seed, purpose=Purpose.FALLBACK),
            disturbed,
        )
        self.do(lambda: self._work_through({}), None)
        if register:
            self.do(self._register, disturbed)

    @rule(
        who=people,
        pick=picks,
        stale=st.sampled_from([0, 0, 0, 1]),
        is_whole=st.sampled_from([True, True, False]),
        disturbed=disturbances,
    )
    def approve(self, who: Actor, pick: int, stale: int, is_whole: bool, disturbed: Disturbance) -> None:
        """As it was seen, or too late; of what was measured, or of what was damaged since."""
        if not any(Action.APPROVE in release.allowed_actions for release in _releases()):
            self._release_a_healthy_one(1 + pick % 3, BOTH if pick % 2 else LAUNCHER)
        self.damaged_files_come_back()
        if not is_whole:
            self._damage_a_file(self._release(Action.APPROVE, pick), pick)
        self.do(lambda: self._swap(Action.APPROVE, who, pick, stale), disturbed)

    @rule(who=people, pick=picks, disturbed=disturbances)
    def restore(self, who: Actor, pick: int, disturbed: Disturbance) -> None:
        self.do(lambda: self._swap(Action.RESTORE, who, pick), disturbed)

    @rule(who=people, pick=picks, disturbed=disturbances)
    def decline(self, who: Actor, pick: int, disturbed: Disturbance) -> None:
        self.do(lambda: self._decline(who, pick), disturbed)

    @rule(who=people, pick=picks, disturbed=disturbances)
    def cancel(self, who: Actor, pick: int, disturbed: Disturbance) -> None:
        self.do(
            lambda: decide_service.cancel(self._release(Action.CANCEL, pick), actor=who, reason="no"),
            disturbed,
        )

    @rule(who=people, is_fit=st.sampled_from([True, True, False]), disturbed=disturbances)
    def pin(self, who: Actor, is_fit: bool, disturbed: Disturbance) -> None:
        """To the fallback; offline where its bytes are damaged just before."""
        if not is_fit:
            self.a_file_is_damaged(0, "the fallback")
        self.do(lambda: decide_service.pin(actor=who, reason="to be safe"), disturbed)

    @rule(who=people, pick=picks, disturbed=disturbances)
    def register(self, who: Actor, pick: int, disturbed: Disturbance) -> None:
        self.do(lambda: self._register(who, pick), disturbed)

    @rule(
        who=people, above=st.sampled_from([0.60, 0.65, 0.73]), adopted=st.booleans(), disturbed=disturbances
    )
    def propose_a_policy(self, who: Actor, above: float, adopted: bool, disturbed: Disturbance) -> None:
        document = policies.policy_in_force().document
        document["gates"]["accuracy"]["above"] = above
        self.do(lambda: policies.propose_policy(document, actor=who, reason="the market changed"), disturbed)
        if adopted:
            self.do(self._adopt, disturbed)

    @rule(who=people, disturbed=disturbances)
    def adopt_a_policy(self, who: Actor, disturbed: Disturbance) -> None:
        self.do(lambda: self._adopt(who), disturbed)

    @rule(
        who=people,
        coin=st.sampled_from(scenarios.COINS),
        is_required=st.booleans(),
        disturbed=disturbances,
    )
    def change_the_coins(self, who: Actor, coin: str, is_required: bool, disturbed: Disturbance) -> None:
        self.do(lambda: self._require(who, coin, is_required), disturbed)

    @rule(who=people, pick=picks, disturbed=disturbances)
    def withdraw_candles(self, who: Actor, pick: int, disturbed: Disturbance) -> None:
        self.do(lambda: self._withdraw(who, pick), disturbed)

    @rule(coin=st.sampled_from(scenarios.COINS), name=st.sampled_from("bcd"))
    def bring_candles(self, coin: str, name: str) -> None:
        scenarios.dataset(Coin.objects.get(symbol=coin), name=name)

    @rule(
        coin=st.sampled_from(scenarios.COINS),
        name=st.sampled_from("cd"),
        seed=st.integers(1, 3),
        disturbed=disturbances,
    )
    def replace_candles(self, coin: str, name: str, seed: int, disturbed: Disturbance) -> None:
        """What was used was stored wrongly: others, a release on them, and those are withdrawn."""
        former = Dataset.objects.filter(coin__symbol=coin).latest("id")
        self.bring_candles(coin, name)
        self._release_a_healthy_one(seed, is_approved=True)
        why: dict[str, Any] = {"actor": SECOND_APPROVER, "reason": "stored wrongly"}
        self.do(lambda: withdraw_dataset(former, **why), disturbed)

    @rule(who=people, by=st.integers(0, 3), disturbed=disturbances)
    def advance_the_revision(self, who: Actor, by: int, disturbed: Disturbance) -> None:
        self.do(lambda: advance_revision(by, actor=who, reason="from a backup"), disturbed)

    @rule(disturbed=disturbances, retires=st.booleans())
    def change_the_signing_key(self, disturbed: Disturbance, retires: bool) -> None:
        """In the order of a rotation, or in a wrong one, which is refused."""
        self.do(lambda: key_decisions.create_key(actor=APPROVER, reason="yearly"), None)
        newest, oldest = SigningKey.objects.first(), keys.list_active()[0]
        assert newest is not None
        why: dict[str, Any] = {"actor": APPROVER, "reason": "yearly"}
        self.do(lambda: key_decisions.activate_key(newest, **why), disturbed)
        if retires:
            self.do(lambda: key_decisions.retire_key(oldest, **why), disturbed)

    approve_once_more, restore_once_more = approve, restore

    # What workers, bots and time do

    @rule(pick=picks)
    def a_message_is_delivered(self, pick: int) -> None:
        """To a worker that claims its job, where that is free: the first time, late, or again."""
        jobs = self._jobs()
        if jobs:
            job = jobs[pick % len(jobs)]
            claimed = self._claim(job)
            self.hands += [claimed] if claimed else []

    @rule(pick=picks, outcome=outcomes, disturbed=disturbances)
    def a_worker_finishes(self, pick: int, outcome: str, disturbed: Disturbance) -> None:
        """Whichever, of those that ever claimed: one thought dead long ago, too, or one that finished already."""
        if self.hands:
            self.do(lambda: self._finish(self.hands[pick % len(self.hands)], outcome), disturbed)

    @rule(
        spoilt=st.dictionaries(st.sampled_from(scenarios.COINS), outcomes, max_size=1), disturbed=disturbances
    )
    def workers_work(self, spoilt: dict[str, str], disturbed: Disturbance) -> None:
        self.do(lambda: self._work_through(spoilt), disturbed)

    @rule(disturbed=disturbances)
    def reconcile(self, disturbed: Disturbance) -> None:
        self.do(reconcile_once, disturbed)

    @rule(hours=st.sampled_from([0.01, 0.01, 1.0, 4.0]))
    def time_passes(self, hours: float) -> None:
        self.clock.at += timedelta(hours=hours)

    @rule(bots=st.integers(1, 2), disturbed=disturbances)
    def bots_predict_like_v6(self, bots: int, disturbed: Disturbance) -> None:
        self.do(lambda: self._breach(bots), disturbed)

    @rule(pick=picks, whose=st.sampled_from(["the fallback", "in use", "the newest"]))
    def a_file_is_damaged(self, pick: int, whose: str) -> None:
        now = pointer.get_current()
        release = {
            "the fallback": pointer.get_fallback(),
            "in use": now.release if now else None,
            "the newest": Release.objects.order_by("-id").first(),
        }[whose]
        if release is not None:
            self._damage_a_file(release, pick)

    @rule()
    def damaged_files_come_back(self) -> None:
        for sha256 in list(self.damaged):
            self._mend(sha256)

    # What is held against it

    def do(self, what: Callable[[], object], disturbed: Disturbance) -> None:
        done = act(what, disturbed, self._overtake)
        self.look()
        if isinstance(done, PointerMove):
            assert done.revision in self.oracle.moves, "a move that was answered stands"

    def look(self) -> None:
        self.swallowed.look()
        self._forget_what_was_mended()
        if self.oracle.look(frozenset(self.damaged)):
            self._bots_are_given_what_passed()

    def _bots_are_given_what_passed(self) -> None:
        pinned = PublicKeys([key.public_hex for key in keys.list_active()])
        signed = verify_envelope(signing.get_envelope().body, pinned)
        told, move = signed.snapshot, self.oracle
        assert (told.revision, told.release) == (move.revision, move.release)
        event = PointerMove.objects.get(revision=move.revision).audit_seq
        assert signed.audit_head.seq >= event
        release_coins = [] if told.release is None else Release.objects.get(pk=told.release).coins.all()
        assert {coin: model.bundle for coin, model in told.models.items()} == {
            release_coin.coin.symbol: release_coin.bundle.digest
            for release_coin in release_coins
            if release_coin.bundle
        }
        for model in told.models.values():
            stored = {name: self._stored(file.sha256) for name, file in model.files.items()}
            assert "sha256:" + hashlib.sha256(stored["manifest.json"]).hexdigest() == model.bundle
            named = json.loads(stored["manifest.json"])["files"]
            assert {name: (file.sha256, file.size) for name, file in model.files.items()} == {
                **{name: (entry["sha256"], entry["size"]) for name, entry in named.items()},
                "manifest.json": (model.bundle.removeprefix("sha256:"), len(stored["manifest.json"])),
            }
            assert all(
                hashlib.sha256(stored[name]).hexdigest() == f.sha256 for name, f in model.files.items()
            )
        if signed.next is not None and signed.next.release is not None:
            assert Release.objects.get(pk=signed.next.release).state == ReleaseState.AWAITING_APPROVAL

    def teardown(self) -> None:
        self.damaged_files_come_back()
        assert audit.verify() == []
        type(self).seen.update(self.oracle.seen)

    # How it is done

    def _overtake(self, by: str) -> object:
        return {
            "approve": lambda: self._swap(Action.APPROVE, SECOND_APPROVER, 0),
            "pin": lambda: decide_service.pin(actor=SECOND_APPROVER, reason="overtaking"),
            "decline": lambda: self._decline(SECOND_APPROVER, 0),
            "adopt": self._tighten,
            "reconcile": reconcile_once,
            "require": lambda: self._require(SECOND_APPROVER, "SOL", True),
            "register": self._register,
            "withdraw": lambda: self._withdraw(SECOND_APPROVER, 0),
        }[by]()

    def _release_a_healthy_one(self, seed: int, who: Actor = LAUNCHER, *, is_approved: bool = False) -> None:
        self.release_a_candidate(seed, who, None)
        if is_approved:
            self.do(lambda: self._swap(Action.APPROVE, SECOND_APPROVER, 0), None)

    def _release(self, action: Action, pick: int) -> Release:
        """One of which this can be asked, the newest first; any, where there is none or the pick is the last."""
        found = _releases()
        fitting = [release for release in found if action in release.allowed_actions]
        chosen = fitting if fitting and pick < 5 else found
        return chosen[pick % len(chosen)]

    def _swap(self, action: Action, who: Actor, pick: int, stale: int = 0) -> PointerMove:
        decide = decide_service.approve if action == Action.APPROVE else decide_service.restore
        now = pointer.get_current()
        assert now is not None
        seen = now.revision - stale
        move = decide(self._release(action, pick), actor=who, reason="it passed", revision=seen)
        assert move.revision == seen + 1, "who decides has seen what was in use"
        return move

    def _decline(self, who: Actor, pick: int) -> Release:
        return decide_service.decline(self._release(Action.DECLINE, pick), actor=who, reason="not this one")

    def _register(self, who: Actor = SECOND_APPROVER, pick: int = 0) -> object:
        return register_fallback(self._release(Action.REGISTER, pick), actor=who, reason="a better")

    def _adopt(self, who: Actor = SECOND_APPROVER) -> object:
        newest = GatePolicy.objects.first()
        assert newest is not None
        return policies.adopt_policy(newest, actor=who, reason="agreed")

    def _tighten(self) -> object:
        """Two people put a policy in force that not all pass who passed before."""
        document = policies.policy_in_force().document
        document["gates"]["accuracy"]["above"] = 0.73
        policies.propose_policy(document, actor=APPROVER, reason="more is wanted")
        return self._adopt()

    def _require(self, who: Actor, coin: str, is_required: bool) -> Coin:
        found = Coin.objects.get(symbol=coin)
        return coins.set_required(found, is_required, actor=who, reason="asked for", is_confirmed=True)

    def _withdraw(self, who: Actor, pick: int) -> Dataset:
        found = list(Dataset.objects.order_by("-id"))
        return withdraw_dataset(found[pick % len(found)], actor=who, reason="stored wrongly")

    def _breach(self, bots: int) -> None:
        """So many of two bots say that what they run answers as V6 did."""
        now = pointer.get_current()
        if now is None or now.release is None:
            return
        certain = Tally(20, 0, (20, 0, 0), (0,) * (BANDS - 1) + (20,), -12_527.0, 9_301.0)
        at = timezone.now()
        for instance in ("desk-1", "desk-2"):
            receive_heartbeat(scenarios.heartbeat(now, instance), actor=BOT)
        for bot in Bot.objects.order_by("pk")[:bots]:
            posted = scenarios.posted_window(certain, now.revision, at, instance=bot.instance)
            live_gates.receive_window(posted, actor=BOT)

    def _jobs(self) -> list[Job]:
        return [*TrainingRun.objects.order_by("-id")[:4], *Measurement.objects.order_by("-id")[:4]]

    def _work_through(self, spoilt: dict[str, str]) -> None:
        """Workers take whatever waits until nothing does; a coin that is `spoilt` measures so."""
        for _ in range(4):
            for model in (TrainingRun, Measurement):
                for job in model.objects.filter(state__in=[JobState.QUEUED, JobState.RUNNING]):
                    if leases.is_free(job) and (held := self._claim(job)):
                        assert isinstance(held, TrainingRun | Measurement)
                        coin = held.coin if isinstance(held, TrainingRun) else held.bundle.coin
                        self._finish(held, spoilt.get(coin.symbol, "healthy"))

    def _claim(self, job: Job) -> Job | None:
        self.workers += 1
        version = {"code_version": settings.CODE_VERSION}
        return leases.claim(type(job), job.pk, worker_name=f"worker {self.workers}", **version)

    def _finish(self, job: Job, outcome: str) -> None:
        with suppress(leases.ClaimLost):
            if outcome == "not measured":
                leases.finish(job, JobState.FAILED, failure="out of memory")
            elif isinstance(job, TrainingRun):
                with transaction.atomic():
                    audit.lock_head()
                    made = scenarios.bundle(job.coin, job.dataset, job.line, seed=job.seed)
                    leases.finish(job, JobState.SUCCEEDED, bundle=made)
            else:
                assert isinstance(job, Measurement)
                body = _figures(job, "inaccurate" if job.bundle.line == "v5" else outcome)
                leases.finish(job, JobState.SUCCEEDED, body=body)

    def _stored(self, sha256: str) -> bytes:
        return self.damaged.get(sha256) or artifact_store.read(sha256)

    def _damage_a_file(self, release: Release, pick: int) -> None:
        for release_coin in release.coins.filter(bundle__isnull=False)[:1]:
            assert release_coin.bundle
            self._damage(release_coin.bundle.artifacts.all()[pick % 3].sha256, is_gone=pick > 2)

    def _damage(self, sha256: str, *, is_gone: bool) -> None:
        if sha256 not in self.damaged:
            self.damaged[sha256] = artifact_store.read(sha256)
            _path(sha256).unlink() if is_gone else _path(sha256).write_bytes(b"\0" + self.damaged[sha256][1:])

    def _mend(self, sha256: str) -> None:
        _path(sha256).write_bytes(self.damaged.pop(sha256))

    def _forget_what_was_mended(self) -> None:
        """By a worker that stored the same bytes again: two seeds' models may share a scaler."""
        self.damaged = {
            sha256: data
            for sha256, data in self.damaged.items()
            if not artifact_store.is_intact(sha256, len(data))
        }


def _releases() -> list[Release]:
    return list(Release.objects.select_related("status").order_by("-id"))


def _path(sha256: str) -> Path:
    return Path(default_storage.path(artifact_store.key(sha256)))


def _figures(measurement: Measurement, outcome: str) -> str:
    """As `mlcore.evaluation.measure` writes them, of this bundle and these candles."""
    made = measurement.bundle
    document = FIGURES[outcome](made.coin.symbol)
    document |= {
        "line": made.line,
        "bundle_digest": made.digest,
        "dataset_digest": measurement.dataset.digest,
    }
    document["trained_on"] = made.dataset.digest if made.dataset else None
    return to_canonical_json(document)


def _in_use() -> None:
    """A service on its first day, with three coins' candles and two required."""
    scenarios.service_in_use()
    sol = Coin.objects.get(symbol="SOL")
    coins.set_required(sol, False, actor=APPROVER, reason="two will do", is_confirmed=True)
    keys.export_public()


@pytest.fixture
def service(committed: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Service]]:
    Service.clock, Service.seen, Service.swallowed = Clock(), Counter(), Swallowed()
    monkeypatch.setattr(timezone, "now", Service.clock.now)
    monkeypatch.setattr(queue, "_paused_until", math.inf)  # no broker: a rule delivers, or nobody does
    _in_use()
    Service.ground = Ground()
    with Service.swallowed.listening():
        yield Service
    Service.ground.restore()
    Service.ground.close()


def trials(count: int, *, steps: int, **more: Any) -> trials_as:
    unhurried = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return trials_as(
        max_examples=count,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=unhurried,
        **more,
    )


WRONG = (AssertionError, IntegrityError)
"""What a trial ends with: an assertion of ours, or a guard of the database at which no service stopped."""
EVENTS = {"pointer.swap", "pointer.pin", "pointer.offline", "pointer.advanced", "fallback.registered"}


def make_every_move(machine: Service) -> None:
    """Each event of EVENTS once. The few trials of the suite come by some of them only, whichever Hypothesis draws."""
    machine.approve(SECOND_APPROVER, pick=0, stale=0, is_whole=True, disturbed=None)
    machine.pin(APPROVER, is_fit=True, disturbed=None)
    machine.pin(APPROVER, is_fit=False, disturbed=None)
    machine.damaged_files_come_back()
    machine.advance_the_revision(APPROVER, by=1, disturbed=None)
    machine.replace_the_fallback(6, register=True, disturbed=None)


@pytest.mark.postgresql
def test_the_pointer_never_names_what_has_not_passed(service: type[Service]) -> None:
    count = 8 if connection.vendor == "sqlite" else 3
    _play(service, make_every_move)
    run_state_machine_as_test(service, settings=trials(count, steps=20, derandomize=True))
    assert service.seen.keys() >= EVENTS


@pytest.mark.postgresql
@pytest.mark.long
def test_each_fault_planted_in_the_services_is_seen(service: type[Service]) -> None:
    """What `Service` and `ReferenceModel` assert can fail: each of these stories ends well on sound code alone."""
    faults = _plantable()
    for story in dict.fromkeys(fault.story for fault in faults):
        _play(service, story)
    unseen = []
    for fault in faults:
        with fault.planted(), suppress(*WRONG):
            _play(service, fault.story)
            unseen.append(fault.name)
    assert unseen == []


@pytest.mark.soak
def test_the_pointer_never_names_what_has_not_passed_in_many_long_trials(service: type[Service]) -> None:
    run_state_machine_as_test(service, settings=trials(120, steps=50))
    assert service.seen.keys() >= EVENTS


def _plantable() -> list[CodeFault]:
    return [fault for fault in FAULTS if fault.needs_locks == (connection.vendor == "postgresql")]


def _play(service: type[Service], story: Callable[[Service], None]) -> None:
    machine = service()
    try:
        story(machine)
    finally:
        machine.damaged_files_come_back()
    service.seen.update(machine.oracle.seen)
