"""How django-allauth fits this service: one sign-in page, no sign-up, no mail, factors encrypted, limits of our own."""

import base64
import hashlib
import time
from typing import Any

from allauth.account import app_settings
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import get_authentication_records
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter, _build_apps_from_settings
from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from accounts.identity import factors, oidc
from accounts.models import User
from accounts.sign_in import get_address, remember_browser
from common.errors import DomainError


class AccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def get_login_stages(self) -> list[str]:
        return ["allauth.mfa.stages.AuthenticateStage"]

    def post_login(
        self, request: HttpRequest, user: User, *, redirect_url: str | None, **more: Any
    ) -> HttpResponse:
        response = redirect(redirect_url or settings.LOGIN_REDIRECT_URL)
        remember_browser(request, response, user.username)
        return response

    def respond_user_inactive(self, request: HttpRequest, user: User) -> HttpResponse:
        messages.error(request, "This account is closed.")
        return redirect("sign-in")

    def get_client_ip(self, request: HttpRequest) -> str:
        return get_address(request)

    def is_reauthentication_required(self, *, app: str) -> bool:
        """Not for a while after signing in; who has a second factor must have given that."""
        user = self.request.user
        method = "mfa" if factors.has_factor(user) else None
        records = get_authentication_records(self.request, user)
        oldest = time.time() - app_settings.REAUTHENTICATION_TIMEOUT
        return not any(method in (None, record["method"]) and record["at"] > oldest for record in records)

    def get_reauthentication_methods(self, user: User) -> list[dict[str, str]]:
        """Confirming with the password is for those only who have no second factor yet."""
        methods: list[dict[str, str]] = super().get_reauthentication_methods(user)
        with_factor = [method for method in methods if method["id"] != "reauthenticate"]
        return with_factor or methods


class MfaAdapter(DefaultMFAAdapter):
    """Secrets are encrypted with a key made from the service's own, so that a copy of the database holds none."""

    def encrypt(self, text: str) -> str:
        return _build_cipher().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return _build_cipher().decrypt(encrypted_text.encode()).decode()

    def get_totp_issuer(self) -> str:
        return "crpbot gate"

    def generate_authenticator_name(self, user: User, type: str) -> str:
        return f"Key {Authenticator.objects.filter(user_id=user.pk, type=type).count() + 1}"

    def _get_site_name(self) -> str:
        return "crpbot gate"


class SocialAdapter(DefaultSocialAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        return False

    def list_apps(
        self, request: HttpRequest, provider: str | None = None, client_id: str | None = None
    ) -> list[Any]:
        """From the settings only: a row in a table configures no provider."""
        found = _build_apps_from_settings(provider=provider, client_id=client_id)
        return [app for apps in found.values() for app in apps]

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Find or create the account of who signed in at the provider, with the roles of their claims."""
        try:
            sociallogin.account = oidc.find_account(sociallogin.account, sociallogin.claims)
        except DomainError as refused:
            raise ImmediateHttpResponse(oidc.send_back(request, refused.message)) from refused
        sociallogin.user = sociallogin.account.user

    def on_authentication_error(
        self, request: HttpRequest, provider: Any, error: Any = None, exception: Any = None, **more: Any
    ) -> None:
        raise ImmediateHttpResponse(oidc.refuse(request, exception or error))


def _build_cipher() -> MultiFernet:
    return MultiFernet(
        [_build_key(secret) for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]
    )


def _build_key(secret: str) -> Fernet:
    digest = hashlib.sha256(b"crpbot second factors" + secret.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))
