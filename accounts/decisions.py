"""The steps that every decision has in common, so that no service repeats them or leaves one out.

with decision("key.retire", key, actor=actor, role=Role.APPROVER, to="retire a key", reason=reason) as reason:
    slow = read_files(release)  # before the lock
    with audit.locked():
        ...  # check again, then act
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import models

from accounts.roles import Actor, Role
from audit import services as audit
from common.errors import NotAllowed
from common.reasons import require_reason


@dataclass(frozen=True)
class FirstPerson:
    """Who took the first step of a decision that needs two people, and what that step was."""

    name: str
    step: str
    """As in "launched release 3"."""


@contextmanager
def decision(
    kind: str,
    obj: models.Model,
    *,
    actor: Actor,
    role: Role | tuple[Role, ...],
    to: str,
    reason: str,
    first_person: FirstPerson | None = None,
) -> Iterator[str]:
    """Record a refusal, require the role and a second person, and give the checked reason to the body.

    `kind` names the event of a refusal, without `.refused`; `to` completes "may not …", as in "decline a release". Of
    several roles, any one is enough. Raises NotAllowed and InvalidInput, and passes on what the body raises.
    """
    with audit.record_refusals(kind, obj, actor=actor, reason=reason):
        require_role(actor, role, to)
        if first_person is not None and actor.is_called(first_person.name):
            raise NotAllowed(f"{actor} {first_person.step}; it takes another person to {to}.")
        yield require_reason(reason)


def require_role(actor: Actor, role: Role | tuple[Role, ...], to: str) -> None:
    """Raise NotAllowed unless the actor holds the role, or any one of several."""
    roles = (role,) if isinstance(role, Role) else role
    if not any(actor.has(each) for each in roles):
        actor.require(roles[0], to)
