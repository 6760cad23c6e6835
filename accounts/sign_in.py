"""The sign-in form, and its limits (ADR 0013). django-axes counts wrong passwords in the database.

They count for the name and, separately, for the address, so one password tried with many names is limited like many
passwords tried with one. A browser in which a person has signed in before has a count of its own: nobody elsewhere can
keep that person out.
"""

import hashlib
import ipaddress
import secrets
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import NON_FIELD_ERRORS
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from rest_framework.throttling import BaseThrottle

from accounts import names
from common.formatting import format_duration

BROWSER_SECONDS = 180 * 24 * 60 * 60
_SALT = "accounts.known_browser"
IPV6_PREFIX = 64
"""One customer gets a whole network of this size, and so any number of addresses."""


class SignInForm(AuthenticationForm):
    """Name and password; says no more than that they do not fit, and after many wrong ones does not even look."""

    error_messages = {
        "invalid_login": "Wrong name or password. Both are case-sensitive.",
        "inactive": "This account is closed.",
        "too_many": "Too many failed sign-ins with this name or from your address. Try again in %(wait)s.",
    }

    def clean(self) -> dict[str, Any]:
        try:
            return super().clean()
        except forms.ValidationError:
            if getattr(self.request, "axes_locked_out", False):
                wait = format_duration(settings.AXES_COOLOFF_TIME.total_seconds())
                raise forms.ValidationError(
                    self.error_messages["too_many"], code="too_many", params={"wait": wait}
                ) from None
            raise

    @property
    def is_refused_unread(self) -> bool:
        return self.has_error(NON_FIELD_ERRORS, "too_many")


def get_counted_name(request: HttpRequest, credentials: dict[str, Any] | None) -> str:
    """The name that a failed sign-in counts for: lookalikes together, a known browser by itself. Not readable."""
    name = _get_name(request, credentials)
    return _hash(name + (_read_known_browser(request, name) or ""))


def list_counts(request: HttpRequest, credentials: dict[str, Any] | None) -> list[str]:
    """The counts that must be below the limit: of the name and of the address, or of the known browser alone."""
    is_known = _read_known_browser(request, _get_name(request, credentials)) is not None
    return ["username"] if is_known else ["username", "ip_address"]


def remember_browser(request: HttpRequest, response: HttpResponse, username: str) -> None:
    """Mark this browser as one in which this person has signed in."""
    name = _get_name(request, {"username": username})
    response.set_signed_cookie(
        _get_cookie(name),
        _read_known_browser(request, name) or secrets.token_urlsafe(16),
        salt=_SALT + name,
        max_age=BROWSER_SECONDS,
        path=reverse("sign-in"),
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Strict",
    )


def _get_name(request: HttpRequest, credentials: dict[str, Any] | None) -> str:
    name = str((credentials or {}).get("username") or request.POST.get("username") or "")
    return _hash(names.to_skeleton(names.normalize(name).casefold()))


def _read_known_browser(request: HttpRequest, name: str) -> str | None:
    """The mark of this browser for this name; None for any other browser, and for an invented mark."""
    mark: str | None = request.get_signed_cookie(
        _get_cookie(name), None, salt=_SALT + name, max_age=BROWSER_SECONDS
    )
    return mark


def _get_cookie(name: str) -> str:
    return f"known_browser_{name[:12]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def get_address(request: HttpRequest) -> str:
    """The client's address as for other limits; of IPv6, its network."""
    reported = str(BaseThrottle().get_ident(request))  # type: ignore[arg-type]
    try:
        address = ipaddress.ip_address(reported)
    except ValueError:
        return "0.0.0.0"  # a proxy that reports no address: all of them count together
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False).network_address)
    return str(address)
