"""The steps that every decision has in common, so that no service repeats them or leaves one out.

with decision("key.retire", key, actor=actor, role=Role.APPROVER, to="retire a key", reason=reason) as reason:
    slow = read_files(release)  # before the lock
    with audit.locked():
        ...  # check again, then act
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.utils import timezone

from accounts.identity.people import list_other_names
from accounts.roles import ROLES_OF_PEOPLE, Actor, Role
from audit import services as audit
from common.errors import FactorNeeded, NotAllowed
from common.formatting import format_duration
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
    """Record a refusal, require role, second factor and second person, and give the checked reason to the body.

    `kind` names the event of a refusal, without `.refused`; `to` completes "may not …", as in "decline a release". Of
    several roles, any one is enough. Raises NotAllowed and InvalidInput, and passes on what the body raises.
    """
    with audit.record_refusals(kind, obj, actor=actor, reason=reason):
        require_role(actor, role, to)
        if first_person is not None and is_same_person(actor, first_person.name):
            raise NotAllowed(
                f"{_describe(actor, first_person)} {first_person.step}; it takes another person to {to}."
            )
        if role in ROLES_OF_PEOPLE:
            require_second_factor(actor, to)
        yield require_reason(reason)


def require_role(actor: Actor, role: Role | tuple[Role, ...], to: str) -> None:
    """Raise NotAllowed unless the actor holds the role, or any one of several."""
    roles = (role,) if isinstance(role, Role) else role
    if not any(actor.has(each) for each in roles):
        actor.require(roles[0], to)


def require_second_factor(actor: Actor, to: str) -> None:
    """Raise FactorNeeded unless the actor gave a second factor a short time ago (rule 34, docs/rules.md#34)."""
    if not has_fresh_factor(actor):
        fresh = format_duration(settings.SECOND_FACTOR_SECONDS)
        raise FactorNeeded(
            f"{actor} gave no second factor within the last {fresh}; it takes one to {to}. On a page, confirm it. With a"
            " token, send a code of your authenticator app in the header Crpbot-Second-Factor, or set"
            " CRPBOT_SECOND_FACTOR to it for a command."
        )


def has_fresh_factor(actor: Actor) -> bool:
    """Whether this actor may decide without giving a second factor again."""
    if actor.is_system or not settings.REQUIRE_SECOND_FACTOR:
        return True
    oldest = timezone.now() - timedelta(seconds=settings.SECOND_FACTOR_SECONDS)
    return actor.factor_at is not None and actor.factor_at > oldest


def is_same_person(actor: Actor, name: str) -> bool:
    """Whether a recorded name is the actor's, or that of another account of the same person."""
    return actor.is_called(name) or any(
        Actor(other).is_called(name) for other in list_other_names(actor.name)
    )


def _describe(actor: Actor, first: FirstPerson) -> str:
    return str(actor) if actor.is_called(first.name) else f"{actor} is the same person as {first.name}, who"
