"""People, their roles and their tokens. Every change is in the audit chain."""

import hashlib
import secrets
from collections.abc import Collection
from datetime import datetime

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import ApiToken, RoleGrant, User
from accounts.rules import RESERVED_NAMES, ROLE_OF_SCOPE, Actor, Role, Scope, roles_through
from audit import services as audit
from common.errors import Conflict, InvalidInput, NotFound

TOKENS_AT_ONCE = 2_000
"""In one question: anybody may show as many made-up ones as they like, and no database takes a statement of any length."""


def hash_token(raw: str) -> str:
    """Tokens are 256 random bits, so a plain hash is enough: there is nothing to guess."""
    return hashlib.sha256(raw.encode()).hexdigest()


def build_actor(user: User) -> Actor:
    """The person behind a signed-in session or a user name."""
    return Actor(user.username, frozenset(Role(grant.role) for grant in user.grants.all()))


def find_token(number: int) -> ApiToken:
    try:
        return ApiToken.objects.select_related("user").get(pk=number)
    except ApiToken.DoesNotExist:
        raise NotFound(f"There is no token {number}. `manage.py people --tokens` lists them.") from None


def find_user(username: str) -> User:
    try:
        return User.objects.get(username=username, is_active=True)
    except User.DoesNotExist:
        raise NotFound(f"There is no active user {username!r}. `manage.py people` lists them.") from None


@transaction.atomic
def create_user(
    username: str, *, password: str | None, roles: list[Role], actor: object, is_staff: bool = False
) -> User:
    """A new person with these roles; without a password they can only use tokens.

    Raises InvalidInput for a name or password that does not do, Conflict for a name that is taken.
    """
    _check_name(username)
    if password is not None:
        _check_password(password, username)
    if User.objects.filter(username=username).exists():
        raise Conflict(f"There is a user {username!r} already.")
    audit.lock_head()
    user = User.objects.create_user(username=username, password=password, is_staff=is_staff)
    audit.record("user.created", user, actor=actor, detail={"is_staff": is_staff})
    for role in roles:
        grant(user, role, actor=actor)
    return user


@transaction.atomic
def set_password(user: User, password: str, *, actor: object) -> None:
    """Another password; it ends every session of this person. Raises InvalidInput."""
    _check_password(password, user.username)
    audit.lock_head()
    user.set_password(password)
    user.save(update_fields=["password"])
    audit.record("user.password_set", user, actor=actor)


@transaction.atomic
def close(user: User, *, actor: object) -> None:
    """End an account at once: no session, no token. Its name stays in the history. Closing twice changes nothing."""
    audit.lock_head()
    if User.objects.filter(pk=user.pk, is_active=True).update(is_active=False):
        audit.record("user.closed", user, actor=actor)


def _check_name(username: str) -> None:
    """A name that cannot be mistaken in the audit for a part of the service."""
    if username.casefold() in RESERVED_NAMES:
        raise InvalidInput(
            f"{username!r} is how the service itself signs; choose another name.", field="username"
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


@transaction.atomic
def grant(user: User, role: Role, *, actor: object) -> None:
    """Give a role; giving one that is held changes nothing and leaves no event."""
    audit.lock_head()
    _, is_new = RoleGrant.objects.get_or_create(user=user, role=role)
    if is_new:
        audit.record("role.granted", user, actor=actor, detail={"role": role})


@transaction.atomic
def withdraw(user: User, role: Role, *, actor: object) -> None:
    """Take a role back, at once for every session and token."""
    audit.lock_head()
    taken, _ = RoleGrant.objects.filter(user=user, role=role).delete()
    if taken:
        audit.record("role.withdrawn", user, actor=actor, detail={"role": role})


@transaction.atomic
def issue_token(
    user: User, scope: Scope, *, name: str, actor: object, expires_at: datetime | None = None
) -> tuple[ApiToken, str]:
    """A new token and its secret, which is shown this once and stored nowhere."""
    needed = ROLE_OF_SCOPE.get(scope)
    if needed and not user.grants.filter(role=needed).exists():
        raise InvalidInput(
            f"{user.username} is no {needed}: grant that role first, or issue another scope.", field="scope"
        )
    audit.lock_head()
    raw = f"crp_{scope}_{secrets.token_urlsafe(32)}"
    token = ApiToken.objects.create(
        user=user, scope=scope, name=name, digest=hash_token(raw), expires_at=expires_at
    )
    audit.record("token.issued", token, actor=actor, detail={"scope": scope, "user": user.username})
    return token, raw


@transaction.atomic
def revoke_token(token: ApiToken, *, actor: object) -> None:
    """End a token; revoking twice changes nothing."""
    audit.lock_head()
    if ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
        audit.record("token.revoked", token, actor=actor)


def authenticate(raw: str) -> tuple[User, Actor] | None:
    """The person and the actor behind a token, or None: unknown, expired, revoked, or of an inactive user."""
    token = _standing([hash_token(raw)]).first()
    return (token.user, _actor_behind(token)) if token else None


def find_actors(digests: Collection[str]) -> dict[str, Actor]:
    """The actors behind these tokens, by digest; one that `authenticate` would not know is left out."""
    shown = list(digests)
    return {
        token.digest: _actor_behind(token)
        for first in range(0, len(shown), TOKENS_AT_ONCE)
        for token in _standing(shown[first : first + TOKENS_AT_ONCE])
    }


def _standing(digests: Collection[str]) -> QuerySet[ApiToken]:
    holds = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    found = ApiToken.objects.filter(holds, digest__in=digests, revoked_at=None, user__is_active=True)
    return found.select_related("user").prefetch_related("user__grants")


def _actor_behind(token: ApiToken) -> Actor:
    scope = Scope(token.scope)
    held = [Role(grant.role) for grant in token.user.grants.all()]
    return Actor(token.user.username, roles_through(scope, held), is_bot=scope is Scope.BOT)
