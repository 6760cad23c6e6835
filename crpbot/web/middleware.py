"""Middleware: content security policy, caching, the required role, and errors as pages."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.deprecation import MiddlewareMixin

from accounts.authentication import get_actor
from accounts.identity import confirm
from common.errors import DomainError, FactorNeeded

Handler = Callable[[HttpRequest], HttpResponse]

STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'{inline}; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def add_headers(get_response: Handler) -> Handler:
    """Allow only own files, and no caching of API responses unless the view says otherwise.

    A page with charts sets `response.has_charts`, because Plotly writes styles.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        inline = " 'unsafe-inline'" if getattr(response, "has_charts", False) else ""
        response.headers.setdefault("Content-Security-Policy", STRICT.format(inline=inline))
        if request.path.startswith("/api/"):
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    return middleware


class RequireAnyRole(MiddlewareMixin):
    """Show a signed-in person without any role how to get one, on every page.

    Excluded are pages without sign-in, the API, which answers with a problem document, and the admin.
    """

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponse | None:
        match = request.resolver_match
        if not getattr(view, "login_required", True) or (match and match.app_name == "admin"):
            return None
        if get_actor(request).can_view:
            return None
        return render(request, "accounts/no_role.html", status=403)


class ShowDomainErrors(MiddlewareMixin):
    """A refused request on a page: the message, the right status, and the way back."""

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, DomainError):
            return None
        if isinstance(error, FactorNeeded) and (answer := confirm.ask(request)):
            return answer
        list(messages.get_messages(request))
        context = {
            "title": error.title,
            "sentence": error.message,
            "back": request.headers.get("Referer", "/"),
        }
        return render(request, "crpbot/problem.html", context, status=error.status)
