"""The bots' hot path: ready-made bytes from memory, in front of Django.

Every `GET /api/v1/active/` and `active/signed/` with a bearer token is answered here. What it needs from the database
(the last epoch, the token's owner) is asked again once it is older than FRESH_SECONDS, by one request for all that
wait; so a moved pointer and a revoked token are known here within that time. When the database does not answer,
neither does the edge: the bot then keeps its last good set, and nobody is told what could not be checked.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Generic, Protocol, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from accounts import services as accounts
from audit.errors import DomainError, NotAllowed, Unauthenticated, Unavailable
from deploy import pointer, signing, snapshot
from deploy.snapshot import Snapshot

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Known = TypeVar("Known")

ACTIVE_PATH = "/api/v1/active/"
SIGNED_PATH = "/api/v1/active/signed/"
FRESH_SECONDS = 0.5
TOKENS_REMEMBERED = 4096

logger = logging.getLogger(__name__)


class Ready(Protocol):
    """Bytes that can be sent as they are."""

    @property
    def body(self) -> bytes: ...

    @property
    def etag(self) -> str: ...


class Fresh(Generic[Known]):
    """A value asked for anew once it is older than FRESH_SECONDS, by one caller while the others wait."""

    def __init__(self, ask: Callable[[Known | None], Known]) -> None:
        self._ask = ask
        self._value: Known | None = None
        self._asked_at = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self) -> Known:
        if self._value is None or time.monotonic() - self._asked_at > FRESH_SECONDS:
            async with self._lock:
                if self._value is None or time.monotonic() - self._asked_at > FRESH_SECONDS:
                    asked_at = time.monotonic()
                    self._value = await sync_to_async(self._ask_database, thread_sensitive=False)(self._value)
                    self._asked_at = asked_at
        return self._value

    def _ask_database(self, known: Known | None) -> Known:
        close_old_connections()
        try:
            return self._ask(known)
        finally:
            close_old_connections()


class Edge:
    """An ASGI application: `active/`, plain and signed, for bots from memory, everything else by `inner`."""

    def __init__(self, inner: App) -> None:
        self.inner = inner
        self._documents: dict[str, Fresh[Any]] = {
            ACTIVE_PATH: Fresh(_latest),
            SIGNED_PATH: Fresh(lambda _: signing.envelope()),
        }
        self._may_read: dict[str, Fresh[bool]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            document, headers = self._documents.get(scope["path"]), dict(scope["headers"])
            if document and headers.get(b"authorization", b"")[:7].lower() == b"bearer ":
                await self._answer(document, headers, scope["method"], send)
                return
        await self.inner(scope, receive, send)

    async def _answer(
        self, document: Fresh[Ready], headers: dict[bytes, bytes], method: str, send: Send
    ) -> None:
        try:
            await self._authorise(headers[b"authorization"][7:].decode("latin-1").strip())
            latest = await document.get()
        except DomainError as refusal:
            await _send_refusal(refusal, send)
            return
        except Exception:
            logger.exception("the edge could not ask the database")
            await _send_refusal(
                Unavailable("The service cannot check its state right now. Ask again shortly."), send
            )
            return
        etag = latest.etag.encode()
        known = [tag.strip().removeprefix(b"W/") for tag in headers.get(b"if-none-match", b"").split(b",")]
        if etag in known or b"*" in known:
            await _send(304, [(b"etag", etag)], b"", send)
            return
        described = [
            (b"etag", etag),
            (b"content-type", b"application/json"),
            (b"cache-control", b"private, no-cache"),
        ]
        length = (b"content-length", str(len(latest.body)).encode())
        await _send(200, [*described, length], latest.body if method == "GET" else b"", send)

    async def _authorise(self, raw: str) -> None:
        if len(self._may_read) > TOKENS_REMEMBERED:
            self._may_read.clear()  # a flood of made-up tokens costs look-ups, never memory
        known = self._may_read.setdefault(accounts.digest_of(raw), Fresh(lambda _: _may_serve(raw)))
        if not await known.get():
            raise NotAllowed("This token holds no role: grant its owner one, or use a bot token.")


def _may_serve(raw: str) -> bool:
    found = accounts.authenticate(raw)
    if found is None:
        raise Unauthenticated("This token is unknown, expired or revoked. Ask an administrator for another.")
    return found[1].is_bot or found[1].can_view


def _latest(known: Snapshot | None) -> Snapshot:
    now = pointer.current()
    if now is None:
        return snapshot.current()  # raises, and says what is missing
    return known if known is not None and known.epoch == now.epoch else snapshot.of(now)


async def _send_refusal(refusal: DomainError, send: Send) -> None:
    headers = [(b"content-type", b"application/problem+json")]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="crpbot gate"'))
    if refusal.status == 503:
        headers.append((b"retry-after", b"2"))
    await _send(refusal.status, headers, json.dumps(refusal.as_problem()).encode(), send)


async def _send(status: int, headers: list[tuple[bytes, bytes]], body: bytes, send: Send) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
