"""The decisions of people about a release, and the pin. What differs between them is in `decision_table`."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.utils import timezone

from accounts.decisions import FirstPerson, decision
from accounts.roles import Actor, Role
from audit import services as audit
from common import correlation
from common.errors import Conflict
from deploy import outcomes
from deploy.models import FallbackRegistration, PointerMove, Release, ReleaseCoin
from deploy.pointer import pointer
from deploy.pointer.fallback import check_fallback, check_readiness
from deploy.pointer.pin import pin_in_transaction
from deploy.releases import settle
from deploy.releases.decision_table import DECISIONS
from deploy.rules import Action, MoveKind, Purpose, ReleaseState, list_failures
from gates.models import GatePolicy
from gates.services import judging, policies
from mlcore.quality.result import format_interval


def decide(
    action: Action, release: Release, *, actor: Actor, reason: str, revision: int = 0
) -> PointerMove | None:
    """Carry out the decision of this name. Returns the move that it asked for, if any. Raises as its service does."""
    match action:
        case Action.APPROVE:
            return approve(release, actor=actor, reason=reason, revision=revision)
        case Action.RESTORE:
            return restore(release, actor=actor, reason=reason, revision=revision)
        case Action.INHERIT:
            return inherit(release, actor=actor, reason=reason)
        case Action.DECLINE:
            decline(release, actor=actor, reason=reason)
        case Action.CANCEL:
            cancel(release, actor=actor, reason=reason)
        case Action.REGISTER:
            register_fallback(release, actor=actor, reason=reason)
    return None


def approve(release: Release, *, actor: Actor, reason: str, revision: int) -> PointerMove:
    """Let the bots use a release that passed (rule 5, docs/rules.md#5). `revision` is the one this person saw.

    Raises NotAllowed without the approver role or by its launcher; Conflict when the pointer moved since, when a
    file is not the bytes that were measured, or when it does not pass the policy in force.
    """
    return _swap(release, Action.APPROVE, actor=actor, reason=reason, revision=revision)


def restore(release: Release, *, actor: Actor, reason: str, revision: int) -> PointerMove:
    """Restore a release that was live before: an approval, with every check repeated (rule 6, docs/rules.md#6)."""
    return _swap(release, Action.RESTORE, actor=actor, reason=reason, revision=revision)


def decline(release: Release, *, actor: Actor, reason: str) -> Release:
    """Refuse a release that passed. The fallback is pinned unless the live release has itself passed (rule 6)."""
    with _decision(Action.DECLINE, release, actor, reason) as reason:
        readiness = check_fallback()
        with audit.locked():
            release = _reload_for(Action.DECLINE, release)
            audit.transition(
                release.status, ReleaseState.DECLINED, actor=actor, reason=reason, settled_at=timezone.now()
            )
            settle.pin_unless_live_passed(f"{release} declined: {reason}", actor=actor, readiness=readiness)
    return _reload(release)


def cancel(release: Release, *, actor: Actor, reason: str) -> Release:
    """Stop building a release. It settles at once, with what is missing as errors (rule 2, docs/rules.md#2)."""
    with _decision(Action.CANCEL, release, actor, reason) as reason:
        with audit.locked():
            release = _reload_for(Action.CANCEL, release)
            release.status.cancel_requested_at = timezone.now()
            release.status.save(update_fields=["cancel_requested_at"])
            audit.record("release.cancelled", release, actor=actor, reason=reason)
        settle.settle(release, ended_early=f"cancelled by {actor}: {reason}")
    return _reload(release)


def pin(*, actor: Actor, reason: str) -> PointerMove:
    """Pin the fallback at once, whatever was seen (rule 6); offline when it is not ready (rule 7, docs/rules.md#7)."""
    move, to = pointer.get_current(), "pin the fallback"
    about = move.release if move and move.release else pointer.get_fallback()
    if about is None:
        actor.require(Role.APPROVER, to)
        raise Conflict("There is nothing to pin: no pointer and no fallback. Register both first.")
    with decision("pointer.pin", about, actor=actor, role=Role.APPROVER, to=to, reason=reason) as reason:
        readiness = check_fallback()
        with audit.locked():
            return pin_in_transaction(reason, actor=actor, readiness=readiness)


def register_fallback(release: Release, *, actor: Actor, reason: str) -> FallbackRegistration:
    """Make this the release that a pin leads to. Its launcher and its registrar are two people (rule 7)."""
    with _decision(Action.REGISTER, release, actor, reason) as reason:
        outcomes.require_complete(release, outcomes.list_release_coins(release))
        _reload_for(Action.REGISTER, release)
        if problems := check_readiness(release).problems:
            raise Conflict(f"{release} would not work as the fallback now: {'; '.join(problems)}.")
        with audit.locked():
            release = _reload_for(Action.REGISTER, release)
            pointer.require_interval(release)
            before = pointer.get_fallback()
            if before == release:
                raise Conflict(f"{release} is the registered fallback already.")
            detail = {"before": before.pk if before else None, "bundles": release.digests}
            audit.record("fallback.registered", release, actor=actor, reason=reason, detail=detail)
            return FallbackRegistration.objects.create(
                release=release, registered_by=actor.name, reason=reason
            )


def inherit(release: Release, *, actor: Actor, reason: str) -> PointerMove:
    """Start the pointer with what the bots run already, passed or not: revision 1 (rule 1, docs/rules.md#1)."""
    with _decision(Action.INHERIT, release, actor, reason) as reason:
        outcomes.require_complete(release, outcomes.list_release_coins(release))
        with audit.locked():
            release = _reload(release)
            _require_inheritable(release)
            audit.transition(
                release.status, ReleaseState.LIVE, actor=actor, reason=reason, settled_at=timezone.now()
            )
            return pointer.move(
                MoveKind.INHERITED, release, policy=policies.policy_in_force(), actor=actor, reason=reason
            )


def _swap(release: Release, action: Action, *, actor: Actor, reason: str, revision: int) -> PointerMove:
    with _decision(action, release, actor, reason) as reason:
        _reload_for(action, release)
        release_coins = outcomes.list_release_coins(release)
        outcomes.require_complete(release, release_coins)  # slow: before the transaction, not under its lock
        policy = policies.policy_in_force()
        _judge_under(policy, release_coins)
        with audit.locked():
            release = _reload_for(action, release)
            move = _require_revision(revision)
            _require_passed(release, policy)
            pointer.require_interval(release)
            replaced = f"replaced by {release}"
            pointer.retire(move.release, ReleaseState.SUPERSEDED, actor=actor, reason=replaced)
            audit.transition(release.status, ReleaseState.LIVE, actor=actor, reason=reason)
            return pointer.move(MoveKind.SWAP, release, policy=policy, actor=actor, reason=reason)


@contextmanager
def _decision(action: Action, release: Release, actor: Actor, reason: str) -> Iterator[str]:
    """The skeleton of a decision, with the role and the second person of its row in the table."""
    row = DECISIONS[action]
    first = FirstPerson(release.launched_by, f"launched {release}") if row.is_second_person_needed else None
    kind = f"release.{action}"
    with (
        correlation.resume(release.origin, release_id=release.pk),
        correlation.span(kind),
        decision(
            kind, release, actor=actor, role=row.role, to=row.task, reason=reason, first_person=first
        ) as checked,
    ):
        yield checked


def _reload(release: Release) -> Release:
    return Release.objects.select_related("status", "policy").get(pk=release.pk)


def _reload_for(action: Action, release: Release) -> Release:
    """The release as it is now. Raises Conflict unless its state allows the action."""
    release = _reload(release)
    if action not in release.allowed_actions:
        why = f" ({release.status.reason})" if release.status.reason else ""
        participle = DECISIONS[action].participle
        raise Conflict(f"{release} is {release.state}{why}; it cannot be {participle}.")
    return release


def _judge_under(policy: GatePolicy, release_coins: list[ReleaseCoin]) -> None:
    """Judge again, from stored measurements, each coin that the policy in force has not judged yet."""
    for release_coin in release_coins:
        if release_coin.bundle is not None and (
            release_coin.diagnosis is None or release_coin.diagnosis.policy_id != policy.pk
        ):
            judging.judge_latest(release_coin.bundle, policy, dataset=release_coin.dataset)


def _require_revision(seen: int) -> PointerMove:
    move = pointer.get_current()
    if move is None:
        raise Conflict("There is no pointer yet: inherit the release that the bots run now first.")
    if move.revision != seen:
        raise Conflict(
            f"The pointer moved since you looked: you saw revision {seen}, it is {move.revision} ({move.reason})."
            " Look again."
        )
    return move


def _require_passed(release: Release, policy: GatePolicy) -> None:
    if policies.policy_in_force() != policy:
        raise Conflict("Another policy came into force meanwhile. Look at the gates again.")
    release_coins = outcomes.list_release_coins(release)
    if failures := list_failures(outcomes.list_outcomes(policy, release_coins)):
        raise Conflict(f"{release} does not pass policy {policy.number}: {'; '.join(failures)}")
    if unjudged := outcomes.list_unjudged_coins(policy, release_coins):
        raise Conflict(
            f"{release} has no diagnosis of {', '.join(unjudged)} under policy {policy.number}, so nothing would be signed."
            " Wait for it, or launch a release without that coin."
        )


def _require_inheritable(release: Release) -> None:
    if pointer.get_current() is not None:
        raise Conflict("The service has its first pointer already; nothing more can be inherited.")
    if release.purpose != Purpose.INHERITED or release.state != ReleaseState.BUILDING:
        raise Conflict(
            f"{release} was launched as {release.purpose} and is {release.state}; it cannot be inherited."
        )
    if missing := outcomes.list_missing_coins(release):
        raise Conflict(f"{release} has no bundle yet for {', '.join(missing)}.")
    fallback = pointer.get_fallback()
    if fallback is not None and fallback.interval_seconds != release.interval_seconds:
        own, other = (format_interval(each.interval_seconds) for each in (release, fallback))
        raise Conflict(
            f"{release} has bars of {own}, and the fallback, {fallback}, bars of {other}: a pin would lead bots to the wrong"
            f" model. Register a fallback on bars of {own} first."
        )
