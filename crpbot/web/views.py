"""Error pages in the service's own frame."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views import defaults

from crpbot.api.problems import json_problem


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _problem(
        request, 400, "This request makes no sense", "Nothing was changed. Go back and try again."
    )


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _problem(request, 403, "Not allowed", str(exception) or "This takes another role than you hold.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    sentence = (
        "This form was not filled in here, or its page is too old (a sign-in since makes it so). Nothing was changed:"
        " open the page anew and send it again."
    )
    return _problem(request, 403, "This form cannot be trusted", sentence)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    sentence = f"Nothing stands at {request.path}. What was once released, trained or measured is kept: look in its list."
    return _problem(request, 404, "No such page", sentence)


def server_error(request: HttpRequest) -> HttpResponse:
    if request.path.startswith("/api/"):
        return json_problem(500, "Something broke", "This is a fault of the service, and it is in its log.")
    return defaults.server_error(request)


def _problem(request: HttpRequest, status: int, title: str, sentence: str) -> HttpResponse:
    if request.path.startswith("/api/"):
        return json_problem(status, title, sentence)
    return render(request, "crpbot/problem.html", {"title": title, "sentence": sentence}, status=status)
