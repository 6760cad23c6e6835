"""What a person decides: approve, decline, restore, pin; and the two registrations the service begins with."""

from django.utils import timezone

from accounts.rules import Actor, Role
from audit import services as audit
from common.errors import Conflict, NotAllowed
from common.reasons import require_reason
from deploy import outcomes
from deploy.models import FallbackRegistration, PointerMove, Release, ReleaseCoin
from deploy.pointer import pointer
from deploy.pointer.fallback import check_fallback, check_readiness
from deploy.pointer.pinning import pin_in_transaction
from deploy.releases.launch import require_action
from deploy.releases.settle import pin_unless_live_passed
from deploy.rules import Action, MoveKind, Purpose, ReleaseState, list_failures
from gates import services as gates
from gates.models import GatePolicy


def approve(release: Release, *, actor: Actor, reason: str, revision: int) -> PointerMove:
    """Let the bots use a release that passed (rule 5). `revision` is the one this person saw.

    Raises NotAllowed without the approver role or by its launcher; Conflict when the pointer moved since, when a
    file is not the bytes that were measured, or when it does not pass the policy in force.
    """
    with audit.record_refusals("release.approve", release, actor=actor, reason=reason):
        return _swap(release, Action.APPROVE, actor=actor, reason=reason, revision=revision)


def restore(release: Release, *, actor: Actor, reason: str, revision: int) -> PointerMove:
    """Bring back a release that was live before: like an approval, with every check anew (rule 6)."""
    with audit.record_refusals("release.restore", release, actor=actor, reason=reason):
        return _swap(release, Action.RESTORE, actor=actor, reason=reason, revision=revision)


def decline(release: Release, *, actor: Actor, reason: str) -> Release:
    """Refuse a release that passed. The bots stay where they are only if what they run has itself passed (rule 6)."""
    with audit.record_refusals("release.decline", release, actor=actor, reason=reason):
        actor.require(Role.APPROVER, "decline a release")
        reason = require_reason(reason)
        readiness = check_fallback()
        with audit.locked():
            release = _fresh(release)
            require_action(release, Action.DECLINE)
            audit.transition(
                release.status, ReleaseState.DECLINED, actor=actor, reason=reason, settled_at=timezone.now()
            )
            pin_unless_live_passed(f"{release} declined: {reason}", actor=actor, readiness=readiness)
    return _fresh(release)


def pin(*, actor: Actor, reason: str) -> PointerMove:
    """Hold every bot on the fallback, at once, whatever was seen (rule 6); offline when it is not fit (rule 7)."""
    now = pointer.current()
    about = now.release if now and now.release else pointer.fallback()
    if about is None:
        actor.require(Role.APPROVER, "pin the fallback")
        raise Conflict("There is nothing to pin: no pointer and no fallback. Register both first.")
    with audit.record_refusals("pointer.pin", about, actor=actor, reason=reason):
        actor.require(Role.APPROVER, "pin the fallback")
        reason = require_reason(reason)
        readiness = check_fallback()
        with audit.locked():
            return pin_in_transaction(reason, actor=actor, readiness=readiness)


def register_fallback(release: Release, *, actor: Actor, reason: str) -> FallbackRegistration:
    """Make this the release that a pin holds the bots on. Its launcher and its registrar are two people (rule 7)."""
    with audit.record_refusals("release.register", release, actor=actor, reason=reason):
        reason = _authorise(release, actor, "register a fallback", reason)
        outcomes.require_intact(release, outcomes.list_release_coins(release))
        require_action(_fresh(release), Action.REGISTER)
        if problems := check_readiness(release).problems:
            raise Conflict(f"{release} would not do as the fallback today: {'; '.join(problems)}.")
        with audit.locked():
            release = _fresh(release)
            require_action(release, Action.REGISTER)
            before = pointer.fallback()
            if before == release:
                raise Conflict(f"{release} is the registered fallback already.")
            detail = {"before": before.pk if before else None, "bundles": _digests(release)}
            audit.record("fallback.registered", release, actor=actor, reason=reason, detail=detail)
            return FallbackRegistration.objects.create(
                release=release, registered_by=actor.name, reason=reason
            )


