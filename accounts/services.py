"""People, their roles and their tokens. Every change is recorded in the audit chain."""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts import names
from accounts.models import ApiToken, RoleGrant, User
from accounts.roles import RESERVED_NAMES, ROLE_OF_SCOPE, ROLES_OF_PEOPLE, Actor, Role, Scope, limit_roles
from accounts.tokens import LIFETIME, PER_QUERY, note_use
from audit import services as audit
from common.errors import Conflict, InvalidInput, NotFound

CHANGES_PER_QUERY = 10_000
"""After more events than this, a process looks all its tokens up again instead of reading what changed."""


def hash_token(raw: str) -> str:
    """Tokens are 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(raw.encode()).hexdigest()


def build_actor(user: User, factor_at: datetime | None = None) -> Actor:
    """The actor of a session, whose person last gave a second factor at this time, or of a user name."""
    roles = frozenset(Role(grant.role) for grant in user.grants.all())
    return Actor(user.username, roles, factor_at=factor_at)


def find_token(number: int) -> ApiToken:
    try:
        return ApiToken.objects.select_related("user").get(pk=number)
    except ApiToken.DoesNotExist:
        raise NotFound(f"There is no token {number}. `manage.py people --tokens` lists them.") from None


def find_user(username: str) -> User:
    try:
        return User.objects.get(username=names.normalize(username), is_active=True)
    except User.DoesNotExist:
        raise NotFound(f"There is no active user {username!r}. `manage.py people` lists them.") from None


def create_user(
    username: str,
    *,
    password: str | None,
    roles: list[Role],
    actor: object,
    is_staff: bool = False,
    is_service: bool = False,
) -> User:
    """Create an account with these roles. A person without a password signs in by single sign-on, or not at all.

    Raises InvalidInput for an invalid name or password, Conflict for a name in use or one that looks like it.
    """
    _check_name(username)
    if password is not None:
        _check_password(password, username)
    user = User(username=User.normalize_username(username), is_staff=is_staff, is_service=is_service)
    user.set_password(password)  # hashing is slow: before the lock
    with audit.locked():
        if taken := names.find_confusable(user.username, User.objects.values_list("username", flat=True)):
            same = taken == user.username
            raise Conflict(
                f"There is already a user {taken!r}."
                if same
                else f"The name {username!r} could be mistaken for {taken!r}, who is a user already. Choose one that differs"
                " more, also for the eye."
            )
        user.save(force_insert=True)
        audit.record(
            "user.created", user, actor=actor, detail={"is_staff": is_staff, "is_service": is_service}
        )
        for role in roles:
            grant(user, role, actor=actor)
    return user


def set_password(user: User, password: str, *, actor: object) -> None:
    """Set a password, which ends every session and every token of this person. Raises InvalidInput."""
    if user.is_service:
        raise InvalidInput(f"{user.username} is a service account: it cannot sign in.", field="password")
    _check_password(password, user.username)
    user.set_password(password)  # hashing is slow: before the lock
    with audit.locked():
        user.save(update_fields=["password"])
        audit.record("user.password_set", user, actor=actor)
        _revoke_tokens(user, actor=actor, reason="the password was changed")


@audit.locked()
def close_account(user: User, *, actor: object) -> None:
    """Close an account at once: no session, no token. Its name stays in the audit. Repeating this changes nothing.

    Raises Conflict for the last administrator.
    """
    _keep_last_administrator(user)
    if User.objects.filter(pk=user.pk, is_active=True).update(is_active=False):
        audit.record("user.closed", user, actor=actor)
        _revoke_tokens(user, actor=actor, reason="the account was closed")


def _revoke_tokens(user: User, *, actor: object, reason: str) -> None:
    for token in user.tokens.filter(revoked_at=None):
        revoke_token(token, actor=actor, reason=reason)


def _check_name(username: str) -> None:
    """Refuse a name that could be mistaken in the audit for a part of the service, or that hides a character."""
    if names.find_confusable(username, RESERVED_NAMES):
        raise InvalidInput(
            f"The service itself uses the name {username!r}; choose another one.", field="username"
        )
    if names.has_invisible(username):
        raise InvalidInput(
            f"The name {username!r} holds a character that is not drawn. Leave it out.", field="username"
        )
    try:
        User.username_validator(username)
    except ValidationError as refused:
        raise InvalidInput(
            f"The name {username!r}: {' '.join(refused.messages)}", field="username"
        ) from refused


def _check_password(password: str, username: str) -> None:
    try:
        validate_password(password, User(username=username))
    except ValidationError as refused:
        raise InvalidInput(f"The password: {' '.join(refused.messages)}", field="password") from refused


@audit.locked()
def grant(user: User, role: Role, *, actor: object) -> None:
    """Grant a role. Granting it again changes nothing and records no event.

    Raises InvalidInput for a role that a service account cannot hold: those of people, and operator before it is known who
    is responsible for it. What it launches counts as launched by that person.
    """
    if user.is_service and role in ROLES_OF_PEOPLE:
        raise InvalidInput(f"{user.username} is a service account: only a person is {role}.", field="role")
    is_nobodys = user.is_service and User.objects.filter(pk=user.pk, counts_as=None).exists()
    if is_nobodys and role == Role.OPERATOR:
        raise InvalidInput(
            f"Say first who is responsible for {user.username}: --counts-as NAME. What it launches counts as theirs.",
            field="role",
        )
    _, is_new = RoleGrant.objects.get_or_create(user=user, role=role)
    if is_new:
        audit.record("role.granted", user, actor=actor, detail={"role": role})


@audit.locked()
def withdraw(user: User, role: Role, *, actor: object, even_last: bool = False) -> None:
    """Withdraw a role, at once for every session and token. Raises Conflict for that of the last administrator."""
    if role == Role.ADMINISTRATOR and not even_last:
        _keep_last_administrator(user)
    deleted, _ = RoleGrant.objects.filter(user=user, role=role).delete()
    if deleted:
        audit.record("role.withdrawn", user, actor=actor, detail={"role": role})


def has_administrator() -> bool:
    """Whether there is anybody who may change people, roles and tokens."""
    return RoleGrant.objects.filter(role=Role.ADMINISTRATOR, user__is_active=True).exists()


def _keep_last_administrator(user: User) -> None:
    administrators = RoleGrant.objects.filter(role=Role.ADMINISTRATOR, user__is_active=True)
    if administrators.filter(user=user).exists() and not administrators.exclude(user=user).exists():
        raise Conflict(f"{user.username} is the last administrator. Make somebody else one first.")


@audit.locked()
def issue_token(
    user: User, scope: Scope, *, name: str, actor: object, lifetime: timedelta | None = LIFETIME
) -> tuple[ApiToken, str]:
    """Create a token; its secret is returned only here and not stored. It never expires if `lifetime` is None.

    Raises InvalidInput for a name with a character that is not drawn, and for a scope beyond the owner's roles.
    """
    name = names.normalize(name).strip()
    if names.has_invisible(name) or not 1 <= len(name) <= 100:
        raise InvalidInput("The name of a token has 1 to 100 characters, all of them drawn.", field="name")
    role = ROLE_OF_SCOPE.get(scope)
    if role and not user.grants.filter(role=role).exists():
        raise InvalidInput(
            f"{user.username} is not an {role}: grant that role first, or issue another scope.", field="scope"
        )
    raw = f"crp_{scope}_{secrets.token_urlsafe(32)}"
    expires_at = timezone.now() + lifetime if lifetime is not None else None
    token = ApiToken.objects.create(
        user=user, scope=scope, name=name, digest=hash_token(raw), expires_at=expires_at
    )
    detail = {
        "scope": scope,
        "user": user.username,
        "digest": token.digest,
        "expires_at": expires_at.isoformat() if expires_at else None,
    }
    audit.record("token.issued", token, actor=actor, detail=detail)
    return token, raw


@audit.locked()
def revoke_token(token: ApiToken, *, actor: object, reason: str = "") -> None:
    """Revoke a token. Repeating this changes nothing."""
    if ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
        audit.record("token.revoked", token, actor=actor, reason=reason)


def authenticate(raw: str) -> tuple[User, Actor] | None:
    """The person and actor of a token; None when it is unknown, expired, revoked, or of an inactive user."""
    token = _find_valid_tokens([hash_token(raw)]).first()
    if token is None:
        return None
    note_use(token.digest)
    return token.user, _build_token_actor(token)


@dataclass(frozen=True)
class TokenOwner:
    """Who a valid token belongs to, and until when."""

    actor: Actor
    token: int
    user: int
    expires_at: datetime | None

    def get_actor(self, now: datetime) -> Actor | None:
        """The actor; None once the token has expired."""
        return self.actor if self.expires_at is None or self.expires_at > now else None


def find_owners(digests: Collection[str]) -> dict[str, TokenOwner]:
    """The owners of these tokens, by digest, without tokens that `authenticate` would refuse."""
    tokens = list(digests)
    return {
        token.digest: TokenOwner(_build_token_actor(token), token.pk, token.user_id, token.expires_at)
        for first in range(0, len(tokens), PER_QUERY)
        for token in _find_valid_tokens(tokens[first : first + PER_QUERY])
    }


@dataclass(frozen=True)
class AccessChanges:
    """Which users and tokens changed up to an event of the audit chain; None where all may have changed."""

    seq: int
    users: frozenset[int] | None = None
    tokens: frozenset[int] | None = None

    def __bool__(self) -> bool:
        return self.users is None or self.tokens is None or bool(self.users or self.tokens)

    def affect(self, owner: TokenOwner) -> bool:
        """Whether this owner's token must be looked up again."""
        return (
            self.users is None
            or self.tokens is None
            or owner.user in self.users
            or owner.token in self.tokens
        )


def list_access_changes(since: int | None) -> AccessChanges:
    """The users and tokens with an event after the event `since`: a change of access is never without one (rule 16).

    Events are numbered under the lock of the audit head, so none with a lower number can be committed later.
    """
    seq = audit.get_last_seq()
    if since is None or not since <= seq <= since + CHANGES_PER_QUERY:  # lower after a restored backup
        return AccessChanges(seq)
    changed = audit.list_changed_objects((User, ApiToken), after=since, to=seq) if seq > since else {}
    # A refused object may have no key.
    users, tokens = (
        frozenset(int(key) for key in changed.get(model, ()) if key) for model in (User, ApiToken)
    )
    return AccessChanges(seq, users, tokens)


def _find_valid_tokens(digests: Collection[str]) -> QuerySet[ApiToken]:
    not_expired = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    valid = ApiToken.objects.filter(not_expired, digest__in=digests, revoked_at=None, user__is_active=True)
    return valid.select_related("user").prefetch_related("user__grants")


def _build_token_actor(token: ApiToken) -> Actor:
    scope = Scope(token.scope)
    held = [Role(grant.role) for grant in token.user.grants.all()]
    return Actor(token.user.username, limit_roles(scope, held), is_bot=scope is Scope.BOT)
