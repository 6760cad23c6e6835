"""Single sign-on with an OpenID Connect provider: who signs in there, and the roles that its claims give.

django-allauth makes the requests, with state and PKCE. This module also sends a nonce, and accepts an identity only from
an ID token whose signature, issuer, audience, time and nonce it has checked.
"""

import logging
import secrets
from typing import Any

import jwt
from allauth.socialaccount.models import SocialAccount
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.crypto import constant_time_compare
from requests import RequestException

from accounts import services
from accounts.identity.people import count_as_one
from accounts.models import User
from accounts.roles import Role
from audit import services as audit
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed

PROVIDER = "oidc"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by the provider's own key. Neither "none" nor a shared secret is among them."""
LEEWAY_SECONDS = 60
NONCE = "oidc_nonce"
ACTOR = "single sign-on"

logger = logging.getLogger(__name__)


class Provider(OpenIDConnectProvider):
    """The configured provider. Nothing in the address of a request changes what it is asked for."""

    def get_redirect_from_request_kwargs(self, request: HttpRequest) -> dict[str, Any]:
        asked = super().get_redirect_from_request_kwargs(request)
        request.session[NONCE] = secrets.token_urlsafe(24)
        fixed = {"process": "login", "scope": self.get_scope()}
        return {**asked, **fixed, "auth_params": {"nonce": request.session[NONCE]}}

    def sociallogin_from_response(self, request: HttpRequest, response: dict[str, Any]) -> Any:
        login = super().sociallogin_from_response(request, response)
        login.claims = response
        return login

    def extract_extra_data(self, data: dict[str, Any]) -> dict[str, Any]:
        return {}  # the claims are used and not kept


class Client(OpenIDConnectOAuth2Adapter):
    """What the provider answers, checked."""

    def complete_login(self, request: HttpRequest, app: Any, token: Any, **kwargs: Any) -> Any:
        nonce = request.session.pop(NONCE, "")
        configuration = self.openid_config
        if configuration.get("issuer", "").rstrip("/") != settings.OIDC_ISSUER.rstrip("/"):
            raise OAuth2Error("The provider calls itself by another name than CRPBOT_OIDC_ISSUER.")
        claims = verify_id_token(
            str(kwargs["response"].get("id_token") or ""),
            keys=self._fetch_json(configuration["jwks_uri"]),
            issuer=configuration["issuer"],
            client_id=app.client_id,
            nonce=nonce,
        )
        if "userinfo_endpoint" in configuration:
            said = self._fetch_user_info(token.token)
            if said.get("sub") != claims["sub"]:
                raise OAuth2Error("The provider's two answers are about different people.")
            claims = {**said, **claims}
        return self.get_provider().sociallogin_from_response(request, claims)

    def _fetch_json(self, address: str) -> dict[str, Any]:
        from allauth.socialaccount.adapter import get_adapter

        with get_adapter().get_requests_session() as session:
            answer = session.get(address)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
        return found


def verify_id_token(
    raw: str, *, keys: dict[str, Any], issuer: str, client_id: str, nonce: str
) -> dict[str, Any]:
    """The claims of an ID token (OpenID Connect Core, 3.1.3.7). Raises OAuth2Error, saying what is wrong with it."""
    try:
        key = _find_key(jwt.PyJWKSet.from_dict(keys), jwt.get_unverified_header(raw).get("kid"))
        claims: dict[str, Any] = jwt.decode(
            raw,
            key=key,
            algorithms=list(ALGORITHMS),
            audience=client_id,
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iat", "sub", "aud", "iss", "nonce"]},
        )
    except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
        raise OAuth2Error(f"The ID token is not valid: {error}") from error
    if not nonce or not constant_time_compare(str(claims["nonce"]), nonce):
        raise OAuth2Error("The ID token is the answer to another request.")
    if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != client_id:
        raise OAuth2Error("The ID token was issued to another application.")
    return claims


def _find_key(known: jwt.PyJWKSet, key_id: str | None) -> jwt.PyJWK:
    """The key of this id. A provider with a single key need not name it."""
    if key_id is None and len(known.keys) == 1:
        return known.keys[0]
    return known[key_id or ""]


def find_account(account: Any, claims: dict[str, Any]) -> Any:
    """The stored identity of this subject, with its person, whose roles are then those of the claims.

    Raises NotAllowed where the claims give a newcomer no role, InvalidInput and Conflict where the name cannot be used.
    """
    known = (
        SocialAccount.objects.filter(provider=account.provider, uid=account.uid)
        .select_related("user")
        .first()
    )
    roles = read_roles(claims)
    with audit.locked():
        if known is None:
            known = _create(account, claims, roles)
        if known.user.is_active:
            _set_roles(known.user, roles)
            _keep_address(known.user, claims)
    return known


