"""Heartbeats at the edge: many are written at once, each is answered as the API answers it, and what was answered stands."""

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction

from crpbot.asgi import django_application
from deploy.edge import batcher
from deploy.edge.application import HEARTBEAT_PATH, MAX_REPORT_BYTES, WINDOW_PATH, Edge
from deploy.models import Acknowledgement, Bot, LiveWindow
from tests import factories, scenarios
from tests.deploy.asgi_client import Answer, ask
from tests.deploy.serving import Web, web

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture
def token() -> str:
    return factories.token(factories.person("trader"), "bot")


def posted(said: Any, token: str, **headers: str) -> dict[str, Any]:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    described = {"content_type": "application/json", "content_length": str(len(body))}
    sent = described | {"authorization": f"Bearer {token}"} | headers
    return {"method": "POST", "path": HEARTBEAT_PATH, "body": body, **{k: v for k, v in sent.items() if v}}


def told(application: Any, said: Any, token: str, **headers: str) -> Answer:
    return async_to_sync(ask)(application, **posted(said, token, **headers))


def together(application: Edge, said: list[Any], token: str) -> list[Answer]:
    async def story() -> list[Answer]:
        return await asyncio.gather(*(ask(application, **posted(one, token)) for one in said))

    return async_to_sync(story)()


@pytest.mark.slow
def test_a_heartbeat_is_answered_as_the_apis_own_operation_answers_it(token: str) -> None:
    """What is sound, what is not, and from whom: one set of rules."""
    said = scenarios.heartbeat_fields(scenarios.service_in_use())
    person = factories.person("anna", "approver")
    odd: list[tuple[Any, str, dict[str, str]]] = [
        (said, token, {}),
        (said, token, {"content_type": "application/json; charset=utf-8"}),
        (said, token, {"content_type": "text/plain"}),
        (said, token, {"content_length": "", "transfer_encoding": "chunked"}),
        (said, "crp_bot_made_up", {}),
        (said, factories.token(person, "approver"), {}),
        (said | {"service": "crpbot-other"}, token, {}),
        (said | {"service": None}, token, {}),
        (said | {"revision": "1", "colour": "red"}, token, {}),
        (said | {"last_error": "\ud800"}, token, {}),
        ([said], token, {}),
        (b'{"revision": NaN}', token, {}),
        (b'{"revision": 1, "revision": 2}', token, {}),
        (b"", token, {}),
    ]
    statuses = set()
    for body, shown, headers in odd:
        here = told(Edge(django_application), body, shown, **headers)
        there = told(django_application, body, shown, **headers)
        assert (here.status, here.json()) == (there.status, there.json()), (body, headers)
        assert here.headers["content-type"] == there.headers["content-type"]
        statuses.add(here.status)
    assert statuses == {200, 400, 401, 403, 409, 411, 415}


def test_one_that_is_too_large_is_refused_before_it_is_read(token: str) -> None:
    async def never() -> Any:
        raise AssertionError("it was read")

    async def story() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        length = str(MAX_REPORT_BYTES + 1).encode()
        headers = [(b"authorization", f"Bearer {token}".encode()), (b"content-length", length)]
        scope = {"type": "http", "method": "POST", "path": HEARTBEAT_PATH, "headers": headers}
        await Edge(django_application)(scope, never, send)
        return sent

    start, body = async_to_sync(story)()
    assert (start["status"], json.loads(body["body"])["status"]) == (413, 413)
    assert (b"connection", b"close") in start["headers"]


