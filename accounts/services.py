"""People, their roles and their tokens. Every change is in the audit chain."""

import hashlib
import secrets
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from accounts.models import ApiToken, RoleGrant, User
from accounts.rules import ROLE_OF_SCOPE, Actor, Role, Scope, roles_through
from audit import services as audit
from audit.errors import Conflict, InvalidInput, NotFound


def digest_of(raw: str) -> str:
    """Tokens are 256 random bits, so a plain hash is enough: there is nothing to guess."""
    return hashlib.sha256(raw.encode()).hexdigest()


def actor_of(user: User) -> Actor:
    """The person behind a signed-in session or a user name."""
    return Actor(user.username, frozenset(Role(grant.role) for grant in user.grants.all()))


def find_user(username: str) -> User:
    try:
        return User.objects.get(username=username, is_active=True)
    except User.DoesNotExist:
        raise NotFound(f"There is no active user {username!r}. `manage.py people` lists them.") from None


@transaction.atomic
def create_user(
    username: str, *, password: str | None, roles: list[Role], actor: object, is_staff: bool = False
) -> User:
    """A new person with these roles; without a password they can only use tokens."""
    if User.objects.filter(username=username).exists():
        raise Conflict(f"There is a user {username!r} already.")
    audit.lock_head()
    user = User.objects.create_user(username=username, password=password, is_staff=is_staff)
    audit.record("user.created", user, actor=actor, detail={"is_staff": is_staff})
    for role in roles:
        grant(user, role, actor=actor)
    return user


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
        user=user, scope=scope, name=name, digest=digest_of(raw), expires_at=expires_at
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
    token = (
        ApiToken.objects.select_related("user")
        .prefetch_related("user__grants")
        .filter(digest=digest_of(raw), revoked_at=None, user__is_active=True)
        .first()
    )
    if token is None or (token.expires_at and token.expires_at <= timezone.now()):
        return None
    scope = Scope(token.scope)
    held = [Role(grant.role) for grant in token.user.grants.all()]
    return token.user, Actor(token.user.username, roles_through(scope, held), is_bot=scope is Scope.BOT)