def connect(user: User, subject: str, *, actor: object) -> None:
    """Let this person sign in as `subject` at the provider. Repeating it changes nothing.

    Raises Conflict where the subject belongs to somebody else, InvalidInput for a service account.
    """
    if not settings.OIDC_ISSUER:
        raise Conflict("No provider is configured: set CRPBOT_OIDC_ISSUER first.")
    if user.is_service:
        raise InvalidInput(f"{user.username} is a service account: it cannot sign in.", field="subject")
    with audit.locked():
        known, is_new = SocialAccount.objects.get_or_create(
            provider=PROVIDER, uid=subject, defaults={"user": user, "extra_data": {}}
        )
        if known.user_id != user.pk:
            raise Conflict(f"{subject!r} is {known.user.username} already.")
        if is_new:
            audit.record("user.identity_connected", user, actor=actor, detail={"subject": subject})


def read_roles(claims: dict[str, Any]) -> frozenset[Role] | None:
    """The roles that the claims give, by CRPBOT_OIDC_ROLES; None where roles are granted by hand."""
    if not settings.OIDC_ROLE_CLAIM:
        return None
    found: Any = claims
    for part in settings.OIDC_ROLE_CLAIM.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    listed = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    values = {value for value in listed if isinstance(value, str)}
    return frozenset(role for value, role in settings.OIDC_ROLES.items() if value in values)


def _create(account: Any, claims: dict[str, Any], roles: frozenset[Role] | None) -> Any:
    if roles is not None and not roles:
        raise NotAllowed(
            f"Your account at {settings.OIDC_NAME} gives you no role here. Ask an administrator for one."
        )
    name = str(claims.get(settings.OIDC_NAME_CLAIM) or "")
    try:
        user = services.create_user(name, password=None, roles=[], actor=ACTOR)
    except DomainError as refused:
        raise type(refused)(
            f"No account could be made for you. {refused.message} An administrator can connect an existing account with"
            f" `manage.py people --user NAME --subject {account.uid}`."
        ) from refused
    account.user = user
    account.save()
    audit.record("user.identity_connected", user, actor=ACTOR, detail={"subject": account.uid})
    return account


def _set_roles(user: User, roles: frozenset[Role] | None) -> None:
    if roles is None:
        return
    held = {Role(grant.role) for grant in user.grants.all()}
    for role in roles - held:
        services.grant(user, role, actor=ACTOR)
    for role in held - roles:
        services.withdraw(user, role, actor=ACTOR, even_last=True)


def _keep_address(user: User, claims: dict[str, Any]) -> None:
    """Keep a verified e-mail address. Two accounts with the same one belong to one person."""
    address = str(claims.get("email") or "").strip().lower()
    if claims.get("email_verified") is not True or not address:
        return
    if user.email != address:
        User.objects.filter(pk=user.pk).update(email=address)
    others = User.objects.filter(email=address, is_service=False).exclude(pk=user.pk).order_by("pk")
    for other in others[:1]:
        count_as_one(user, other, actor=ACTOR)


@login_not_required
def sign_in(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Send the browser to the provider."""
    return _answer(OAuth2LoginView, request, provider_id)


@login_not_required
def callback(request: HttpRequest, provider_id: str) -> HttpResponse:
    """The browser comes back from the provider."""
    return _answer(OAuth2CallbackView, request, provider_id)


def send_back(request: HttpRequest, sentence: str) -> HttpResponse:
    """To the sign-in page, with a sentence that says why."""
    messages.error(request, sentence)
    return redirect("sign-in")


def refuse(request: HttpRequest, error: object) -> HttpResponse:
    """What the provider answered cannot be used: the log says why, to the person it is no use."""
    logger.warning("signing in with %s failed: %s", settings.OIDC_NAME, error)
    return send_back(
        request,
        f"Signing in with {settings.OIDC_NAME} failed. Try again; if it fails again, tell an administrator.",
    )


def _answer(view: Any, request: HttpRequest, provider_id: str) -> HttpResponse:
    if not settings.OIDC_ISSUER or provider_id != PROVIDER:
        raise Http404("No such provider is configured.")
    try:
        answer: HttpResponse = view.adapter_view(Client(request, provider_id))(request)
    except (
        RequestException,
        KeyError,
        ValueError,
    ) as error:  # away, or its answer is not what the standard says
        return refuse(request, error)
    return answer
