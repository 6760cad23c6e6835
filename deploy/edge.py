"""The bots' hot path: ready-made bytes from memory, in front of Django.

Every `GET /api/v1/active/`, `active/signed/` and `active/stream/` with a bearer token is answered here. What it needs from
the database (the last epoch, the tokens' owners) is asked again once it is older than FRESH_SECONDS, by one request for all
that wait; so a moved pointer and a revoked token are known here within that time, told by Redis or not. When the database
does not answer, neither does the edge: the bot then keeps its last good set, and nobody is told what could not be checked.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Protocol

from accounts import services as accounts
from accounts.rules import Actor
from audit.errors import DomainError, NotAllowed, Unauthenticated, Unavailable
from deploy import pointer, signing, snapshot
from deploy.freshness import Fresh, Owners
from deploy.snapshot import Snapshot
from deploy.streams import Receive, Send, Streams

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[bytes, bytes]

ACTIVE_PATH = "/api/v1/active/"
SIGNED_PATH = "/api/v1/active/signed/"
STREAM_PATH = "/api/v1/active/stream/"

logger = logging.getLogger(__name__)


class Ready(Protocol):
    """Bytes that can be sent as they are."""

    @property
    def body(self) -> bytes: ...

    @property
    def etag(self) -> str: ...


class Edge:
    """An ASGI application: `active/`, plain, signed and streamed, for bots from memory, everything else by `inner`."""

    def __init__(self, inner: App) -> None:
        self.inner = inner
        self.owners = Owners()
        envelope: Fresh[signing.Envelope] = Fresh(lambda _: signing.envelope())
        self.streams = Streams(envelope.get, self._welcome)
        self._documents: dict[str, Fresh[Any]] = {
            ACTIVE_PATH: Fresh(_latest),
            SIGNED_PATH: envelope,
            STREAM_PATH: envelope,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["path"] in self._documents
            and scope["method"] in ("GET", "HEAD")
        ):
            headers: Headers = dict(scope["headers"])
            if headers.get(b"authorization", b"")[:7].lower() == b"bearer ":
                await self._answer(scope, headers, receive, send)
                return
        await self.inner(scope, receive, send)

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        is_stream = scope["path"] == STREAM_PATH and scope["method"] == "GET"
        digest = accounts.digest_of(headers[b"authorization"][7:].decode("latin-1").strip())
        try:
            await self._authorise(digest)
            latest = await self._documents[scope["path"]].get()
            if is_stream:
                self.streams.expect_room()
        except DomainError as refusal:
            await _send_refusal(refusal, send)
        except Exception:
            logger.exception("the edge could not ask the database")
            unknown = "The service cannot check its state right now. Ask again shortly."
            await _send_refusal(Unavailable(unknown), send)
        else:
            if is_stream:
                await self.streams.serve(digest, latest, receive, send)
            else:
                await _send_document(latest, headers, scope["method"], send)

    async def _authorise(self, digest: str) -> None:
        actor = (await self.owners.of([digest]))[digest]
        if actor is None:
            raise Unauthenticated(
                "This token is unknown, expired or revoked. Ask an administrator for another."
            )
        if not _may_serve(actor):
            raise NotAllowed("This token holds no role: grant its owner one, or use a bot token.")

    async def _welcome(self, digests: Collection[str], since: float | None) -> set[str]:
        owners = await self.owners.of(digests, since)
        return {digest for digest in digests if _may_serve(owners[digest])}


def _may_serve(actor: Actor | None) -> bool:
    return actor is not None and (actor.is_bot or actor.can_view)


def _latest(known: Snapshot | None) -> Snapshot:
    now = pointer.current()
    if now is None:
        return snapshot.current()  # raises, and says what is missing
    return known if known is not None and known.epoch == now.epoch else snapshot.of(now)


async def _send_document(latest: Ready, headers: Headers, method: str, send: Send) -> None:
    etag = latest.etag.encode()
    known = [tag.strip().removeprefix(b"W/") for tag in headers.get(b"if-none-match", b"").split(b",")]
    if etag in known or b"*" in known:
        await _send(304, [(b"etag", etag)], b"", send)
        return
    described = [
        (b"etag", etag),
        (b"content-type", b"application/json"),
        (b"cache-control", b"private, no-cache"),
        (b"content-length", str(len(latest.body)).encode()),
    ]
    await _send(200, described, latest.body if method == "GET" else b"", send)


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
