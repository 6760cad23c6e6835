"""The bots' hot path, in front of Django: prepared bytes from memory, and what bots report stored in batches.

Every `GET /api/v1/active/`, `active/keys/`, `active/signed/` and `active/stream/` with a bearer token is answered here. What
that needs from the database (the last revision, the tokens' owners) is queried again once it is older than FRESH_SECONDS,
by one request for all that wait. So a moved pointer and a revoked token are known here within that time, with or without
Redis. While the database fails, or does not answer within ANSWER_SECONDS, a token that was valid at the last query gets the
last signed snapshot until it expires, and until then the plain one and the sets of keys too. Every other request gets 503,
and bots keep their last good set.

`POST /api/v1/bots/heartbeat/` and `bots/windows/` with a bot's token are parsed here with the API's own parser, fields and
service. An invalid one is passed on to the API's operation, which answers what is wrong.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from functools import partial
from typing import Any, NamedTuple

from django.db import DatabaseError, InterfaceError

from accounts import services as accounts
from accounts.authentication import IsBot
from accounts.roles import Actor
from common.errors import DomainError, NotAllowed, TooLarge, Unauthenticated, Unavailable
from deploy.api import bots, live
from deploy.bots.heartbeat_checks import ReceivedHeartbeat
from deploy.bots.heartbeats import receive_heartbeats
from deploy.bots.live_gates import ReceivedWindow, receive_windows
from deploy.edge.batcher import Batcher
from deploy.edge.freshness import CachedValue, TokenOwners
from deploy.edge.last_use import LastUses
from deploy.edge.streams import Message, Receive, Send, Streams
from deploy.serving import key_sets, signing, snapshot
from deploy.serving.snapshot import Snapshot

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[bytes, bytes]
Answer = Callable[[Send], Awaitable[None]]
"""Everything that an answer needs but the way to send it."""

ACTIVE_PATH = "/api/v1/active/"
KEYS_PATH = "/api/v1/active/keys/"
SIGNED_PATH = "/api/v1/active/signed/"
STREAM_PATH = "/api/v1/active/stream/"
HEARTBEAT_PATH = "/api/v1/bots/heartbeat/"
WINDOW_PATH = "/api/v1/bots/windows/"

ANSWER_SECONDS = 2.0
"""How long a request for a document waits for the database: bots give up after some seconds themselves."""

MAX_REPORT_BYTES = 64 * 1024
"""Of a heartbeat or a live window. Five hundred coins and the longest error fit."""

UNAVAILABLE = "The service cannot check its state right now. Ask again shortly."

logger = logging.getLogger(__name__)


class _Disconnected(Exception):
    """The client disconnected before the end of its request."""


class _ReportKind(NamedTuple):
    """How one kind of what bots report is parsed, stored and answered."""

    parse: Callable[[bytes], Any]
    """None for an invalid one."""
    receive: Callable[[Actor, Any], Any]
    batcher: Batcher[Any, Any]
    build_answer: Callable[[Any], Mapping[str, Any]]
    status: int


class Edge:
    """An ASGI application: `active/`, plain, signed and streamed, and what bots report; everything else by `inner`."""

    def __init__(self, inner: App) -> None:
        self.inner = inner
        self.owners = TokenOwners()
        self.last_uses = LastUses()
        self._reports = {
            HEARTBEAT_PATH: _ReportKind(
                bots.parse_heartbeat,
                ReceivedHeartbeat,
                Batcher(receive_heartbeats, name="heartbeat"),
                bots.build_heartbeat_answer,
                200,
            ),
            WINDOW_PATH: _ReportKind(
                live.parse_window,
                ReceivedWindow,
                Batcher(receive_windows, name="live window"),
                live.build_window_answer,
                201,
            ),
        }
        self._envelope = envelope = CachedValue[Snapshot](lambda _: signing.get_envelope())
        self.streams = Streams(envelope.get, self._find_allowed)
        self._documents = {
            ACTIVE_PATH: CachedValue(snapshot.build_current),
            KEYS_PATH: CachedValue(key_sets.build_chain),
            SIGNED_PATH: envelope,
            STREAM_PATH: envelope,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = dict(scope.get("headers", ()))
        is_ours = scope["type"] == "http" and (
            (scope["path"] in self._documents and scope["method"] in ("GET", "HEAD"))
            or (scope["path"] in self._reports and scope["method"] == "POST")
        )
        if not is_ours or headers.get(b"authorization", b"")[:7].lower() != b"bearer ":
            await self.inner(scope, receive, send)
            self.last_uses.store_soon()
            return
        prepare = self._prepare_document if scope["path"] in self._documents else self._take_report
        try:
            answer = await prepare(scope, headers, receive)
        except DomainError as refusal:
            await _send_refusal(refusal, send)
        except _Disconnected:
            return
        except TimeoutError:
            await _send_refusal(Unavailable(UNAVAILABLE), send)
        except Exception:
            logger.exception("the edge could not query the database")
            await _send_refusal(Unavailable(UNAVAILABLE), send)
        else:
            await answer(send)

    async def _prepare_document(self, scope: Scope, headers: Headers, receive: Receive) -> Answer:
        digest = _get_token_digest(headers)
        documents = self._documents[scope["path"]]
        try:
            latest = self._find_fresh(documents, digest)
            if latest is None:
                async with asyncio.timeout(ANSWER_SECONDS):
                    if not _may_serve(await self._get_actor(digest)):
                        raise NotAllowed("This token has no role: grant its owner one, or use a bot token.")
                    latest = await documents.get()
        except (DatabaseError, InterfaceError, TimeoutError):
            if (
                not _may_serve(self.owners.recall(digest))
                or (remembered := self._recall(scope["path"])) is None
            ):
                raise
            latest = remembered
        if scope["path"] != STREAM_PATH or scope["method"] != "GET":
            return partial(_send_document, latest, headers, scope["method"])
        self.streams.require_room(digest)
        return partial(self.streams.serve, digest, latest, receive)

    def _find_fresh(self, documents: CachedValue[Snapshot], digest: str) -> Snapshot | None:
        """What can be served without waiting, as nearly always: a deadline costs as much as all the rest."""
        if not _may_serve(self.owners.find_fresh(digest)):
            return None
        self.last_uses.note(digest)
        return documents.fresh

    def _recall(self, path: str) -> Snapshot | None:
        """What may be served without the database, while the signed snapshot in memory is valid.

        Never a lower revision than was served before, and no keys without those that the snapshot tells bots to ask for.
        """
        signed, last = self._envelope.last, self._documents[path].last
        if signed is None or not signed.is_valid:
            return None
        if path == ACTIVE_PATH:
            return (
                signing.extract_document(signed) if last is None or last.revision <= signed.revision else None
            )
        if path == KEYS_PATH and last is not None and last.revision < signing.extract_key_version(signed):
            return None
        return last

    async def _take_report(self, scope: Scope, headers: Headers, receive: Receive) -> Answer:
        actor = await self._get_actor(_get_token_digest(headers))
        if not actor.is_bot:
            raise NotAllowed(IsBot.message)
        body = await _read_body(headers, receive)
        kind = self._reports[scope["path"]]
        # What is invalid is passed on, so that the API's own operation answers why.
        report = kind.parse(body) if body is not None and _is_json(headers) else None
        if report is None:
            return partial(self.inner, scope, _replay_body(body or b"", receive))
        answer = await kind.batcher.store(kind.receive(actor, report))
        return partial(_send_json, kind.build_answer(answer), kind.status)

    async def _get_actor(self, digest: str) -> Actor:
        actor = (await self.owners.look_up([digest]))[digest]
        if actor is None:
            raise Unauthenticated(
                "This token is unknown, expired or revoked. Ask an administrator for another."
            )
        self.last_uses.note(digest)
        return actor

    async def _find_allowed(self, digests: Collection[str], since: float | None) -> set[str]:
        owners = await self.owners.look_up(digests, since)
        allowed = {digest for digest in digests if _may_serve(owners[digest])}
        self.last_uses.note(*allowed)
        return allowed


def _may_serve(actor: Actor | None) -> bool:
    return actor is not None and (actor.is_bot or actor.can_view)


def _get_token_digest(headers: Headers) -> str:
    return accounts.hash_token(headers[b"authorization"][7:].decode("latin-1").strip())


async def _read_body(headers: Headers, receive: Receive) -> bytes | None:
    """The body of a report; None, and nothing read, without a Content-Length. Raises TooLarge, _Disconnected."""
    length = headers.get(b"content-length", b"")
    if not length.isdigit():
        return None
    if int(length) > MAX_REPORT_BYTES:
        raise TooLarge(f"A heartbeat or live window has at most {MAX_REPORT_BYTES:,} bytes.")
    body, is_complete = b"", False
    while not is_complete:
        message = await receive()
        if message["type"] != "http.request":
            raise _Disconnected
        body += message.get("body", b"")
        is_complete = not message.get("more_body", False)
    return body


def _is_json(headers: Headers) -> bool:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"application/json"


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` that first returns the body already read, then only the disconnect."""
    left = [body]

    async def receive_again() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return receive_again


async def _send_json(document: Mapping[str, Any], status: int, send: Send) -> None:
    body = json.dumps(document).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    await _send(status, headers, body, send)


async def _send_document(latest: Snapshot, headers: Headers, method: str, send: Send) -> None:
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
        headers.append((b"connection", b"close"))  # its body is not read
    await _send(refusal.status, headers, json.dumps(refusal.to_problem()).encode(), send)


async def _send(status: int, headers: list[tuple[bytes, bytes]], body: bytes, send: Send) -> None:
    headers = [*headers, (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
