"""Errors of the API as problem+json (RFC 9457)."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from audit.errors import DomainError

CONTENT_TYPE = "application/problem+json"


def problem_response(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: one form for our own refusals and the framework's."""
    set_rollback()
    document, headers = problem(error)
    if document is None:
        return None
    return Response(document, status=document["status"], headers=headers, content_type=CONTENT_TYPE)


def problem(error: Exception) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The document and headers for an error; (None, {}) for one that is a bug."""
    if isinstance(error, DomainError):
        extra = {"field": error.field} if error.field else {}
        return _document(error.status, error.title, error.message, **extra), {}
    if isinstance(error, Http404):
        return _document(404, "Not found", str(error) or "There is no such thing here."), {}
    if isinstance(error, PermissionDenied):
        return _document(403, "Not allowed", str(error) or "This takes another role."), {}
    if isinstance(error, exceptions.APIException):
        headers = {"WWW-Authenticate": header} if (header := getattr(error, "auth_header", None)) else {}
        if wait := getattr(error, "wait", None):
            headers["Retry-After"] = str(int(wait))
        return _from_framework(error), headers
    return None, {}


def _from_framework(error: exceptions.APIException) -> dict[str, Any]:
    title = error.default_detail if isinstance(error.default_detail, str) else "Invalid input"
    if isinstance(error, exceptions.ValidationError):
        return _document(400, "Invalid input", _sentence(error.detail), errors=error.detail)
    return _document(error.status_code, str(title).rstrip("."), str(error.detail))


def _sentence(detail: Any) -> str:
    if isinstance(detail, dict):
        return "; ".join(f"{name}: {_sentence(value)}" for name, value in detail.items())
    if isinstance(detail, list):
        return " ".join(_sentence(value) for value in detail)
    return str(detail)


def _document(status: int, title: str, detail: str, **extra: Any) -> dict[str, Any]:
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **extra}


def json_problem(status: int, title: str, detail: str) -> JsonResponse:
    """The same form for what never reaches DRF."""
    return JsonResponse(_document(status, title, detail), status=status, content_type=CONTENT_TYPE)
