"""Size limits of requests, checked before Django: Django would store a whole body before it checks anything."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any

from django.conf import settings
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import escape

from crpbot.api.problems import CONTENT_TYPE, build_document
from crpbot.web.middleware import STRICT

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_HEADER_BYTES = 32 * 1024
MAX_QUERY_BYTES = 8 * 1024
SENTENCE = "{sentence}"
FORM_SLACK_BYTES = 64 * 1024
"""Overhead of a multipart form around its file."""

UPLOADS = {
    "api:datasets": "DATASET_UPLOAD_LIMIT_BYTES",
    "api:check-upload": "DATASET_UPLOAD_LIMIT_BYTES",
    "api:bundles": "IMPORTED_MODEL_UPLOAD_LIMIT_BYTES",
    "datasets": "DATASET_UPLOAD_LIMIT_BYTES",
    "dataset-check": "DATASET_UPLOAD_LIMIT_BYTES",
    "bundles": "IMPORTED_MODEL_UPLOAD_LIMIT_BYTES",
}
"""The routes that take a file, and the setting with its limit. Any other body is a form or a little JSON."""

_COMPRESS = "Send the candles as CSV.gz or Parquet, which are much smaller, or omit the oldest bars."
REMEDIES = {
    "datasets": _COMPRESS,
    "dataset-check": _COMPRESS,
    "bundles": "Send only the weights, without the optimiser's state.",
}
"""What to do about a file that is too large, by the page of its form."""


class RequestSizeLimits:
    """An ASGI application that refuses a request that is too large before reading its body, else calls `inner`."""

    def __init__(self, inner: App) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        violation = _find_violation(scope) if scope["type"] == "http" else None
        if violation is None:
            await self.inner(scope, receive, send)
        else:
            await _send_refusal(scope, *violation, send)


def _find_violation(scope: Scope) -> tuple[int, str] | None:
    """The status and message for a request that is too large; None for any other."""
    headers = dict(scope["headers"])
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return 431, f"The headers of a request may have {MAX_HEADER_BYTES:,} bytes together."
    if len(scope["query_string"]) > MAX_QUERY_BYTES:
        return 414, f"The query of an address may have {MAX_QUERY_BYTES:,} bytes."
    if b"content-length" not in headers and b"transfer-encoding" in headers:
        return 411, "Send the body with a Content-Length; a chunked one is not read."
    announced = int(headers.get(b"content-length", b"0"))
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if announced > most and announced > (most := _find_limit(scope["path"])):
        return (
            413,
            f"A request here may have {_format_size(most)}, and this one has {_format_size(announced)}.",
        )
    return None


def _format_size(count: int) -> str:
    """In bytes, and in MiB from one megabyte on, as in file lists."""
    mebibytes = f" ({count / 2**20:,.2f} MiB)" if count >= 2**20 else ""
    return f"{count:,} bytes{mebibytes}"


def _find_limit(path: str) -> int:
    setting = _limits_by_path().get(path)
    largest: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return getattr(settings, setting) + FORM_SLACK_BYTES if setting else largest


@cache
def _limits_by_path() -> dict[str, str]:
    return {reverse(name): setting for name, setting in UPLOADS.items()}


async def _send_refusal(scope: Scope, status: int, sentence: str, send: Send) -> None:
    content_type, body = _format_refusal(scope, status, sentence)
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body.encode())).encode()),
        (b"content-security-policy", STRICT.format(inline="").encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"close"),  # the rest of the body is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})


def _format_refusal(scope: Scope, status: int, sentence: str) -> tuple[str, str]:
    """Content type and body: a problem for the API, a page for a browser, else plain text."""
    if scope["path"].startswith("/api/"):
        return CONTENT_TYPE, json.dumps(build_document(status, sentence))
    if b"text/html" in dict(scope["headers"]).get(b"accept", b""):
        page = _render_page(scope["path"] if scope["path"] in _limits_by_path() else "")
        return "text/html; charset=utf-8", page.replace(SENTENCE, escape(sentence))
    return "text/plain; charset=utf-8", sentence


@cache
def _render_page(path: str) -> str:
    """The page for an upload form or any other address, with a placeholder for its message; rendered once."""
    upload = next((name for name in REMEDIES if path == reverse(name)), "")
    context = {"sentence": SENTENCE, "remedy": REMEDIES.get(upload), "back": path, "place": upload}
    return render_to_string("too_large.html", context)
