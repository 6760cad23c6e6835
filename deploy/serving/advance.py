"""Advancing the revision after the database was restored from a backup, so that bots follow the service again."""

from accounts.decisions import decision
from accounts.roles import Actor, Role
from audit import services as audit
from common.errors import Conflict, InvalidInput
from deploy.models import PointerMove
from deploy.pointer import pointer, proof
from deploy.serving import signing, snapshot

MAX_ADVANCE = 1_000_000
"""More is a typing mistake, and a revision can never be lowered."""


def advance_revision(by: int, *, actor: Actor, reason: str) -> PointerMove:
    """Repeat the last move under a revision that is higher by `by`. Bots keep what they run (rule 21, docs/rules.md#21).

    Raises NotAllowed without the approver role, InvalidInput, and Conflict before the first pointer or when the new revision
    would not be above the highest signed one.
    """
    move = pointer.get_current()
    if move is None:
        actor.require(Role.APPROVER, "advance the revision")
        raise Conflict("There is no pointer yet: inherit the release that the bots run now first.")
    to = "advance the revision"
    with decision("pointer.advance", move, actor=actor, role=Role.APPROVER, to=to, reason=reason) as reason:
        if not 1 <= by <= MAX_ADVANCE:
            raise InvalidInput(f"The revision is advanced by 1 to {MAX_ADVANCE:,}.", field="by")
        highest, lost_head = signing.read_highest(), proof.find_lost_head(snapshot.get_service_name())
        with audit.locked():
            missing = signing.count_missing_revisions(highest)
            if by < missing:
                raise Conflict(
                    f"That is not above the highest signed revision: advance the revision by {missing} or more."
                )
            return pointer.advance(by, lost_head=lost_head, actor=actor, reason=reason)
