"""What one web process takes on one history: edge reads, live windows, heartbeats, browsers, and a pin among readers."""

import asyncio
import json
import math
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from time import perf_counter
from typing import Any

import httpx
import uvloop
from django.conf import settings
from django.utils import timezone

from benchmarks import load
from benchmarks.environments import REPOSITORY
from benchmarks.growth.history import TOKEN
from benchmarks.growth.measure import restore, sign_in
from crpbot.demo.processes import WEB_OPTIONS
from deploy.pointer import pointer
from tests import factories, scenarios
from tests.loopback import free_port, wait_until_it_answers

SECONDS = 5.0
CONNECTIONS = 512
BROWSERS = 40
POLLS = 6
POLL_SECONDS = 2.0
READERS = 20
HEARTBEAT_SECONDS = 10.0
CONNECT_SECONDS = 1.0


@contextmanager
def serve() -> Iterator[int]:
    """One web process on this database; its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "crpbot.asgi:application", "--port", str(port), *WEB_OPTIONS]
    web = subprocess.Popen([*command, "--no-access-log", "--log-level", "warning"], cwd=REPOSITORY)
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/healthz/live")
        yield port
    finally:
        web.terminate()
        web.wait()


def measure(bots: int) -> dict[str, float]:
    """Figures by name: rates in reports or answers a second, times in milliseconds."""
    parts: dict[str, Callable[[int, int], float]] = {
        "edge reads a second": _read_edge,
        "heartbeat lag p99, ms": _send_heartbeats,
        "live windows a second": _send_windows,
        "board poll, 40 browsers, ms": _poll_board,
        "slowest pin among 20 readers, ms": _pin_among_readers,
    }
    found = {}
    with serve() as port:
        for name, part in parts.items():
            try:
                found[name] = part(port, bots)
            except Exception as error:  # noqa: BLE001 - one figure that is missing is a goal that is missed
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
                found[name] = math.nan
    return found


def _get_token(number: int) -> str:
    return TOKEN.format(number + 1)


def _read_edge(port: int, bots: int) -> float:
    """Each connection reads with its share of all tokens in turn, all of which the edge knows by then."""
    requests = [
        load.request("/api/v1/active/signed/", {"Authorization": f"Bearer {_get_token(number)}"})
        for number in range(bots)
    ]
    load.ask(port, requests, status=200, connections=8, seconds=0.1)  # the edge looks each token up
    return load.ask(port, requests, status=200, connections=8, seconds=SECONDS).rate * len(requests)


def _build_post(path: str, token: str, document: Any) -> bytes:
    body = json.dumps(document).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _send_heartbeats(port: int, bots: int) -> float:
    """Every bot reports each ten seconds, spread; the lag is from the moment that it should to the answer."""
    move = pointer.get_current()
    assert move is not None
    fields = scenarios.heartbeat_fields(move)
    posts = [_build_post("/api/v1/bots/heartbeat/", _get_token(number), fields) for number in range(bots)]
    uvloop.run(_send_spread(port, posts, HEARTBEAT_SECONDS))
    lags = sorted(uvloop.run(_send_spread(port, posts, HEARTBEAT_SECONDS)))
    return lags[int(0.99 * (len(lags) - 1))] * 1000


async def _send_spread(port: int, posts: Sequence[bytes], seconds: float) -> list[float]:
    """Send each at its own moment of these seconds, over a few connections; how late each answer came."""
    start, lags = perf_counter(), list[float]()

    async def send(own: Sequence[tuple[float, bytes]]) -> None:
        # The service closes a connection that sends no request for a while after it has opened.
        await asyncio.sleep(max(0.0, start + own[0][0] - CONNECT_SECONDS - perf_counter()))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        for due, post in own:
            await asyncio.sleep(max(0.0, start + due - perf_counter()))
            writer.write(post)
            await _read_answer(reader, b"200")
            lags.append(perf_counter() - start - due)
        writer.close()

    due = [(number * seconds / len(posts), post) for number, post in enumerate(posts)]
    connections = min(len(posts), 1_000)
    await asyncio.gather(*(send(due[first::connections]) for first in range(connections)))
    return lags


async def _read_answer(reader: asyncio.StreamReader, status: bytes) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 204 " in head[:16]:
        body = b""
    elif b"chunked" in head.lower():
        body = await reader.readuntil(b"\r\n0\r\n\r\n")
    else:
        body = await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
    if status not in head[:13]:
        raise RuntimeError(f"unexpected answer: {head[:200]!r} {body[:200]!r}")
    return body


def _find_fingerprint(body: bytes) -> str | None:
    """Of the content of a page that refreshes itself: what its next request names."""
    found = re.search(rb"seen=(\w{16})", body)
    return found[1].decode() if found else None


def _send_windows(port: int, bots: int) -> float:
    """As fast as the process takes them, each a new window."""
    move = pointer.get_current()
    assert move is not None
    at = timezone.now()
    chosen = min(bots, 1_000)

    def build(connection: int) -> Iterator[bytes]:
        number = 0
        while True:
            number += 1
            first_at = (at + timedelta(milliseconds=number)).isoformat()
            said = scenarios.live_window(move, first_at=first_at, last_at=first_at)
            bot = (connection + number * CONNECTIONS) % chosen
            yield _build_post("/api/v1/bots/windows/", _get_token(bot), said)

    async def send(connection: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        posts, sent, end = build(connection), 0, perf_counter() + SECONDS
        while perf_counter() < end:
            writer.write(next(posts))
            await _read_answer(reader, b"201")
            sent += 1
        writer.close()
        return sent

    async def send_all() -> int:
        return sum(await asyncio.gather(*(send(connection) for connection in range(CONNECTIONS))))

    start = perf_counter()
    return uvloop.run(send_all()) / (perf_counter() - start)


def _poll_board(port: int, bots: int) -> float:
    """The median answer while forty browsers poll the board every two seconds, as they do while it changes.

    As htmx does, each names the content that it has, and one in ten has another: the board changed since.
    """
    cookie = sign_in().cookies[settings.SESSION_COOKIE_NAME].value
    headers = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={cookie}", "HX-Request": "true"}

    async def poll(number: int) -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        taken, start, seen = list[float](), perf_counter() + number * POLL_SECONDS / BROWSERS, ""
        for turn in range(POLLS):
            await asyncio.sleep(max(0.0, start + turn * POLL_SECONDS - perf_counter()))
            shown = "" if (number + turn) % 10 == 0 else seen
            sent_at = perf_counter()
            writer.write(load.request(f"/?seen={shown}", headers))
            body = await _read_answer(reader, b"20")
            taken.append(perf_counter() - sent_at)
            seen = _find_fingerprint(body) or seen
        writer.close()
        return taken

    async def poll_all() -> list[list[float]]:
        return list(await asyncio.gather(*(poll(number) for number in range(BROWSERS))))

    return statistics.median(seconds for each in uvloop.run(poll_all()) for seconds in each) * 1000


def _pin_among_readers(port: int, bots: int) -> float:
    """The slowest of ten pins over HTTP while twenty programs read lists without a pause."""
    approver = factories.person(f"pinner-{timezone.now():%H%M%S%f}", "approver")
    token = factories.token(approver, "approver")
    command = [sys.executable, "-m", "benchmarks.growth.readers", str(port), str(READERS)]
    readers = subprocess.Popen(
        command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert readers.stdin is not None and readers.stdout is not None
    readers.stdin.write(f"{token}\n")
    readers.stdin.flush()
    readers.stdout.readline()
    slowest = 0.0
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for _ in range(10):
                restore()
                start = perf_counter()
                answer = client.post(
                    "/api/v1/pointer/pin/",
                    json={"reason": "a benchmark"},
                    headers={"Authorization": f"Bearer {token}"},
                )
                if answer.status_code not in (200, 201):
                    raise RuntimeError(f"the pin: {answer.status_code} {answer.text[:200]}")
                slowest = max(slowest, perf_counter() - start)
    finally:
        readers.kill()
        readers.communicate()
        restore()
    return slowest * 1000