@pytest.mark.slow
def test_those_that_come_together_are_written_in_one_transaction(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = scenarios.service_in_use()
    monkeypatch.setattr(batcher, "BATCH_SECONDS", 0.7)  # however slowly this machine brings them
    application = Edge(django_application)
    said = [scenarios.heartbeat_fields(now, f"desk-{number}") for number in range(20)]
    answers = together(application, [*said, said[0], said[1] | {"service": "crpbot-other"}], token)
    assert [one.status for one in answers] == [200] * 21 + [409]
    rows = Bot.objects.order_by("instance")
    assert len(set(rows.values_list("last_heard_at", flat=True))) == 1
    assert Acknowledgement.objects.count() == len(rows) == 20


@pytest.mark.slow
def test_live_windows_that_come_together_are_written_in_one_transaction(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = scenarios.service_in_use()
    monkeypatch.setattr(batcher, "BATCH_SECONDS", 0.7)
    application = Edge(django_application)
    names = [f"desk-{number}" for number in range(5)]
    beats = [scenarios.heartbeat_fields(now, name) for name in names]
    said = [scenarios.live_window(now, instance=name) for name in names]

    async def story() -> list[Answer]:
        await asyncio.gather(*(ask(application, **posted(beat, token)) for beat in beats))
        bodies = [*said, said[0], said[0] | {"instance": "unknown"}]
        sent = [posted(body, token) | {"path": WINDOW_PATH} for body in bodies]
        return await asyncio.gather(*(ask(application, **one) for one in sent))

    answers = async_to_sync(story)()
    assert [one.status for one in answers] == [201] * 6 + [409]
    assert len(set(LiveWindow.objects.values_list("received_at", flat=True))) == 1
    assert LiveWindow.objects.count() == 5


@pytest.mark.slow
def test_a_live_window_is_answered_as_the_apis_own_operation_answers_it(token: str) -> None:
    now = scenarios.service_in_use()
    told(Edge(django_application), scenarios.heartbeat_fields(now), token)
    said = scenarios.live_window(now)
    edges, counts = said["confidence"]["edges"], said["confidence"]["counts"]
    odd: list[Any] = [
        said,
        said,
        said | {"instance": "unknown"},
        said | {"revision": 99},
        said | {"note": "hello"},
        said | {"confidence": {"edges": [*edges[:-1], True], "counts": counts}},
        said | {"confidence": {"edges": edges, "counts": [True, *counts[1:]]}},
        said | {"confidence": {"edges": edges, "counts": counts[1:]}},
        said | {"confidence": {"edges": edges, "counts": {"0": 1}}},
        said | {"logits": {"min": 2.0, "max": 1.0}},
        b'{"revision": NaN}',
    ]
    statuses = set()
    for body in odd:
        request = posted(body, token) | {"path": WINDOW_PATH}
        here = async_to_sync(ask)(Edge(django_application), **request)
        there = async_to_sync(ask)(django_application, **request)
        assert (here.status, here.json()) == (there.status, there.json()), body
        statuses.add(here.status)
    assert statuses == {201, 400, 409}


def test_one_that_the_database_refuses_does_not_spoil_the_others(token: str) -> None:
    now = scenarios.service_in_use()
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER no_desk_1 BEFORE INSERT ON deploy_bot WHEN NEW.instance = 'desk-1'"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    try:
        said = [scenarios.heartbeat_fields(now, f"desk-{number}") for number in range(3)]
        answers = together(Edge(django_application), said, token)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER no_desk_1")
    assert [one.status for one in answers] == [200, 503, 200]
    assert sorted(Bot.objects.values_list("instance", flat=True)) == ["desk-0", "desk-2"]


def test_heartbeats_get_503_while_the_database_fails_and_then_are_stored(token: str) -> None:
    said = scenarios.heartbeat_fields(scenarios.service_in_use())
    application = Edge(django_application)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE deploy_bot RENAME TO away")
    try:
        answers = together(application, [said, said], token)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO deploy_bot")
    assert [(one.status, one.headers["retry-after"]) for one in answers] == [(503, "2")] * 2
    assert told(application, said, token).status == 200


class Raw:
    """A heartbeat on a connection of its own, of which the web process has read the beginning for certain."""

    def __init__(self, web: Web, said: Any, token: str) -> None:
        body = json.dumps(said).encode()
        self._socket = socket.create_connection(("127.0.0.1", web.port), timeout=30)
        self._answers = self._socket.makefile("rb")
        head = f"POST {HEARTBEAT_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        about = (
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        self._socket.sendall((head + about).encode())
        assert b" 100 " in self._line()
        self._line()
        self._socket.sendall(body)

    def status(self) -> int | None:
        """None where the connection ended without an answer."""
        line = self._line()
        self._answers.close()  # the socket stays open while a file made of it is
        self._socket.close()
        return int(line.split()[1]) if line else None

    def _line(self) -> bytes:
        try:
            return self._answers.readline()
        except OSError:
            return b""


@contextmanager
def nothing_can_be_written() -> Iterator[None]:
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("LOCK TABLE deploy_bot")
        yield


def versions() -> set[str]:
    return set(Bot.objects.values_list("client_version", flat=True))


@pytest.mark.processes
@pytest.mark.postgresql
@pytest.mark.long
def test_what_was_answered_stands_whatever_becomes_of_the_web_processes(
    token: str, tmp_path: Path, settings: Any
) -> None:
    """Two of them hear the same bots at once; one is told to end, and writes what it holds first; one is killed."""
    now = scenarios.service_in_use()
    names = [f"desk-{number}" for number in range(8)]
    said = [scenarios.heartbeat_fields(now, name) for name in names]

    def all_say(web: Web, version: str) -> list[Raw]:
        return [Raw(web, one | {"client_version": version}, token) for one in said]

    def statuses(raws: list[Raw]) -> set[int | None]:
        return {raw.status() for raw in raws}

    with (
        web(tmp_path / "first.log", settings.REDIS_URL, grace_seconds=30) as first,
        web(tmp_path / "second.log", settings.REDIS_URL) as second,
    ):
        with ThreadPoolExecutor(2) as both:
            for _ in range(3):
                found = list(both.map(lambda one: statuses(all_say(one, "1")), (first, second)))
                assert found == [{200}, {200}]
        assert sorted(Bot.objects.values_list("instance", flat=True)) == names
        assert Acknowledgement.objects.count() == len(names)

        with nothing_can_be_written():
            waiting = all_say(first, "2")
            first.process.popen.send_signal(signal.SIGTERM)
        assert statuses(waiting) == {200}
        assert versions() == {"2"}

        with nothing_can_be_written():
            waiting = all_say(second, "3")
            second.process.kill()
        assert statuses(waiting) == {None}
        assert versions() == {"2"}