def inherit(release: Release, *, actor: Actor, reason: str) -> PointerMove:
    """Begin with what the bot runs today, whatever it is worth: revision 1 (rule 1)."""
    with audit.record_refusals("release.inherit", release, actor=actor, reason=reason):
        actor.require(Role.APPROVER, "inherit a release")
        reason = require_reason(reason)
        release_coins = outcomes.list_release_coins(release)
        outcomes.require_intact(release, release_coins)
        with audit.locked():
            release = _fresh(release)
            _require_inheritable(release, release_coins)
            audit.transition(
                release.status, ReleaseState.LIVE, actor=actor, reason=reason, settled_at=timezone.now()
            )
            return pointer.move(
                MoveKind.INHERITED, release, policy=gates.policy_in_force(), actor=actor, reason=reason
            )


def _swap(release: Release, action: Action, *, actor: Actor, reason: str, revision: int) -> PointerMove:
    reason = _authorise(release, actor, f"{action} a release", reason)
    require_action(_fresh(release), action)
    release_coins = outcomes.list_release_coins(release)
    outcomes.require_intact(
        release, release_coins
    )  # hashing takes time: before the transaction, not under its lock
    policy = gates.policy_in_force()
    _judge_under(policy, release_coins)
    with audit.locked():
        release = _fresh(release)
        require_action(release, action)
        now = _require_revision(revision)
        _require_passed(release, policy)
        pointer.retire(now.release, ReleaseState.SUPERSEDED, actor=actor, reason=f"{release} took its place")
        audit.transition(release.status, ReleaseState.LIVE, actor=actor, reason=reason)
        return pointer.move(MoveKind.SWAP, release, policy=policy, actor=actor, reason=reason)


def _authorise(release: Release, actor: Actor, to: str, reason: str) -> str:
    actor.require(Role.APPROVER, to)
    if actor.name == release.launched_by:
        raise NotAllowed(f"{actor} launched {release}; it takes another person to {to}.")
    return require_reason(reason)


def _judge_under(policy: GatePolicy, release_coins: list[ReleaseCoin]) -> None:
    """Judge again, from stored measurements, whatever the policy in force has not judged yet."""
    for release_coin in release_coins:
        if release_coin.bundle is not None and (
            release_coin.diagnosis is None or release_coin.diagnosis.policy_id != policy.pk
        ):
            gates.judge_stored(release_coin.bundle, policy, dataset=release_coin.dataset)


def _require_revision(seen: int) -> PointerMove:
    now = pointer.current()
    if now is None:
        raise Conflict("There is no pointer yet: inherit what the bot runs today first.")
    if now.revision != seen:
        raise Conflict(
            f"The pointer moved since you looked: you saw revision {seen}, it is {now.revision} ({now.reason}). Look again."
        )
    return now


def _require_passed(release: Release, policy: GatePolicy) -> None:
    if gates.policy_in_force() != policy:
        raise Conflict("Another policy came into force at this moment. Look at the gates again.")
    failures = list_failures(outcomes.list_outcomes(policy, outcomes.list_release_coins(release)))
    if failures:
        raise Conflict(f"{release} does not pass policy {policy.number}: {'; '.join(failures)}")


def _require_inheritable(release: Release, release_coins: list[ReleaseCoin]) -> None:
    if pointer.current() is not None:
        raise Conflict("The service has its first pointer already; nothing more can be inherited.")
    if release.purpose != Purpose.INHERITED or release.state != ReleaseState.BUILDING:
        raise Conflict(
            f"{release} was launched as {release.purpose} and is {release.state}; it cannot be inherited."
        )
    held = {release_coin.coin_id for release_coin in release_coins if release_coin.bundle is not None}
    lacking = [coin.symbol for coin in outcomes.list_required_coins() if coin.pk not in held]
    if lacking:
        raise Conflict(f"{release} holds no bundle yet for {', '.join(lacking)}.")


def _digests(release: Release) -> dict[str, str]:
    return {
        release_coin.coin.symbol: release_coin.bundle.digest
        for release_coin in outcomes.list_release_coins(release)
        if release_coin.bundle
    }


def _fresh(release: Release) -> Release:
    return Release.objects.select_related("status", "policy").get(pk=release.pk)
