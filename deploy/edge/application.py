"""The bots' hot path, in front of Django: ready-made bytes from memory, and heartbeats, written down many at a time.

Every `GET /api/v1/active/`, `active/signed/` and `active/stream/` with a bearer token is answered here. What it needs from
the database (the last revision, the tokens' owners) is asked again once it is older than FRESH_SECONDS, by one request for
all that wait; so a moved pointer and a revoked token are known here within that time, told by Redis or not. When the
database does not answer, neither does the edge: the bot then keeps its last good set, and nobody is told
what could not be checked.

`POST /api/v1/bots/heartbeat/` with a bot's token is read here by the rules of the API's own operation (the same parser, the
same fields, the same service). What they do not take is handed on to that operation, which says why.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any, Protocol

from accounts import services as accounts
from accounts.authentication import IsBot
from accounts.rules import Actor
from common.errors import DomainError, NotAllowed, TooLarge, Unauthenticated, Unavailable
from deploy.api import bots
from deploy.edge.freshness import Fresh, Owners
from deploy.edge.gathering import Gathering
from deploy.edge.streams import Message, Receive, Send, Streams
from deploy.pointer import pointer
from deploy.services import Heartbeat, Report
from deploy.serving import signing, snapshot
from deploy.serving.snapshot import Snapshot

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[bytes, bytes]
Answer = Callable[[Scope, Headers, Receive, Send], Awaitable[None]]

ACTIVE_PATH = "/api/v1/active/"
SIGNED_PATH = "/api/v1/active/signed/"
STREAM_PATH = "/api/v1/active/stream/"
HEARTBEAT_PATH = "/api/v1/bots/heartbeat/"

MOST_HEARTBEAT_BYTES = 64 * 1024
"""Sixty-four coins and the longest of errors take a third of it."""

UNKNOWN = "The service cannot check its state right now. Ask again shortly."

logger = logging.getLogger(__name__)


class _Gone(Exception):
    """The other side has left before it had said all."""


class Ready(Protocol):
    """Bytes that can be sent as they are."""

    @property
    def body(self) -> bytes: ...

    @property
    def etag(self) -> str: ...


class Edge:
    """An ASGI application: `active/`, plain, signed and streamed, and heartbeats; everything else by `inner`."""

    def __init__(self, inner: App) -> None:
        self.inner = inner
        self.owners = Owners()
        self.gathering = Gathering()
        envelope: Fresh[signing.Envelope] = Fresh(lambda _: signing.get_envelope())
        self.streams = Streams(envelope.get, self._welcome)
        self._documents: dict[str, Fresh[Any]] = {
            ACTIVE_PATH: Fresh(_latest),
            SIGNED_PATH: envelope,
            STREAM_PATH: envelope,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answers(scope) if scope["type"] == "http" else None
        headers: Headers = dict(scope.get("headers", ()))
        if answer is not None and headers.get(b"authorization", b"")[:7].lower() == b"bearer ":
            await answer(scope, headers, receive, send)
        else:
            await self.inner(scope, receive, send)

    def _answers(self, scope: Scope) -> Answer | None:
        if scope["path"] in self._documents and scope["method"] in ("GET", "HEAD"):
            return self._answer
        if scope["path"] == HEARTBEAT_PATH and scope["method"] == "POST":
            return self._hear
        return None

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        is_stream = scope["path"] == STREAM_PATH and scope["method"] == "GET"
        digest = _digest_shown(headers)
        try:
            await self._authorise(digest)
            latest = await self._documents[scope["path"]].get()
            if is_stream:
                self.streams.expect_room()
        except DomainError as refusal:
            await _send_refusal(refusal, send)
        except Exception:
            logger.exception("the edge could not ask the database")
            await _send_refusal(Unavailable(UNKNOWN), send)
        else:
            if is_stream:
                await self.streams.serve(digest, latest, receive, send)
            else:
                await _send_document(latest, headers, scope["method"], send)

    async def _hear(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        try:
            actor = await self._actor(_digest_shown(headers))
            if not actor.is_bot:
                raise NotAllowed(IsBot.message)
            body = await _body(headers, receive)
            said = None if body is None else _read(headers, body)
            if said is not None:
                heard = await self.gathering.heard(Report(actor, said))
        except DomainError as refusal:
            await _send_refusal(refusal, send)
        except _Gone:
            return
        except Exception:
            logger.exception("the edge could not ask the database")
            await _send_refusal(Unavailable(UNKNOWN), send)
        else:
            if said is None:
                await self.inner(scope, _again(body or b"", receive), send)
            else:
                await _send_json(bots.told(heard), send)

    async def _authorise(self, digest: str) -> None:
        if not _may_serve(await self._actor(digest)):
            raise NotAllowed("This token holds no role: grant its owner one, or use a bot token.")

    async def _actor(self, digest: str) -> Actor:
        actor = (await self.owners.of([digest]))[digest]
        if actor is None:
            raise Unauthenticated(
                "This token is unknown, expired or revoked. Ask an administrator for another."
            )
        return actor

    async def _welcome(self, digests: Collection[str], since: float | None) -> set[str]:
        owners = await self.owners.of(digests, since)
        return {digest for digest in digests if _may_serve(owners[digest])}


def _may_serve(actor: Actor | None) -> bool:
    return actor is not None and (actor.is_bot or actor.can_view)


def _latest(known: Snapshot | None) -> Snapshot:
    now = pointer.get_current()
    if now is None:
        return snapshot.build_current()  # raises, and says what is missing
    return known if known is not None and known.revision == now.revision else snapshot.build_snapshot(now)


def _digest_shown(headers: Headers) -> str:
    return accounts.hash_token(headers[b"authorization"][7:].decode("latin-1").strip())


async def _body(headers: Headers, receive: Receive) -> bytes | None:
    """The body of a heartbeat; None, and nothing read, where its length is not announced. Raises TooLarge, _Gone."""
    announced = headers.get(b"content-length", b"")
    if not announced.isdigit():
        return None
    if int(announced) > MOST_HEARTBEAT_BYTES:
        raise TooLarge(f"A heartbeat has at most {MOST_HEARTBEAT_BYTES:,} bytes.")
    body, is_whole = b"", False
    while not is_whole:
        message = await receive()
        if message["type"] != "http.request":
            raise _Gone
        body += message.get("body", b"")
        is_whole = not message.get("more_body", False)
    return body


def _read(headers: Headers, body: bytes) -> Heartbeat | None:
    """The heartbeat; None where the API's operation has to say what is wrong with it."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return bots.read(body) if kind == b"application/json" else None


def _again(body: bytes, receive: Receive) -> Receive:
    """What was read already, to be read once more; then its going away. A body that was not read is no part of it."""
    left = [body]

    async def receive_again() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return receive_again


async def _send_json(document: Mapping[str, Any], send: Send) -> None:
    body = json.dumps(document).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    await _send(200, headers, body, send)


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
    headers = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="crpbot gate"'))
    if refusal.status == 503:
        headers.append((b"retry-after", b"2"))
    if refusal.status == 413:
        headers.append((b"connection", b"close"))  # what it sends is not read
    await _send(refusal.status, headers, json.dumps(refusal.as_problem()).encode(), send)


async def _send(status: int, headers: list[tuple[bytes, bytes]], body: bytes, send: Send) -> None:
    headers = [*headers, (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
