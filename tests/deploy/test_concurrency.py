"""Many people decide at once: one winner for each revision, no gap, no repeat, no deadlock, the chain intact."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import ParamSpec, TypeVar

import polars as pl
import pytest
from django.db import connection
from django.utils import timezone

from accounts.roles import Actor, Role
from audit import services as audit
from audit.hash_chain import hash_event
from audit.models import AuditEvent
from common.errors import Conflict, DomainError
from deploy.bots import live_gates
from deploy.bots.heartbeats import receive_heartbeat
from deploy.models import LiveWindow, PointerMove, ReleaseStatus
from deploy.pointer import pointer
from deploy.releases import decide as decide_service
from deploy.releases.decide import restore
from deploy.rules import MoveKind, ReleaseState
from gates.catalogue.live import Tally
from mlcore.confidence_bands import BANDS
from tests import factories, market_candles, scenarios
from tests.scenarios import APPROVER, SECOND_APPROVER
from training.services import coins, datasets
from training.services.datasets import StoredDataset

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("committed"), pytest.mark.slow]

REQUESTS = 100
AT_ONCE = 16

P = ParamSpec("P")
T = TypeVar("T")


def at_once(requests: list[Callable[[], object]], *, threads: int) -> list[object]:
    """Run them from many threads, each with its own connection; a refusal is an answer, anything else is raised."""
    start = threading.Barrier(min(threads, len(requests)))
    begun = threading.local()

    def ask(request: Callable[[], object]) -> object:
        if not getattr(begun, "yes", False):
            begun.yes = True
            start.wait(timeout=30)
        try:
            return request()
        except DomainError as refusal:
            return refusal
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(ask, requests))


def assert_sound(revisions: int) -> None:
    assert list(PointerMove.objects.order_by("revision").values_list("revision", flat=True)) == list(
        range(1, revisions + 1)
    )
    assert ReleaseStatus.objects.filter(state=ReleaseState.LIVE).count() <= 1
    assert audit.verify() == []


def test_of_two_concurrent_approvals_one_is_refused() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    answers = at_once(
        [
            lambda: decide_service.approve(release, actor=APPROVER, reason="passed", revision=1),
            lambda: decide_service.approve(release, actor=SECOND_APPROVER, reason="passed", revision=1),
        ],
        threads=2,
    )
    assert Counter(type(answer) for answer in answers) == {PointerMove: 1, Conflict: 1}
    assert AuditEvent.objects.filter(kind="release.approve.refused").count() == 1
    assert_sound(2)


def test_approvals_of_two_releases_on_the_same_revision_have_one_winner() -> None:
    scenarios.service_in_use()
    first, second = scenarios.awaiting_approval(1), scenarios.awaiting_approval(2)
    answers = at_once(
        [
            lambda: decide_service.approve(first, actor=APPROVER, reason="passed", revision=1),
            lambda: decide_service.approve(second, actor=SECOND_APPROVER, reason="passed", revision=1),
        ],
        threads=2,
    )
    assert Counter(type(answer) for answer in answers) == {PointerMove: 1, Conflict: 1}
    assert_sound(2)


def test_of_two_simultaneous_imports_of_one_dataset_one_is_new() -> None:
    frame = market_candles.generate(1_200)
    text = frame.with_columns(pl.col("timestamp").dt.epoch("ms")).write_csv().encode()
    coin = coins.find_coin("BTC")

    def bring() -> object:
        return datasets.import_candles(coin, text, name="BTC.csv", actor=factories.OPERATOR)

    first, second = at_once([bring, bring], threads=2)
    assert isinstance(first, StoredDataset)
    assert isinstance(second, StoredDataset)
    assert first.dataset == second.dataset
    assert {first.is_new, second.is_new} == {True, False}


def test_concurrent_approvals_and_pins_leave_one_winner_a_revision() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite writes one after another; the race is PostgreSQL's, in the second pass")
    scenarios.service_in_use()
    releases = [scenarios.awaiting_approval(seed) for seed in range(1, 5)]
    people = [Actor(f"approver{n}", frozenset({Role.APPROVER})) for n in range(REQUESTS)]

    def approve(number: int) -> object:
        now = pointer.get_current()
        assert now is not None
        release = releases[number % len(releases)]
        decide = decide_service.approve if release.status.state != ReleaseState.ROLLED_BACK else restore
        return decide(release, actor=people[number], reason=f"request {number}", revision=now.revision)

    def pin(number: int) -> object:
        return decide_service.pin(actor=people[number], reason=f"request {number}")

    requests: list[Callable[[], object]] = [
        partial(pin if n % 3 == 0 else approve, n) for n in range(REQUESTS)
    ]
    answers = at_once(requests, threads=AT_ONCE)
    moves = [answer for answer in answers if isinstance(answer, PointerMove)]
    refusals = [answer for answer in answers if isinstance(answer, DomainError)]
    assert len(moves) + len(refusals) == REQUESTS
    assert len({move.revision for move in moves}) == len(moves)
    assert {move.kind for move in moves} == {MoveKind.SWAP, MoveKind.PIN}
    assert AuditEvent.objects.filter(kind__endswith=".refused").count() == len(refusals)
    assert_sound(1 + len(moves))


def test_a_fleet_whose_bots_all_breach_at_once_is_pinned_once() -> None:
    now = scenarios.service_in_use()
    bots = [f"desk-{number}" for number in range(8)]
    trader = Actor("trader", is_bot=True)
    for instance in bots:
        receive_heartbeat(scenarios.heartbeat(now, instance), actor=trader)
    certain = Tally(20, 0, (20, 0, 0), (0,) * (BANDS - 1) + (20,), -12_527.0, 9_301.0)
    at = timezone.now()

    def post(instance: str) -> Callable[[], object]:
        said = scenarios.posted_window(certain, now.revision, at, instance=instance)
        return lambda: live_gates.receive_window(said, actor=trader)

    answers = at_once([post(instance) for instance in bots], threads=8)
    assert all(isinstance(answer, LiveWindow) for answer in answers), answers
    pin = PointerMove.objects.get(kind=MoveKind.PIN)
    assert (pin.revision, pin.moved_by, LiveWindow.objects.count()) == (2, "the live gates", 8)
    assert_sound(2)


@pytest.mark.parametrize("stage", ["head and tables", "walk"])
def test_a_pin_does_not_wait_for_a_verification(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verification is stopped where it has read the first of what it reads, and goes on once the pin is made."""
    scenarios.service_in_use()
    has_begun, goes_on = threading.Event(), threading.Event()

    def stop() -> None:
        has_begun.set()
        assert goes_on.wait(60), "the pin was not made"

    if stage == "walk":
        monkeypatch.setattr(audit, "CHUNK", 1)
        monkeypatch.setattr(audit, "hash_event", _after_first_call(hash_event, stop))
    else:
        first_replay, *others = audit._replays
        monkeypatch.setattr(audit, "_replays", [_after_first_call(first_replay, stop), *others])

    def verify() -> list[str]:
        try:
            return audit.verify()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        verified = pool.submit(verify)
        assert has_begun.wait(60)
        move = decide_service.pin(actor=APPROVER, reason="it trades oddly")
        assert not verified.done()
        goes_on.set()
        assert verified.result() == [], "of the state in which it began"
    assert move.kind == MoveKind.PIN
    assert_sound(2)


def _after_first_call(call: Callable[P, T], stop: Callable[[], None]) -> Callable[P, T]:
    """The same, but for a stop after the first call."""
    calls = count()

    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        answer = call(*args, **kwargs)
        if next(calls) == 0:
            stop()
        return answer

    return wrapped
