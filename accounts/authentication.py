"""Authentication of the API: a bearer token, or the session of a signed-in person."""

from dataclasses import replace
from typing import Any

from django.db.models import prefetch_related_objects
from django.http import HttpRequest
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.authentication import SessionAuthentication as DjangoSession
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts import services
from accounts.identity import factors
from accounts.models import User
from accounts.roles import Actor

ANONYMOUS = Actor("nobody")
FACTOR_HEADER = "Crpbot-Second-Factor"


def add_factor(user: User, actor: Actor, code: str) -> Actor:
    """The actor of a token with a code of its owner's second factor, which is used up by this. Raises WrongCode."""
    factors.use_code(user, code)
    return replace(actor, factor_at=timezone.now())


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer crp_…`; request.auth is the Actor."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        scheme, _, raw = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        owner = services.authenticate(raw.strip())
        if owner is None:
            raise AuthenticationFailed(
                "This token is unknown, expired or revoked. Ask an administrator for another."
            )
        user, actor = owner
        code = request.headers.get(FACTOR_HEADER)
        return user, add_factor(user, actor, code) if code else actor

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="crpbot gate"'


class SessionAuthentication(DjangoSession):
    """A signed-in person's session, with CSRF protection; request.auth is the Actor."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        session = super().authenticate(request)
        return (session[0], _build_session_actor(request, session[0])) if session else None


def get_actor(request: HttpRequest | Request) -> Actor:
    """The actor of a page or API request; ANONYMOUS without sign-in."""
    auth = getattr(request, "auth", None)
    if isinstance(auth, Actor):
        return auth
    user = request.user
    if not isinstance(user, User):
        return ANONYMOUS
    prefetch_related_objects([user], "grants")  # once per request: middleware, view and template use it
    return _build_session_actor(request, user)


def _build_session_actor(request: HttpRequest | Request, user: User) -> Actor:
    return services.build_actor(user, factors.find_time(request, user))


class CanView(BasePermission):
    """Any role may read. Services check what a request may change."""

    message = (
        "This needs a role (viewer, operator or approver); a bot token reads only active/ and artifacts/."
    )

    def has_permission(self, request: Request, view: Any) -> bool:
        return get_actor(request).can_view


class CanServe(BasePermission):
    """A bot, or any role: for what a bot needs to run."""

    message = "This needs a bot token, or a role."

    def has_permission(self, request: Request, view: Any) -> bool:
        actor = get_actor(request)
        return actor.is_bot or actor.can_view


class IsBot(BasePermission):
    """Only a bot, for what it reports about itself."""

    message = "This needs a bot token: only a bot reports what it runs."

    def has_permission(self, request: Request, view: Any) -> bool:
        return get_actor(request).is_bot


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.authentication.BearerAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": f"A decision of an approver may need a code of their second factor, as {FACTOR_HEADER}.",
        }


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.authentication.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}
