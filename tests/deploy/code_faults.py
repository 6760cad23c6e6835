"""Faults that a tired engineer could leave in the services, and for each the shortest story in which it shows.

A fault is one piece of a function's own text, replaced while a test runs. Where that text is no longer there, planting
fails: a person who rewrites the function says here what the same slip would look like now.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from audit import services as audit
from deploy import outcomes
from deploy.pointer import fallback, pin, pointer
from deploy.releases import decide, launch, settle
from deploy.serving import signing
from gates.services import judging, policies
from tests.deploy.interruptions import Kill, Overtake
from tests.scenarios import APPROVER, LAUNCHER
from training.jobs import leases


@dataclass(frozen=True)
class CodeFault:
    """`before` stands once in the text of the function `where`, and becomes `after`; `story` has a `Service` show it."""

    name: str
    where: Callable[..., Any]
    before: str
    after: str
    story: Callable[[Any], None]
    needs_locks: bool = False
    """Shows only where two transactions run at once, as PostgreSQL's do."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        function = inspect.unwrap(self.where)
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(self.before) != 1:
            raise LookupError(f"{self.name}: {function.__name__} no longer reads {self.before!r} once")
        scope = dict(function.__globals__)
        exec(compile(source.replace(self.before, self.after), self.name, "exec"), scope)
        sound = function.__code__
        function.__code__ = inspect.unwrap(scope[function.__name__]).__code__
        try:
            yield
        finally:
            function.__code__ = sound


def approved(service: Any, seed: int = 1) -> None:
    service._release_a_healthy_one(seed, is_approved=True)


def awaiting(service: Any, seed: int = 1) -> None:
    service._release_a_healthy_one(seed)


def damaged_before_the_approval(service: Any) -> None:
    awaiting(service)
    service.approve(APPROVER, pick=0, stale=0, is_whole=False, disturbed=None)


def overtaken_launch(service: Any) -> None:
    service.bring_candles("BTC", "b")
    service.launch(LAUNCHER, seed=1, disturbed=Overtake(1, "withdraw", True))


def overtaken_approval(by: str) -> Callable[[Any], None]:
    def story(service: Any) -> None:
        awaiting(service)
        service.approve(APPROVER, pick=0, stale=0, is_whole=True, disturbed=Overtake(1, by, True))

    return story


def interrupted_approval(service: Any) -> None:
    awaiting(service)
    for at in (60, 50, 40, 30):
        service.approve(APPROVER, pick=0, stale=0, is_whole=True, disturbed=Kill(at))


def rivals_at_every_statement(service: Any) -> None:
    awaiting(service)
    for at in (12, 16, 20):  # under the lock, until the release in use is written
        service.approve(APPROVER, pick=0, stale=0, is_whole=True, disturbed=Overtake(at, "pin"))


def withdrawn_and_restored(service: Any) -> None:
    service.bring_candles("BTC", "b")
    approved(service)
    service.replace_candles("BTC", "c", seed=2, disturbed=None)
    service.restore(APPROVER, pick=0, disturbed=None)


def own_launch_approved(service: Any) -> None:
    both = service.both
    service.release_a_candidate(1, both, None)
    service.approve(both, pick=0, stale=0, is_whole=True, disturbed=None)


def own_policy_adopted(service: Any) -> None:
    service.propose_a_policy(APPROVER, above=0.60, adopted=False, disturbed=None)
    service.adopt_a_policy(APPROVER, disturbed=None)


def delivered_twice(service: Any) -> None:
    service.launch(LAUNCHER, seed=1, disturbed=None)
    service.a_message_is_delivered(pick=0)
    service.a_message_is_delivered(pick=0)
    service.look()


def back_from_the_dead(service: Any) -> None:
    service.launch(LAUNCHER, seed=1, disturbed=None)
    service.a_message_is_delivered(pick=0)
    service.time_passes(hours=0.01)
    service.a_message_is_delivered(pick=0)
    service.a_worker_finishes(pick=0, outcome="healthy", disturbed=None)


def approved_and_restored_under_another_policy(service: Any) -> None:
    awaiting(service)
    service.propose_a_policy(APPROVER, above=0.60, adopted=True, disturbed=None)
    service.approve(APPROVER, pick=0, stale=0, is_whole=True, disturbed=None)
    service.pin(APPROVER, is_fit=True, disturbed=None)
    service.restore(APPROVER, pick=0, disturbed=None)


def approved_under_a_stricter_policy(service: Any) -> None:
    awaiting(service)
    service.propose_a_policy(APPROVER, above=0.73, adopted=True, disturbed=None)
    service.approve(APPROVER, pick=0, stale=0, is_whole=True, disturbed=None)


def collapsed(service: Any) -> None:
    service.release_a_candidate(2, LAUNCHER, ("BTC", "collapsed"))


def declined(service: Any) -> None:
    awaiting(service)
    service.decline(APPROVER, pick=0, disturbed=None)


def a_coin_more(service: Any) -> None:
    awaiting(service)
    service.change_the_coins(APPROVER, coin="SOL", is_required=True, disturbed=None)
    service.approve(APPROVER, pick=0, stale=0, is_whole=True, disturbed=None)


def rejected_beside_one_that_lacks_a_coin(service: Any) -> None:
    approved(service)
    service.change_the_coins(APPROVER, coin="SOL", is_required=True, disturbed=None)
    collapsed(service)


def pinned(service: Any) -> None:
    service.pin(APPROVER, is_fit=True, disturbed=None)


def pinned_and_approved(service: Any) -> None:
    pinned(service)
    approved(service)


def pinned_on_what_is_damaged(service: Any) -> None:
    service.pin(APPROVER, is_fit=False, disturbed=None)


