"""The streams of one web process: thousands of bots, each sent the newest envelope as soon as there is one.

Server-sent events. All subscribers share the same bytes, and each holds at most one unsent event: a slow subscriber costs
the others nothing, a stuck one is dropped.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from typing import Any

from common.errors import DomainError, Unavailable
from deploy.edge import freshness
from deploy.pointer import notify
from deploy.serving.events import BEGINNING, COMMENT, format_event
from deploy.serving.snapshot import Snapshot

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Latest = Callable[[float], Awaitable[Snapshot]]
"""The current envelope, queried at that time (of time.monotonic) or later."""
MayServe = Callable[[Collection[str], float], Awaitable[Collection[str]]]
"""Which of these tokens, by digest, may be served."""

COMMENT_SECONDS = 15.0
SEND_SECONDS = 10.0
MAX_STREAMS = 10_000
"""In one process; more must poll. Each takes a file descriptor and some 30 KiB."""

MAX_STREAMS_OF_TOKEN = 2_000
"""In one process: one token must not take the place of all others."""

HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"private, no-store, no-transform"),
    (b"connection", b"close"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise buffer events
]

logger = logging.getLogger(__name__)


class Subscriber:
    """One bot's stream: the last envelope offered to it, and at most one send in progress."""

    def __init__(self, digest: str, send: Send) -> None:
        self.digest = digest
        self.offered: Snapshot | None = None
        self.ended = asyncio.Event()
        self.is_stuck = False
        self._send = send
        self._newest = b""
        self._sending: asyncio.Task[None] | None = None
        self._sent_at = time.monotonic()

    def offer(self, envelope: Snapshot) -> None:
        """Send this after the send in progress; it replaces an event that still waits."""
        self.offered = envelope
        self._deliver(format_event(envelope))

    def keep_alive(self) -> None:
        """Send a comment if nothing was sent for a while, so that proxies and bots can recognise a dead stream."""
        is_idle = self._sending is None or self._sending.done()
        if is_idle and time.monotonic() - self._sent_at >= COMMENT_SECONDS:
            self._deliver(COMMENT)

    async def close(self) -> None:
        """Stop sending, and end the response if the client still accepts it."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        if not self.is_stuck:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(SEND_SECONDS):
                    await self._send({"type": "http.response.body", "body": b""})

    def _deliver(self, event: bytes) -> None:
        self._newest = event
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_newest())

    async def _send_newest(self) -> None:
        try:
            while self._newest:
                event, self._newest = self._newest, b""
                async with asyncio.timeout(SEND_SECONDS):
                    await self._send({"type": "http.response.body", "body": event, "more_body": True})
                self._sent_at = time.monotonic()
        except (TimeoutError, OSError):
            self.is_stuck = True
            self.ended.set()


class Streams:
    """All subscribers of this process, and the one task that queries on their behalf while there are any."""

    def __init__(self, latest: Latest, may_serve: MayServe) -> None:
        self._load_snapshot, self._may_serve = latest, may_serve
        self._subscribers: set[Subscriber] = set()
        self._of_token: Counter[str] = Counter()
        self._wake_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._problem = ""

    def __len__(self) -> int:
        return len(self._subscribers)

    def require_room(self, digest: str) -> None:
        """Raise Unavailable if this process streams to MAX_STREAMS bots already, or to too many of this token."""
        if len(self) >= MAX_STREAMS:
            raise Unavailable(
                f"This process streams to {len(self)} bots already. Poll active/signed/ instead."
            )
        if self._of_token[digest] >= MAX_STREAMS_OF_TOKEN:
            raise Unavailable(
                f"This process streams to {MAX_STREAMS_OF_TOKEN} bots with this token already. Poll active/signed/ instead,"
                " or use more than one token."
            )

    async def serve(self, digest: str, envelope: Snapshot, receive: Receive, send: Send) -> None:
        """Stream to one bot, from this envelope on, until it disconnects, gets stuck, or its token ends."""
        subscriber = Subscriber(digest, send)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BEGINNING, "more_body": True})
        self._subscribers.add(subscriber)
        self._of_token[digest] += 1
        subscriber.offer(envelope)
        if self._task is None:
            self._task = freshness.start_shared(self._run())
        disconnected = asyncio.create_task(_wait_for_disconnect(receive))
        ended = asyncio.create_task(subscriber.ended.wait())
        try:
            await asyncio.wait([disconnected, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            disconnected.cancel()
            ended.cancel()
            self._subscribers.discard(subscriber)
            self._of_token -= Counter([digest])
            if not self._subscribers and self._task is not None:
                self._task.cancel()
                self._task = None
            await subscriber.close()

    async def _run(self) -> None:
        """Query twice a second, and at once after a move; without subscribers there are no queries."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                self._wake_up.clear()
                await self._update()
                with suppress(TimeoutError):
                    async with asyncio.timeout(freshness.FRESH_SECONDS):
                        await self._wake_up.wait()

    async def _listen(self) -> None:
        try:
            async for _ in notify.watch_moves():
                self._wake_up.set()
        except Exception:
            logger.exception("the streams are no longer notified of moves: the database is polled")

    async def _update(self) -> None:
        """Offer each subscriber the newest envelope, and end those whose token is no longer valid."""
        since = time.monotonic()
        try:
            envelope = await self._load_snapshot(since)
            for subscriber in self._subscribers:
                if subscriber.offered is not envelope:
                    subscriber.offer(envelope)
            # Send everything before the next query: that runs in a thread, and the two would take turns.
            await asyncio.sleep(0)
        except DomainError as refusal:
            self._log_once(f"nothing is streamed: {refusal.message}")
        except Exception:  # noqa: BLE001 - the streams survive whatever the database raises
            self._log_once("the streams cannot query the database")
        else:
            self._problem = ""
        await self._end_disallowed(since)
        for subscriber in self._subscribers:
            subscriber.keep_alive()

    async def _end_disallowed(self, since: float) -> None:
        """Separate from the envelope: a revoked token's stream also ends while nothing can be signed."""
        # Those who join during the query were checked when they connected.
        subscribers = list(self._subscribers)
        try:
            allowed = await self._may_serve([subscriber.digest for subscriber in subscribers], since)
        except Exception:  # noqa: BLE001 - as above
            self._log_once("the streams cannot query the database")
            return
        for subscriber in subscribers:
            if subscriber.digest not in allowed:
                subscriber.ended.set()

    def _log_once(self, problem: str) -> None:
        if problem != self._problem:  # once, not twice a second
            logger.warning("%s", problem, exc_info=True)
        self._problem = problem


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
