"""Asking for a second factor on a page, and going on with what it was needed for."""

from allauth.account.adapter import get_adapter
from allauth.account.internal.flows.reauthentication import suspend_request
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from accounts.identity import factors
from accounts.models import User
from accounts.roles import ROLES_OF_PEOPLE


def ask(request: HttpRequest) -> HttpResponse | None:
    """Ask the person of a page for their second factor, then send the request again; None without a session.

    Without any factor they are sent to the page that sets one up, and decide again after that.
    """
    user = request.user
    if not isinstance(user, User):
        return None
    if not factors.has_factor(user):
        messages.error(request, "Decisions need a second factor. Set one up, then decide again.")
        return redirect("account")
    method = get_adapter(request).get_reauthentication_methods(user)[0]
    answer: HttpResponse = suspend_request(request, method["url"])
    return answer


def lacks_factor(request: HttpRequest) -> bool:
    """Whether this person cannot decide before setting up a second factor."""
    user = request.user
    if not settings.REQUIRE_SECOND_FACTOR or not isinstance(user, User):
        return False
    return any(grant.role in ROLES_OF_PEOPLE for grant in user.grants.all()) and not factors.has_factor(user)
