"""The forms of django-allauth that ask for a code, with this service's own check of it (accounts/identity/factors.py)."""

from allauth.mfa.base import forms as base
from allauth.mfa.models import Authenticator
from django import forms

from accounts.identity import factors
from accounts.models import User


class _ChecksCode:
    user: User
    cleaned_data: dict[str, str]
    authenticator: Authenticator

    def clean_code(self) -> str:
        try:
            self.authenticator = factors.use_code(self.user, self.cleaned_data["code"])
        except factors.WrongCode as refused:
            raise forms.ValidationError(refused.message) from None
        self.authenticator.user = self.user
        return self.cleaned_data["code"]


class SignInCodeForm(_ChecksCode, base.AuthenticateForm):
    """The second step of signing in."""


class ConfirmCodeForm(_ChecksCode, base.ReauthenticateForm):
    """The second factor again, for a decision."""
