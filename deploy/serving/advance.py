"""After the database came back from a backup: a higher revision, so that bots hear the service again."""

from accounts.decisions import decision
from accounts.rules import Actor, Role
from audit import services as audit
from common.errors import Conflict, InvalidInput
from deploy.models import PointerMove
from deploy.pointer import pointer
from deploy.serving import signing

MOST = 1_000_000
"""More is a slip of the hand; and a revision can never be taken back."""


def advance_revision(by: int, *, actor: Actor, reason: str) -> PointerMove:
    """Say again what the last move said, under a revision that is higher by so many. Bots run what they ran (ADR 0011).

    Raises NotAllowed without the approver role, InvalidInput, and Conflict before the first pointer or where that would not
    be beyond what was ever signed.
    """
    now = pointer.get_current()
    if now is None:
        actor.require(Role.APPROVER, "advance the revision")
        raise Conflict("There is no pointer yet: inherit what the bot runs today first.")
    to = "advance the revision"
    with decision("pointer.advance", now, actor=actor, role=Role.APPROVER, to=to, reason=reason) as reason:
        if not 1 <= by <= MOST:
            raise InvalidInput(f"The revision is advanced by 1 to {MOST:,}.", field="by")
        with audit.locked():
            lacking = signing.count_missing_revisions()
            if by < lacking:
                raise Conflict(
                    f"That is not beyond what was signed already: advance the revision by {lacking} or more."
                )
            return pointer.advance(by, actor=actor, reason=reason)
