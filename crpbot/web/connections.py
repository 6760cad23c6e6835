"""HTTP connections with deadlines and limits: uvicorn waits for a slow request without end.

Started as `uvicorn --http crpbot.web.connections:BoundedConnection`. A request has HEAD_SECONDS for its head, and for its
body BODY_SECONDS and more by its length. When too many connections wait for their request, those that have waited longest
are closed, so that nobody who sends a request is refused for those who send none. A new one is closed last.
"""

import asyncio
import resource
import time

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
BODY_BYTES_PER_SECOND = 32 * 1024
"""A longer body has so much more time: a dataset of 64 MiB about half an hour."""
ANSWER_SECONDS = 60.0
"""A client that reads nothing for this long is dropped."""
MAX_HEAD_BYTES = 64 * 1024
"""More than crpbot.web.limits accepts, which answers with the reason; without end, nobody would."""
MAX_INCOMPLETE_OF_ADDRESS = 200
"""Connections of one address whose request has not arrived completely, after LONG_WAIT_SECONDS."""
LONG_WAIT_SECONDS = 2.0
"""A whole fleet may connect at once from one address, and a busy process reads their requests only after that."""
MAX_CONNECTIONS = 12_000
"""Of one process: 10,000 streams of bots, and other requests."""
SPARE_FILES = 500
"""Open files of a process that are no connections."""


class OpenConnections:
    """The connections of this process that can be closed for others: no request of theirs is being answered."""

    def __init__(self) -> None:
        # A dict keeps the order: the first has waited longest.
        self.incomplete: dict[BoundedConnection, str] = {}
        self.idle: dict[BoundedConnection, None] = {}
        self._of_address: dict[str, dict[BoundedConnection, float]] = {}
        """By address, its incomplete connections, and since when each waits."""

    def wait_for_request(self, connection: "BoundedConnection", address: str) -> None:
        """Its request has not arrived completely. Beyond the limit of its address, those that have waited long are closed.

        An empty address has no limit: that of a proxy, before it says for whom it asks.
        """
        self.forget(connection)
        self.incomplete[connection] = address
        same = self._of_address.setdefault(address, {})
        same[connection] = now = time.monotonic()
        while address and len(same) > MAX_INCOMPLETE_OF_ADDRESS:
            oldest, since = next(iter(same.items()))
            if now - since < LONG_WAIT_SECONDS:
                break
            oldest.drop()

    def keep_idle(self, connection: "BoundedConnection") -> None:
        """Its request was answered, and no further one has begun."""
        self.forget(connection)
        self.idle[connection] = None

    def forget(self, connection: "BoundedConnection") -> None:
        """It is closed, or its request is being answered."""
        self.idle.pop(connection, None)
        address = self.incomplete.pop(connection, None)
        if address is not None:
            same = self._of_address[address]
            del same[connection]
            if not same:
                del self._of_address[address]

    def make_room(self, newcomer: "BoundedConnection", count: int) -> bool:
        """Close a connection if there are too many; False if none can be closed.

        First the one whose request has been incomplete for long, then the one that has been idle longest, and only then
        one whose request may be on its way.
        """
        if count <= count_allowed():
            return True
        slowest = next((each for each in self.incomplete if each is not newcomer), None)
        idle = next(iter(self.idle), None)
        closed = idle if idle is not None and not self._has_waited_long(slowest) else slowest
        if closed is None:
            return False
        closed.drop()
        return True

    def _has_waited_long(self, connection: "BoundedConnection | None") -> bool:
        address = self.incomplete.get(connection) if connection is not None else None
        if connection is None or address is None:
            return False
        return time.monotonic() - self._of_address[address][connection] >= LONG_WAIT_SECONDS


def count_allowed() -> int:
    """The connections that a process may have open, at most as many as it may have open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, soft - SPARE_FILES)


OPEN = OpenConnections()


class BoundedConnection(HttpToolsProtocol):
    """One connection, with a deadline for each part of a request."""

    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _head_bytes: int | None = 0
    """Of a head that has not arrived completely; None otherwise."""
    _is_complete = False
    """Whether the whole request has arrived."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        is_behind_proxy = settings.REST_FRAMEWORK["NUM_PROXIES"] > 0
        self._address = self.client[0] if self.client and not is_behind_proxy else ""
        self._wait(HEAD_SECONDS)
        if not OPEN.make_room(self, len(self.connections)):
            self._refuse(503, "Too many connections are open.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_watching_writes()
        OPEN.forget(self)
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close a connection whose request has not arrived, for another one."""
        OPEN.forget(self)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_complete and self._timer is None:
            self._wait(HEAD_SECONDS)  # for the rest of a further request
        if self._head_bytes is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, f"The head of a request may have {MAX_HEAD_BYTES:,} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._is_complete:  # a further request on this connection
            self._is_complete, self._head_bytes = False, 0

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        headers = dict(self.headers)
        self._address = find_address(headers, self.client[0] if self.client else "")
        # Without a body the request is complete with its head, in the same call.
        if b"content-length" in headers or b"transfer-encoding" in headers:
            length = headers.get(b"content-length", b"0")
            announced = int(length) if length.isdigit() else 0
            largest = max(settings.DATASET_UPLOAD_LIMIT_BYTES, settings.IMPORTED_MODEL_UPLOAD_LIMIT_BYTES)
            self._wait(BODY_SECONDS + min(announced, largest) / BODY_BYTES_PER_SECOND)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_complete = True
        self._stop_waiting()
        OPEN.forget(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.cycle.response_complete and self.cycle.more_body:
            self.transport.close()  # refused from its head: the body is not read to throw it away
        elif self.cycle.response_complete and self._is_complete:
            OPEN.keep_idle(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_watching_writes()
        self._stalled = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_watching_writes()
        super().resume_writing()

    def _wait(self, seconds: float) -> None:
        """For the next part of the request, so long."""
        self._stop_waiting()
        OPEN.wait_for_request(self, self._address)
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self.flow.read_paused:  # the service is slow, not the client
            self._wait(BODY_SECONDS)
        elif self._head_bytes == 0:
            self.transport.close()
        else:
            self._refuse(408, "The request did not arrive in time.")

    def _refuse(self, status: int, sentence: str) -> None:
        is_unanswered = self.cycle is None or self.cycle.response_complete or not self.cycle.response_started
        if is_unanswered and not self.transport.is_closing():
            body = sentence.encode()
            head = f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_watching_writes(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def find_address(headers: dict[bytes, bytes], peer: str) -> str:
    """The client's address: behind trusted proxies the one that they report, as DRF finds it for rates."""
    proxies: int = settings.REST_FRAMEWORK["NUM_PROXIES"]
    forwarded = headers.get(b"x-forwarded-for")
    if not proxies or forwarded is None:
        return peer
    addresses = forwarded.decode("latin-1").split(",")
    return addresses[-min(proxies, len(addresses))].strip()
