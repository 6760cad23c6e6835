"""Pinning the bots to the fallback, or taking them offline when it is not ready (rule 7, docs/rules.md#7)."""

from collections.abc import Mapping, Sequence

from common.errors import Conflict
from deploy.models import PointerMove
from deploy.pointer import pointer
from deploy.pointer.fallback import FallbackReadiness
from deploy.rules import MoveKind, ReleaseState
from gates.services import policies


def pin_in_transaction(
    reason: str, *, actor: object, readiness: FallbackReadiness, evidence: Sequence[Mapping[str, object]] = ()
) -> PointerMove:
    """Move the pointer to the fallback, or offline when it is not ready. The caller holds the audit head."""
    move = pointer.get_current()
    if move is None:
        raise Conflict("There is no pointer yet: inherit the release that the bots run now first.")
    registered = pointer.get_fallback()
    if readiness.is_ready and registered != readiness.release:
        raise Conflict("The fallback was replaced meanwhile. Look at it and ask again.")
    release = readiness.release if readiness.is_ready else None
    kind = MoveKind.PIN if release else MoveKind.OFFLINE
    if (move.kind, move.release_id) == (kind, release.pk if release else None):
        line = release.line if release else "offline"
        raise Conflict(f"The bots are on {line} already (revision {move.revision}).")
    if release is None:
        reason = f"{reason} — and the fallback is not ready: {readiness.problem}"
    elif readiness.unchecked:
        reason = f"{reason} — the fallback's bytes were not checked: {readiness.unchecked}"
    if release is not None and readiness.doubts:
        reason = f"{reason} — the fallback is not confirmed: {'; '.join(readiness.doubts)}"
    pointer.retire(move.release, ReleaseState.ROLLED_BACK, actor=actor, reason=reason)
    return pointer.move(
        kind, release, policy=policies.policy_in_force(), actor=actor, reason=reason, evidence=evidence
    )
