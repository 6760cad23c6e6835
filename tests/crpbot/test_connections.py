"""Raw sockets against a real web process: what is slow, endless or silent keeps no bot and no pin waiting."""

import resource
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
import redis

from crpbot.demo.processes import WEB_OPTIONS
from crpbot.web import connections
from crpbot.web.connections import BoundedConnection, OpenConnections, find_address
from tests import factories, scenarios
from tests.loopback import free_port, wait_until_it_answers
from tests.processes import start, wait_until

PATIENCE_SECONDS = 60
IDLE = 1000
SHORT_DEADLINES = """
import sys
from crpbot.web import connections
connections.HEAD_SECONDS = connections.BODY_SECONDS = connections.ANSWER_SECONDS = 1.0
from uvicorn.main import main
main(sys.argv[1:])
"""


class Service:
    """A web process, and a bot and an approver who use it."""

    def __init__(self, port: int) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}/api/v1/"
        self.bot = {"Authorization": f"Bearer {factories.token(factories.person('bot'), 'bot')}"}
        approver = factories.person("anna", "approver")
        self.approver = {"Authorization": f"Bearer {factories.token(approver, 'approver')}"}

    def must_answer(self) -> None:
        """A bot hears the pointer, and a pin arrives: it is made, or found already made."""
        assert httpx.get(f"{self.url}active/", headers=self.bot, timeout=30).status_code == 200
        pin = httpx.post(f"{self.url}pointer/pin/", headers=self.approver, json={"reason": "odd"}, timeout=30)
        assert pin.status_code in (200, 409)

    def connect(self, opened: ExitStack, sent: bytes = b"") -> socket.socket:
        client = opened.enter_context(socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS))
        client.sendall(sent)
        return client


@contextmanager
def serve(log: Path, redis_url: str, *command: str) -> Iterator[int]:
    port = free_port()
    options = ["crpbot.asgi:application", "--port", str(port), *WEB_OPTIONS]
    process = start(sys.executable, *command, *options, log=log, CRPBOT_REDIS_URL=redis_url)
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/healthz/live")
        yield port
    finally:
        process.stop()


@pytest.fixture
def service(committed: None, broker: redis.Redis, tmp_path: Path, settings: Any) -> Iterator[Service]:
    scenarios.service_in_use()
    with serve(tmp_path / "web.log", settings.REDIS_URL, "-c", SHORT_DEADLINES) as port:
        yield Service(port)


def read_status(client: socket.socket) -> int:
    """The status of the answer, once the connection has ended; 0 where it ended without one."""
    answer = b""
    try:
        while part := client.recv(65536):
            answer += part
    except ConnectionError:
        pass
    return int(answer.split(b" ")[1]) if answer else 0


@pytest.mark.processes
def test_a_request_that_comes_slowly_ends_at_its_deadline(service: Service) -> None:
    with ExitStack() as opened:
        slow = {
            "a head that never ends": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-", 408),
            "a body that never ends": (
                b"POST /sign-in/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nx",
                408,
            ),
            "nothing at all": (b"", 0),
        }
        clients = {
            name: [service.connect(opened, sent) for _ in range(30)] for name, (sent, _) in slow.items()
        }
        service.must_answer()
        second = service.connect(
            opened, b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: loc"
        )
        for name, (_, status) in slow.items():
            assert {read_status(client) for client in clients[name]} == {status}, name
        assert b"408 Request Timeout" in b"".join(iter(lambda: second.recv(65536), b""))
        service.must_answer()