def pinned_as_the_fallback_is_replaced(service: Any) -> None:
    service.replace_the_fallback(seed=6, register=False, disturbed=None)
    service.pin(APPROVER, is_fit=True, disturbed=Overtake(1, "register", True))


def advanced(service: Any) -> None:
    service.advance_the_revision(APPROVER, by=1, disturbed=None)


REMEMBERED = """from django.core.cache import cache
    {name} = cache.get("pointer") or {get}
    cache.set("pointer", {name}, 20)"""
FAULTS = [
    CodeFault(
        "an approval hashes no file",
        decide._swap,
        "outcomes.require_complete(release, release_coins)",
        "pass",
        damaged_before_the_approval,
    ),
    CodeFault(
        "candles are looked at before the lock of a launch alone",
        launch.launch,
        "candle_checks.require_passed(dataset)",
        "pass",
        overtaken_launch,
    ),
    CodeFault(
        "the policy in force is read before the lock alone",
        decide._require_passed,
        "if policies.policy_in_force() != policy:",
        "if False:",
        overtaken_approval("adopt"),
    ),
    CodeFault(
        "what passed is looked at before the lock alone",
        decide._swap,
        """        with audit.locked():
            release = _reload_for(action, release)
            move = _require_revision(revision)
            _require_passed(release, policy)
""",
        """        _require_passed(release, policy)
        with audit.locked():
            release = _reload_for(action, release)
            move = _require_revision(revision)
""",
        overtaken_approval("require"),
    ),
    CodeFault(
        "the revision is compared before the lock alone",
        decide._swap,
        """        with audit.locked():
            release = _reload_for(action, release)
            move = _require_revision(revision)
""",
        """        move = _require_revision(revision)
        with audit.locked():
            release = _reload_for(action, release)
""",
        overtaken_approval("pin"),
    ),
    CodeFault(
        "the last revision is remembered for 20 s",
        pointer.move,
        "last = get_current()",
        REMEMBERED.format(name="last", get="get_current()"),
        pinned_and_approved,
    ),
    CodeFault(
        "an envelope is made of a move remembered for 20 s",
        signing._read_signable,
        "move = pointer.get_current()",
        REMEMBERED.format(name="move", get="pointer.get_current()"),
        pinned,
    ),
    CodeFault(
        "the one lock is no lock",
        audit.lock_head,
        "AuditHead.objects.select_for_update()",
        "AuditHead.objects",
        rivals_at_every_statement,
        needs_locks=True,
    ),
    CodeFault(
        "a swap is several transactions",
        decide._swap,
        "with audit.locked():",
        "if True:",
        interrupted_approval,
    ),
    CodeFault(
        "withdrawn candles are not looked at again",
        pointer.move,
        "if release is not None and (why := find_serving_blocker(release)):",
        "if False:",
        withdrawn_and_restored,
    ),
    CodeFault(
        "who launched may approve",
        decide._decision,
        "if row.is_second_person_needed",
        "if False",
        own_launch_approved,
    ),
    CodeFault(
        "who proposed a policy may adopt it",
        policies.adopt_policy,
        'first_person=FirstPerson(policy.proposed_by, f"proposed {policy}"),',
        "first_person=None,",
        own_policy_adopted,
    ),
    CodeFault(
        "a message that comes twice is worked on twice",
        leases.is_free,
        "return job.lease_until is None or job.lease_until < timezone.now()",
        "return True",
        delivered_twice,
    ),
    CodeFault(
        "a worker back from the dead ends the job of another",
        leases.end,
        'where={"attempt": job.attempt},',
        "",
        back_from_the_dead,
    ),
    CodeFault(
        "a diagnosis is made again each time it is requested",
        judging.judge,
        "return existing or _diagnose(measurement, policy)",
        "return _diagnose(measurement, policy)",
        approved_and_restored_under_another_policy,
    ),
    CodeFault(
        "the verdict of any policy counts",
        outcomes._find_outcome_under,
        '"policy": policy}',
        '"verdict": "passed"}',
        approved_under_a_stricter_policy,
    ),
    CodeFault(
        "a required coin that a release lacks is passed over",
        outcomes.list_outcomes,
        "for coin in list_required_coins()]",
        "for coin in list_required_coins() if coin.pk in by_coin]",
        a_coin_more,
    ),
    CodeFault(
        "one coin that passed is enough to stay in use",
        outcomes.has_passed_own_policy,
        "bool(required) and all(",
        "bool(required) and any(",
        rejected_beside_one_that_lacks_a_coin,
    ),
    CodeFault(
        "a rejection leaves the bots where they are",
        settle.settle,
        "if settlement.state == ReleaseState.REJECTED and release.purpose == Purpose.CANDIDATE:",
        "if False:",
        collapsed,
    ),
    CodeFault(
        "a decline leaves the bots where they are",
        decide.decline,
        "settle.pin_unless_live_passed(f",
        "(lambda *why, **by: None)(f",
        declined,
    ),
    CodeFault(
        "a pin hashes nothing",
        fallback.check_files,
        "list_damaged_files(release_coins)",
        "()",
        pinned_on_what_is_damaged,
    ),
    CodeFault(
        "a pin leaves a release live",
        pin.pin_in_transaction,
        "pointer.retire(move.release, ReleaseState.ROLLED_BACK, actor=actor, reason=reason)",
        "pass",
        pinned,
    ),
    CodeFault(
        "a pin goes to the fallback of before its lock",
        pin.pin_in_transaction,
        "if readiness.is_ready and registered != readiness.release:",
        "if False:",
        pinned_as_the_fallback_is_replaced,
    ),
    CodeFault(
        "an advance takes the bots along to the fallback",
        pointer.advance,
        "release=last.release,",
        "release=get_fallback(),",
        advanced,
    ),
]
