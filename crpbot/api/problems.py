"""Errors of the API as problem+json (RFC 9457)."""

import logging
import math
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404, JsonResponse
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from accounts.throttling import Unauthenticated
from common.errors import DomainError

CONTENT_TYPE = "application/problem+json"
TITLES = {400: "Invalid input", 401: "Not signed in", 403: "Not allowed", 404: "Not found", 413: "Too large"}
_RETRY = {"Retry-After": "2"}

logger = logging.getLogger(__name__)


def problem_response(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: one form for our own refusals and the framework's. None for a bug, which is raised on."""
    set_rollback()
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        error = _once_too_often(error, context)
    found, headers = problem(error)
    if found is None:
        return None
    return Response(found, status=found["status"], headers=headers, content_type=CONTENT_TYPE)


def problem(error: Exception) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The document and headers for an error; (None, {}) for one that is a bug."""
    if isinstance(error, DomainError):
        return error.as_problem(), _RETRY if error.status == 503 else {}
    if isinstance(error, Http404):
        return document(404, "There is no such thing here."), {}
    if isinstance(error, PermissionDenied):
        return document(403, str(error) or "This takes another role."), {}
    if isinstance(error, RequestDataTooBig):
        return document(413, str(error)), {}
    if isinstance(error, SuspiciousOperation | MultiPartParserError):
        return document(400, str(error) or "This request cannot be read."), {}
    if isinstance(error, OperationalError):
        logger.error("the database did not answer", exc_info=error)
        return document(503, "The service cannot reach its database. Ask again shortly."), _RETRY
    if isinstance(error, exceptions.APIException):
        return _from_framework(error), _headers_of(error)
    return None, {}


def json_problem(status: int, title: str, detail: str) -> JsonResponse:
    """The same form for what never reaches DRF."""
    titled = {**document(status, detail), "title": title}
    return JsonResponse(titled, status=status, content_type=CONTENT_TYPE)


def _once_too_often(error: exceptions.APIException, context: dict[str, Any]) -> exceptions.APIException:
    """The same refusal, or Throttled where this address was refused too often lately."""
    limit = Unauthenticated()
    is_within = limit.allow_request(context["request"], context["view"])
    return error if is_within else exceptions.Throttled(limit.wait())


def _from_framework(error: exceptions.APIException) -> dict[str, Any]:
    if isinstance(error, exceptions.ValidationError):
        errors: dict[str, list[str]] = {}
        for name, sentence in _sentences(error.detail):
            errors.setdefault(name, []).append(sentence)
        detail = "; ".join(f"{name}: {' '.join(sentences)}" for name, sentences in errors.items())
        return document(400, detail, errors=errors)
    if isinstance(error, exceptions.Throttled):
        return document(429, f"Too many requests: ask again in {_seconds_of(error)} seconds, and less often.")
    return document(error.status_code, str(error.detail))


def _headers_of(error: exceptions.APIException) -> dict[str, str]:
    headers = {"WWW-Authenticate": header} if (header := getattr(error, "auth_header", None)) else {}
    if isinstance(error, exceptions.Throttled):
        headers["Retry-After"] = str(_seconds_of(error))
    return headers


def _seconds_of(error: exceptions.Throttled) -> int:
    return max(1, math.ceil(getattr(error, "wait", None) or 0))


def _sentences(detail: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every message with the path of the field it is about: `datasets.BTC`; `body` for the whole."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            yield from _sentences(value, f"{name}.{key}" if name else str(key))
    elif isinstance(detail, list | tuple):
        for value in detail:
            yield from _sentences(value, name)
    else:
        yield name or "body", str(detail)


def document(status: int, detail: str, **extra: Any) -> dict[str, Any]:
    """A problem document of this status."""
    title = TITLES.get(status) or HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **extra}