@pytest.mark.processes
def test_what_is_refused_from_its_head_is_not_read(service: Service) -> None:
    head = b"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    refused = {
        "ten gigabytes": (b"/datasets/", b"Content-Length: 10000000000\r\n\r\n", 413),
        "ten gigabytes for the API": (b"/api/v1/pointer/pin/", b"Content-Length: 10000000000\r\n\r\n", 413),
        "chunks without end": (b"/api/v1/datasets/", b"Transfer-Encoding: chunked\r\n\r\n", 411),
        "a heartbeat in chunks": (
            b"/api/v1/bots/heartbeat/",
            b"Authorization: Bearer crp_bot_x\r\nTransfer-Encoding: chunked\r\n\r\n",
            401,
        ),
        "a heartbeat of nobody": (
            b"/api/v1/bots/heartbeat/",
            b"Authorization: Bearer crp_bot_x\r\nContent-Length: 60000\r\n\r\n",
            401,
        ),
    }
    with ExitStack() as opened:
        for name, (path, rest, status) in refused.items():
            client = service.connect(opened, head.replace(b"{path}", path) + rest)
            assert read_status(client) == status, name
    service.must_answer()


@pytest.mark.processes
@pytest.mark.parametrize(
    "sent",
    [
        b"POST /datasets/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: ",
    ],
    ids=["chunks without end", "a head without end"],
)
def test_what_has_no_end_is_cut_off(service: Service, sent: bytes) -> None:
    part = b"10000\r\n" + b"x" * 65536 + b"\r\n" if b"chunked" in sent else b"x" * 65536
    with ExitStack() as opened:
        client = service.connect(opened, sent)
        with pytest.raises(ConnectionError):
            for _ in range(10_000):  # 650 MB, if nobody stops it
                client.sendall(part)
    service.must_answer()


@pytest.mark.processes
@pytest.mark.long
def test_a_thousand_idle_connections_keep_nobody_out(
    committed: None, broker: redis.Redis, tmp_path: Path, settings: Any
) -> None:
    """With the real deadlines, so that it is not they that make room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    scenarios.service_in_use()
    with (
        serve(tmp_path / "web.log", settings.REDIS_URL, "-m", "uvicorn") as port,
        ExitStack() as opened,
    ):
        service = Service(port)
        clients = [service.connect(opened) for _ in range(IDLE)]
        service.must_answer()

        def oldest_have_ended() -> bool:
            service.connect(opened)  # a newcomer closes those that have waited long
            return _count_ended(clients) >= IDLE - connections.MAX_INCOMPLETE_OF_ADDRESS

        wait_until(oldest_have_ended, what="the end of the oldest idle connections", seconds=8)
        service.must_answer()


def _count_ended(clients: list[socket.socket]) -> int:
    ended = 0
    for client in clients:
        client.setblocking(False)
        try:
            ended += client.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            pass
        except ConnectionError:
            ended += 1
    return ended


@pytest.mark.processes
def test_a_client_that_does_not_read_its_answer_is_dropped(service: Service) -> None:
    with ExitStack() as opened:
        client = opened.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE_SECONDS)
        client.connect(("127.0.0.1", service.port))
        client.sendall(b"GET /static/plotly.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        service.must_answer()
        deadline = time.monotonic() + PATIENCE_SECONDS
        with pytest.raises(ConnectionError):  # written to after it was dropped
            while time.monotonic() < deadline:
                client.sendall(b"GET / HTTP/1.1\r\n")
                time.sleep(0.05)
        service.must_answer()


class Fake(BoundedConnection):
    """A connection without a socket, which says whether it was dropped."""

    def __init__(self, open_connections: OpenConnections) -> None:
        self.open_connections, self.is_dropped = open_connections, False

    def drop(self) -> None:
        self.open_connections.forget(self)
        self.is_dropped = True

    def data_received(self, data: bytes) -> NoReturn:
        raise NotImplementedError


def test_beyond_its_limit_an_address_loses_its_own_oldest_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_INCOMPLETE_OF_ADDRESS", 2)
    monkeypatch.setattr(connections, "LONG_WAIT_SECONDS", 0.0)
    found = OpenConnections()
    other, *same = (Fake(found) for _ in range(4))
    found.wait_for_request(other, "203.0.113.1")
    for connection in same:
        found.wait_for_request(connection, "203.0.113.9")
    assert [each.is_dropped for each in (other, *same)] == [False, True, False, False]


@pytest.mark.parametrize("address", ["203.0.113.9", ""], ids=["a fleet that connects at once", "a proxy's"])
def test_connections_that_have_just_come_are_not_closed(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy process accepts hundreds of connections before it reads the first request."""
    if not address:
        monkeypatch.setattr(connections, "LONG_WAIT_SECONDS", 0.0)
    found = OpenConnections()
    fleet = [Fake(found) for _ in range(2 * connections.MAX_INCOMPLETE_OF_ADDRESS)]
    for connection in fleet:
        found.wait_for_request(connection, address)
    assert not any(connection.is_dropped for connection in fleet)


