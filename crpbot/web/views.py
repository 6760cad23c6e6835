"""Error pages in the service's own frame."""

import sys

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views import defaults

from crpbot.api.problems import build_json_problem
from crpbot.database_failures import NOT_MIGRATED, is_not_migrated


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _problem(request, 400, "Bad request", "Nothing was changed. Go back and try again.")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _problem(request, 403, "Not allowed", str(exception) or "Your role does not allow this.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    sentence = (
        "The form comes from another site, or you signed in again after its page was loaded. Nothing was changed."
        " Reload the page and send the form again."
    )
    return _problem(request, 403, "Form not accepted", sentence)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    sentence = f"There is no page at {request.path}. Releases, runs and diagnoses are never deleted: look in their lists."
    return _problem(request, 404, "Page not found", sentence)


def server_error(request: HttpRequest) -> HttpResponse:
    if is_not_migrated(sys.exc_info()[1]):
        return _ask_to_migrate(request)
    if request.path.startswith("/api/"):
        return build_json_problem(
            500, "Server error", "The service could not answer this request. The cause is in its log."
        )
    return defaults.server_error(request)


def _ask_to_migrate(request: HttpRequest) -> HttpResponse:
    """Without the request's context, which asks the database."""
    title = "Database not prepared"
    if request.path.startswith("/api/"):
        return build_json_problem(503, title, NOT_MIGRATED)
    page = render_to_string("crpbot/problem.html", {"title": title, "sentence": NOT_MIGRATED})
    return HttpResponse(page, status=503)


def _problem(request: HttpRequest, status: int, title: str, sentence: str) -> HttpResponse:
    if request.path.startswith("/api/"):
        return build_json_problem(status, title, sentence)
    return render(request, "crpbot/problem.html", {"title": title, "sentence": sentence}, status=status)
