"""Asking one question over and over on a few kept connections, and how long each answer took.

One request at a time on each connection, as a bot asks; the parser knows just enough of HTTP to find the end of an answer.
"""

import asyncio
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import uvloop


@dataclass
class Timing:
    """Seconds that each answer took, in one stretch of `seconds`."""

    seconds: float
    answers: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.answers) / self.seconds

    def quantile(self, share: float) -> float:
        ordered = sorted(self.answers)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class _Asking(asyncio.Protocol):
    """One connection. `requests` are asked in turn and count as one question together."""

    def __init__(self, requests: list[bytes], status: bytes, until: float, timing: Timing) -> None:
        self._requests, self._status, self._until, self._timing = (
            requests,
            b" " + status + b" ",
            until,
            timing,
        )
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = b""
        self._next = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass of it
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = _end(self._buffer)
        if end is None or len(self._buffer) < end:
            return
        if self._status not in self._buffer[:13]:
            self._finish(RuntimeError(f"unexpected answer: {self._buffer[:300]!r}"))
            return
        self._buffer = b""
        self._next += 1
        if self._next == len(self._requests):
            self._answered()
        else:
            self._transport.write(self._requests[self._next])

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(error or RuntimeError("the server closed the connection"))

    def _ask(self) -> None:
        self._next, self._asked_at = 0, perf_counter()
        self._transport.write(self._requests[0])

    def _answered(self) -> None:
        now = perf_counter()
        self._timing.answers.append(now - self._asked_at)
        if now < self._until:
            self._ask()
        else:
            self._finish(None)
            self._transport.close()

    def _finish(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(error) if error else self.over.set_result(None)


def _end(buffer: bytes) -> int | None:
    """Where this answer ends; None while its headers are not all there."""
    head = buffer.find(b"\r\n\r\n")
    if head < 0:
        return None
    start = buffer.lower().find(b"content-length:", 0, head)
    return head + 4 + (int(buffer[start + 15 : buffer.index(b"\r\n", start)]) if start >= 0 else 0)


def request(path: str, headers: dict[str, str]) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def ask(port: int, requests: list[bytes], *, status: int, connections: int, seconds: float) -> Timing:
    """Ask for so many seconds. Raises RuntimeError at the first answer of another status."""

    async def all_of_them() -> Timing:
        start = perf_counter()
        timing, loop = Timing(seconds), asyncio.get_running_loop()

        def protocol() -> _Asking:
            return _Asking(requests, str(status).encode(), start + seconds, timing)

        pairs = [await loop.create_connection(protocol, "127.0.0.1", port) for _ in range(connections)]
        await asyncio.gather(*(asking.over for _, asking in pairs))
        timing.seconds = perf_counter() - start
        return timing

    return uvloop.run(all_of_them())