@pytest.mark.parametrize("long_wait", [0.0, 60.0], ids=["slow for long", "slow a moment"])
def test_a_full_process_closes_what_waits_longest_and_else_refuses(
    long_wait: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(connections, "LONG_WAIT_SECONDS", long_wait)
    found = OpenConnections()
    answered, idle, slow, newcomer = (Fake(found) for _ in range(4))
    found.wait_for_request(answered, "a")
    found.forget(answered)  # its request is being answered
    found.keep_idle(idle)
    found.wait_for_request(slow, "a")
    found.wait_for_request(newcomer, "b")
    assert found.make_room(newcomer, 3)
    assert not slow.is_dropped
    assert found.make_room(newcomer, 4)
    assert (slow.is_dropped, idle.is_dropped) == (long_wait == 0, long_wait > 0)
    assert found.make_room(newcomer, 4)
    assert (slow.is_dropped, idle.is_dropped) == (True, True)
    assert not found.make_room(newcomer, 4)
    assert not answered.is_dropped


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, "198.51.100.1", "10.0.0.1"),
        (1, "198.51.100.1, 203.0.113.5", "203.0.113.5"),
        (2, "198.51.100.1, 203.0.113.5", "198.51.100.1"),
        (1, None, "10.0.0.1"),
    ],
)
def test_the_address_is_the_one_that_a_trusted_proxy_reports(
    settings: Any, proxies: int, forwarded: str | None, expected: str
) -> None:
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": proxies}
    headers = {b"x-forwarded-for": forwarded.encode()} if forwarded else {}
    assert find_address(headers, "10.0.0.1") == expected


REAL_HASHES = """
import sys
from django.conf import settings
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
settings.AXES_FAILURE_LIMIT = 1000
from uvicorn.main import main
main(sys.argv[1:])
"""
SIGN_INS = 50


@pytest.mark.processes
@pytest.mark.long
def test_fifty_people_who_sign_in_keep_no_bot_waiting(
    committed: None, broker: redis.Redis, tmp_path: Path, settings: Any
) -> None:
    scenarios.service_in_use()
    with (
        serve(tmp_path / "web.log", settings.REDIS_URL, "-c", REAL_HASHES) as port,
        ThreadPoolExecutor(SIGN_INS) as pool,
        httpx.Client(timeout=30) as bot,
        httpx.Client(timeout=30) as browser,
    ):
        service = Service(port)
        page = f"http://127.0.0.1:{port}/sign-in/"
        browser.get(page)
        form = {"password": "wrong", "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        sent = [
            pool.submit(
                httpx.post, page, data={**form, "username": f"p{n}"}, cookies=browser.cookies, timeout=60
            )
            for n in range(SIGN_INS)
        ]
        waits: list[float] = []
        while not all(each.done() for each in sent):
            began = time.monotonic()
            assert bot.get(f"{service.url}active/", headers=service.bot).status_code == 200
            waits.append(time.monotonic() - began)
        service.must_answer()
    statuses = {each.result().status_code for each in sent}
    assert statuses <= {400, 503}
    assert max(waits) < PATIENCE_SECONDS / 10, "hashed all at once, they starve the bots"
