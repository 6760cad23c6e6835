"""How the API knows who asks: a bearer token, or the session of a signed-in person."""

from typing import Any

from django.db.models import prefetch_related_objects
from django.http import HttpRequest
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.authentication import SessionAuthentication as DjangoSession
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts import services
from accounts.models import User
from accounts.rules import Actor

ANONYMOUS = Actor("nobody")


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer crp_…`; request.auth is the Actor."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        word, _, raw = request.headers.get("Authorization", "").partition(" ")
        if word.lower() != "bearer":
            return None
        found = services.authenticate(raw.strip())
        if found is None:
            raise AuthenticationFailed(
                "This token is unknown, expired or revoked. Ask an administrator for another."
            )
        return found

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="crpbot gate"'


class SessionAuthentication(DjangoSession):
    """A signed-in person's session, with CSRF protection; request.auth is the Actor."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        found = super().authenticate(request)
        return (found[0], services.build_actor(found[0])) if found else None


def get_actor(request: HttpRequest | Request) -> Actor:
    """Who asks, for a page or an API request alike; ANONYMOUS when nobody signed in."""
    auth = getattr(request, "auth", None)
    if isinstance(auth, Actor):
        return auth
    user = request.user
    if not isinstance(user, User):
        return ANONYMOUS
    prefetch_related_objects([user], "grants")  # once a request: middleware, view and frame all ask
    return services.build_actor(user)


class CanView(BasePermission):
    """Any role may read. What a request may change, the services decide."""

    message = (
        "This takes a role (viewer, operator or approver); a bot's token reads only active/ and artifacts/."
    )

    def has_permission(self, request: Request, view: Any) -> bool:
        return get_actor(request).can_view


class CanServe(BasePermission):
    """A bot, or anyone who may look: for what a bot needs to run."""

    message = "This takes a bot token, or a role."

    def has_permission(self, request: Request, view: Any) -> bool:
        actor = get_actor(request)
        return actor.is_bot or actor.can_view


class IsBot(BasePermission):
    """A bot alone: what it says of itself, nobody says for it."""

    message = "This takes a bot token: only a bot says what it runs."

    def has_permission(self, request: Request, view: Any) -> bool:
        return get_actor(request).is_bot


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.authentication.BearerAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.authentication.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}
