"""What a request may weigh, in front of Django, which would store any body to its end before it looks at anything."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any

from django.conf import settings
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import escape

from crpbot.api.problems import CONTENT_TYPE, document
from crpbot.web.middleware import STRICT

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_HEADER_BYTES = 32 * 1024
MAX_QUERY_BYTES = 8 * 1024
SENTENCE = "{sentence}"
FORM_SLACK_BYTES = 64 * 1024
"""What a multipart form adds around its file."""

UPLOADS = {
    "api:datasets": "DATASET_UPLOAD_LIMIT_BYTES",
    "api:bundles": "IMPORTED_MODEL_UPLOAD_LIMIT_BYTES",
    "datasets": "DATASET_UPLOAD_LIMIT_BYTES",
    "bundles": "IMPORTED_MODEL_UPLOAD_LIMIT_BYTES",
}
"""The routes that take a file, and the setting that says how large. Any other body is a form or a few lines of JSON."""

REMEDIES = {
    "datasets": "Send the candles as CSV.gz or Parquet, which take a fraction of it, or without the oldest bars.",
    "bundles": "Send the weights alone: an optimiser's state is no part of a model.",
}
"""What to do about a file that is too large, by the page whose form it was chosen on."""


class RequestSizeLimits:
    """An ASGI application: what is too large is refused before any of its body is read, everything else is `inner`'s."""

    def __init__(self, inner: App) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = _refused(scope) if scope["type"] == "http" else None
        if refused is None:
            await self.inner(scope, receive, send)
        else:
            await _send_refusal(scope, *refused, send)


def _refused(scope: Scope) -> tuple[int, str] | None:
    """The status and the sentence for what is too much; None for a request that is not."""
    headers = dict(scope["headers"])
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return 431, f"The headers of a request may have {MAX_HEADER_BYTES:,} bytes together."
    if len(scope["query_string"]) > MAX_QUERY_BYTES:
        return 414, f"The query of an address may have {MAX_QUERY_BYTES:,} bytes."
    if b"content-length" not in headers and b"transfer-encoding" in headers:
        return 411, "Send the body with a Content-Length; a chunked one is not read."
    announced = int(headers.get(b"content-length", b"0"))
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if announced > most and announced > (most := _most_at(scope["path"])):
        return 413, f"A request here may have {_size(most)}, and this one has {_size(announced)}."
    return None


def _size(count: int) -> str:
    """In bytes; a megabyte and more in MiB too, as file lists show it."""
    mebibytes = f" ({count / 2**20:,.2f} MiB)" if count >= 2**20 else ""
    return f"{count:,} bytes{mebibytes}"


def _most_at(path: str) -> int:
    setting = _uploads().get(path)
    largest: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return getattr(settings, setting) + FORM_SLACK_BYTES if setting else largest


@cache
def _uploads() -> dict[str, str]:
    return {reverse(name): setting for name, setting in UPLOADS.items()}


async def _send_refusal(scope: Scope, status: int, sentence: str, send: Send) -> None:
    kind, body = _told(scope, status, sentence)
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body.encode())).encode()),
        (b"content-security-policy", STRICT.format(inline="").encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"close"),  # what still comes is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})


def _told(scope: Scope, status: int, sentence: str) -> tuple[str, str]:
    """The refusal for whoever asked, and its content type: a problem for the API, a page for a browser, else the words."""
    if scope["path"].startswith("/api/"):
        return CONTENT_TYPE, json.dumps(document(status, sentence))
    if b"text/html" in dict(scope["headers"]).get(b"accept", b""):
        page = _page(scope["path"] if scope["path"] in _uploads() else "")
        return "text/html; charset=utf-8", page.replace(SENTENCE, escape(sentence))
    return "text/plain; charset=utf-8", sentence


@cache
def _page(path: str) -> str:
    """The page for one of the upload forms, or for anywhere else, with a place for its sentence; rendered once."""
    place = next((name for name in REMEDIES if path == reverse(name)), "")
    context = {"sentence": SENTENCE, "remedy": REMEDIES.get(place), "back": path, "place": place}
    return render_to_string("too_large.html", context)
