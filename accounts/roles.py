"""Roles, token scopes and actors."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from accounts import names
from common.errors import NotAllowed


class Role(StrEnum):
    """What a person may do. Every role includes reading."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMINISTRATOR = "administrator"


class Scope(StrEnum):
    """What a token may do: never more than its owner."""

    BOT = "bot"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMINISTRATOR = "administrator"


ROLE_OF_SCOPE = {
    Scope.OPERATOR: Role.OPERATOR,
    Scope.APPROVER: Role.APPROVER,
    Scope.ADMINISTRATOR: Role.ADMINISTRATOR,
}
ROLES_OF_PEOPLE = frozenset({Role.APPROVER, Role.ADMINISTRATOR})
"""Roles that no service account may hold, and whose decisions need a second factor."""


@dataclass(frozen=True)
class Actor:
    """The author of a request: a person, a token, or a part of the service. Its name is in the audit."""

    name: str
    roles: frozenset[Role] = field(default_factory=frozenset)
    is_bot: bool = False
    is_system: bool = False
    factor_at: datetime | None = None
    """When this person last gave a second factor; None where they did not."""

    def __str__(self) -> str:
        return self.name

    def is_called(self, name: str) -> bool:
        """Whether a recorded name is this one, as people read names: two that look alike are never two people."""
        return names.are_confusable(self.name, name)

    @property
    def can_view(self) -> bool:
        return self.is_system or bool(self.roles)

    def has(self, role: Role) -> bool:
        return self.is_system or role in self.roles

    def require(self, role: Role, to: str) -> None:
        """Raise NotAllowed unless this actor holds `role`; `to` names the action, as in "approve a release"."""
        if not self.has(role):
            held = ", ".join(sorted(self.roles)) or "none"
            raise NotAllowed(f"{self.name} may not {to}: that needs the {role} role (held: {held}).")


GATE = Actor("the gate", is_system=True)
RESERVED_NAMES = frozenset({"gate", "reconcile", "service", "system", "nobody"})


def limit_roles(scope: Scope, held: Collection[Role]) -> frozenset[Role]:
    """The roles that a token of this scope has, from those of its owner."""
    role = ROLE_OF_SCOPE.get(scope)
    return frozenset({role, Role.VIEWER}) if role and role in held else frozenset()
