"""What a request may weigh, in front of Django, which would store any body to its end before it looks at anything."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any

from django.conf import settings
from django.urls import reverse

from crpbot.problems import CONTENT_TYPE, document

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_HEADER_BYTES = 32 * 1024
MOST_QUERY_BYTES = 8 * 1024
FORM_SLACK_BYTES = 64 * 1024
"""What a multipart form adds around its file."""

UPLOADS = {
    "api:datasets": "DATASET_UPLOAD_LIMIT_BYTES",
    "api:bundles": "CHECKPOINT_UPLOAD_LIMIT_BYTES",
    "datasets": "DATASET_UPLOAD_LIMIT_BYTES",
    "bundles": "CHECKPOINT_UPLOAD_LIMIT_BYTES",
}
"""The routes that take a file, and the setting that says how large. Any other body is a form or a few lines of JSON."""


class Limits:
    """An ASGI application: what is too large is refused before any of its body is read, everything else is `inner`'s."""

    def __init__(self, inner: App) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = _refused(scope) if scope["type"] == "http" else None
        if refused is None:
            await self.inner(scope, receive, send)
        else:
            await _send_refusal(scope["path"], *refused, send)


def _refused(scope: Scope) -> tuple[int, str] | None:
    """The status and the sentence for what is too much; None for a request that is not."""
    headers = dict(scope["headers"])
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADER_BYTES:
        return 431, f"The headers of a request may have {MOST_HEADER_BYTES:,} bytes together."
    if len(scope["query_string"]) > MOST_QUERY_BYTES:
        return 414, f"The query of an address may have {MOST_QUERY_BYTES:,} bytes."
    if b"content-length" not in headers and b"transfer-encoding" in headers:
        return 411, "Send the body with a Content-Length; a chunked one is not read."
    announced = int(headers.get(b"content-length", b"0"))
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if announced > most and announced > (most := _most_at(scope["path"])):
        return 413, f"A request here may have {most:,} bytes, and this one has {announced:,}."
    return None


def _most_at(path: str) -> int:
    setting = _uploads().get(path)
    largest: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return getattr(settings, setting) + FORM_SLACK_BYTES if setting else largest


@cache
def _uploads() -> dict[str, str]:
    return {reverse(name): setting for name, setting in UPLOADS.items()}


async def _send_refusal(path: str, status: int, sentence: str, send: Send) -> None:
    if path.startswith("/api/"):
        kind, body = CONTENT_TYPE, json.dumps(document(status, sentence))
    else:
        kind, body = "text/plain; charset=utf-8", sentence
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body.encode())).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"close"),  # what still comes is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
