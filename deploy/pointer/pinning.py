"""Holding the bots on the fallback, or on nothing when not even that is fit."""

from collections.abc import Mapping, Sequence

from common.errors import Conflict
from deploy.models import PointerMove
from deploy.pointer import pointer
from deploy.pointer.fallback import FallbackReadiness
from deploy.rules import MoveKind, ReleaseState
from gates import services as gates


def pin_in_transaction(
    reason: str, *, actor: object, readiness: FallbackReadiness, evidence: Sequence[Mapping[str, object]] = ()
) -> PointerMove:
    """Move the pointer to the fallback, or offline when it is not fit (rule 7). The caller holds the audit head."""
    now = pointer.get_current()
    if now is None:
        raise Conflict("There is no pointer yet: inherit what the bot runs today first.")
    registered = pointer.get_fallback()
    if readiness.is_ready and registered != readiness.release:
        raise Conflict("The fallback was replaced at this moment. Look at it and ask again.")
    to = readiness.release if readiness.is_ready else None
    kind = MoveKind.PIN if to else MoveKind.OFFLINE
    if (now.kind, now.release_id) == (kind, to.pk if to else None):
        raise Conflict(f"The bots are on {to.line if to else 'nothing'} already (revision {now.revision}).")
    if to is None:
        reason = f"{reason} — and the fallback is not fit: {readiness.problem}"
    elif readiness.unchecked:
        reason = f"{reason} — the fallback's bytes were not checked: {readiness.unchecked}"
    if to is not None and readiness.doubts:
        reason = f"{reason} — not confirmed of the fallback: {'; '.join(readiness.doubts)}"
    pointer.retire(now.release, ReleaseState.ROLLED_BACK, actor=actor, reason=reason)
    return pointer.move(
        kind, to, policy=gates.policy_in_force(), actor=actor, reason=reason, evidence=evidence
    )
