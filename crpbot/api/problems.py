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

from accounts.throttling import RefusedCredentialLimit
from common.errors import DomainError, InvalidInput, NotAllowed, NotFound, TooLarge, Unauthenticated
from crpbot.database_failures import NOT_MIGRATED, is_not_migrated

CONTENT_TYPE = "application/problem+json"
TITLES = {
    error.status: error.title for error in (InvalidInput, Unauthenticated, NotAllowed, NotFound, TooLarge)
}
_RETRY = {"Retry-After": "2"}

logger = logging.getLogger(__name__)


def build_problem_response(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: one form for domain and framework errors; None for a bug, which is raised on."""
    set_rollback()
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        error = _limit_refused_credentials(error, context)
    problem_document, headers = build_problem(error)
    if problem_document is None:
        return None
    return Response(
        problem_document, status=problem_document["status"], headers=headers, content_type=CONTENT_TYPE
    )


def build_problem(error: Exception) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The document and headers of an error; (None, {}) for a bug."""
    if isinstance(error, DomainError):
        return error.to_problem(), _RETRY if error.status == 503 else {}
    if isinstance(error, Http404):
        return build_document(404, "There is nothing at this address."), {}
    if isinstance(error, PermissionDenied):
        return build_document(403, str(error) or "This needs another role."), {}
    if isinstance(error, RequestDataTooBig):
        return build_document(413, str(error)), {}
    if isinstance(error, SuspiciousOperation | MultiPartParserError):
        return build_document(400, str(error) or "This request cannot be read."), {}
    if is_not_migrated(error):
        return build_document(503, NOT_MIGRATED), _RETRY
    if isinstance(error, OperationalError):
        logger.error("the database did not answer", exc_info=error)
        return build_document(503, "The service cannot reach its database. Ask again shortly."), _RETRY
    if isinstance(error, exceptions.APIException):
        return _build_framework_document(error), _build_headers(error)
    return None, {}


def build_json_problem(status: int, title: str, detail: str) -> JsonResponse:
    """A problem for requests that do not reach DRF."""
    return JsonResponse(build_document(status, detail, title=title), status=status, content_type=CONTENT_TYPE)


def _limit_refused_credentials(
    error: exceptions.APIException, context: dict[str, Any]
) -> exceptions.APIException:
    """The same error, or Throttled when this address was refused too often."""
    limit = RefusedCredentialLimit()
    is_within = limit.allow_request(context["request"], context["view"])
    return error if is_within else exceptions.Throttled(limit.wait())


def _build_framework_document(error: exceptions.APIException) -> dict[str, Any]:
    if isinstance(error, exceptions.ValidationError):
        errors: dict[str, list[str]] = {}
        for name, sentence in _list_messages(error.detail):
            errors.setdefault(name, []).append(sentence)
        detail = "; ".join(f"{name}: {' '.join(sentences)}" for name, sentences in errors.items())
        return build_document(400, detail, errors=errors)
    if isinstance(error, exceptions.Throttled):
        return build_document(
            429, f"Too many requests: try again in {_compute_retry_seconds(error)} seconds, and less often."
        )
    return build_document(error.status_code, str(error.detail))


def _build_headers(error: exceptions.APIException) -> dict[str, str]:
    headers = {"WWW-Authenticate": header} if (header := getattr(error, "auth_header", None)) else {}
    if isinstance(error, exceptions.Throttled):
        headers["Retry-After"] = str(_compute_retry_seconds(error))
    return headers


def _compute_retry_seconds(error: exceptions.Throttled) -> int:
    return max(1, math.ceil(getattr(error, "wait", None) or 0))


def _list_messages(detail: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every message with the path of its field, as in `datasets.BTC`; `body` for the whole."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            yield from _list_messages(value, f"{name}.{key}" if name else str(key))
    elif isinstance(detail, list | tuple):
        for value in detail:
            yield from _list_messages(value, name)
    else:
        yield name or "body", str(detail)


def build_document(status: int, detail: str, **extra: Any) -> dict[str, Any]:
    title = TITLES.get(status) or HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **extra}
