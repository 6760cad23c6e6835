import math
from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import NON_FIELD_ERRORS

from accounts.throttling import SignInLimit


class SignInForm(AuthenticationForm):
    """Name and password; says no more than that they do not fit, and after many wrong ones does not even look."""

    error_messages = {
        "invalid_login": "Wrong name or password. Both are case-sensitive.",
        "inactive": "This account is closed.",
        "too_many": "Too many failed sign-ins with this name from your address. Try again in %(minutes)s minutes.",
    }

    def clean(self) -> dict[str, Any]:
        limit = SignInLimit(self.cleaned_data.get("username") or "")
        if limit.is_used_up(self.request):
            minutes = {"minutes": math.ceil((limit.wait() or 0) / 60)}
            raise forms.ValidationError(self.error_messages["too_many"], code="too_many", params=minutes)
        try:
            return super().clean()
        except forms.ValidationError:
            limit.allow_request(self.request, None)
            raise

    @property
    def is_refused_unread(self) -> bool:
        return self.has_error(NON_FIELD_ERRORS, "too_many")
