"""The streams of one web process: thousands of bots, each given the newest envelope as soon as there is one.

Server-sent events. Every subscriber is sent the same bytes,
and holds at most the newest that it has not taken yet: a slow one costs the others nothing, a stuck one is dropped.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from typing import Any

from common.errors import DomainError, Unavailable
from deploy.edge import freshness
from deploy.pointer import push
from deploy.serving.events import BEGINNING, COMMENT, format_event
from deploy.serving.signing import Envelope

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Latest = Callable[[float], Awaitable[Envelope]]
"""The envelope of this moment, asked for at that time (of time.monotonic) or later."""
MayServe = Callable[[Collection[str], float], Awaitable[Collection[str]]]
"""Which of these tokens, by digest, may be served."""

COMMENT_SECONDS = 15.0
SEND_SECONDS = 10.0
MOST_STREAMS = 10_000
"""In one process; more are asked to poll. Each takes a file descriptor and some 30 KiB."""

HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"private, no-store, no-transform"),
    (b"connection", b"close"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise collect events before it passes them on
]

logger = logging.getLogger(__name__)


class Subscriber:
    """One bot's stream: what it was offered last, and the one sending that may be under way."""

    def __init__(self, digest: str, send: Send) -> None:
        self.digest = digest
        self.offered: Envelope | None = None
        self.ended = asyncio.Event()
        self.is_stuck = False
        self._send = send
        self._newest = b""
        self._sending: asyncio.Task[None] | None = None
        self._sent_at = time.monotonic()

    def offer(self, envelope: Envelope, event: bytes) -> None:
        """Send this as soon as what is on its way has gone; one that waits is replaced by it."""
        self.offered = envelope
        self._deliver(event)

    def keep_alive(self) -> None:
        """A comment, where nothing was sent for a while: proxies and bots tell a quiet stream from a dead one by it."""
        is_idle = self._sending is None or self._sending.done()
        if is_idle and time.monotonic() - self._sent_at >= COMMENT_SECONDS:
            self._deliver(COMMENT)

    async def close(self) -> None:
        """Send nothing more, and end the answer where the other side still takes it."""
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
    """All subscribers of this process, and the one task that looks on their behalf for as long as there are any."""

    def __init__(self, latest: Latest, may_serve: MayServe) -> None:
        self._latest, self._may_serve = latest, may_serve
        self._subscribers: set[Subscriber] = set()
        self._woken = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._event: tuple[Envelope, bytes] | None = None
        self._problem = ""

    def __len__(self) -> int:
        return len(self._subscribers)

    def expect_room(self) -> None:
        """Raise Unavailable where this process streams to as many as it can."""
        if len(self) >= MOST_STREAMS:
            raise Unavailable(
                f"This process streams to {len(self)} bots already. Poll active/signed/ instead."
            )

    async def serve(self, digest: str, envelope: Envelope, receive: Receive, send: Send) -> None:
        """Stream to one bot, from this envelope on, until it goes, gets stuck, or its token ends."""
        subscriber = Subscriber(digest, send)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BEGINNING, "more_body": True})
        self._subscribers.add(subscriber)
        self._offer(subscriber, envelope)
        self._begin()
        gone = asyncio.create_task(_until_gone(receive))
        ended = asyncio.create_task(subscriber.ended.wait())
        try:
            await asyncio.wait([gone, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            ended.cancel()
            self._subscribers.discard(subscriber)
            if not self._subscribers:
                self._end()
            await subscriber.close()

    def _begin(self) -> None:
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    def _end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    async def _watch(self) -> None:
        """Look twice a second, and at once when told; an edge without subscribers asks nothing."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                self._woken.clear()
                await self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(freshness.FRESH_SECONDS):
                        await self._woken.wait()

    async def _listen(self) -> None:
        try:
            async for _ in push.watch_moves():
                self._woken.set()
        except Exception:
            logger.exception("nothing tells the streams of moves any more: the database is asked")

    async def _look(self) -> None:
        """Give each what it has not been offered, and end those whose token no longer stands."""
        since = time.monotonic()
        try:
            envelope = await self._latest(since)
            for subscriber in self._subscribers:
                if subscriber.offered is not envelope:
                    self._offer(subscriber, envelope)
            # All is sent before anything else is asked for: that runs in a thread, and the two would take turns.
            await asyncio.sleep(0)
        except DomainError as refusal:
            self._tell(f"nothing is streamed: {refusal.message}")
        except Exception:  # noqa: BLE001 - whatever the database raises, the streams outlive it
            self._tell("the streams cannot ask the database")
        else:
            self._problem = ""
        await self._end_unwelcome(since)
        for subscriber in self._subscribers:
            subscriber.keep_alive()

    async def _end_unwelcome(self, since: float) -> None:
        """Apart from the envelope: where none can be signed, a revoked token's stream ends all the same."""
        asked_about = list(
            self._subscribers
        )  # who comes while the database answers was checked on the way in
        try:
            welcome = await self._may_serve([one.digest for one in asked_about], since)
        except Exception:  # noqa: BLE001 - as above
            self._tell("the streams cannot ask the database")
            return
        for subscriber in asked_about:
            if subscriber.digest not in welcome:
                subscriber.ended.set()

    def _offer(self, subscriber: Subscriber, envelope: Envelope) -> None:
        if self._event is None or self._event[0] is not envelope:
            # Made once: all subscribers share these bytes.
            self._event = envelope, format_event(envelope)
        subscriber.offer(*self._event)

    def _tell(self, problem: str) -> None:
        if problem != self._problem:  # once, not twice a second
            logger.warning("%s", problem, exc_info=True)
        self._problem = problem


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
