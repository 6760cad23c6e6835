"""A pin is answered quickly whatever other system is slow, hangs or fails."""

import atexit
import os
import pickle
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from accounts import throttling
from accounts.models import User
from common import deadlines
from crpbot.database import BoundedConnection
from crpbot.web.counters import IntegerSerializer
from deploy.pointer import pointer
from deploy.pointer.fallback import check_fallback
from deploy.releases import decide
from deploy.rules import MoveKind
from tests import postgres, scenarios
from tests.api import callers
from tests.processes import Process
from tests.scenarios import APPROVER
from training import artifact_store
from training.models import Artifact

BOUND_SECONDS = 4.0
"""Far above the second that a pin may take, for a busy machine, and far below the minutes that it took once."""


def send_head(connection: socket.socket, size: int) -> None:
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: binary/octet-stream\r\nETag: x\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % size
    )


def hang(connection: socket.socket, size: int) -> None:
    time.sleep(60)


def drip(connection: socket.socket, size: int) -> None:
    send_head(connection, size)
    while True:
        connection.sendall(b"x")
        time.sleep(0.2)


def cut(connection: socket.socket, size: int) -> None:
    send_head(connection, size)
    connection.sendall(b"x" * (size // 2))


def cut_head(connection: socket.socket, size: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: binary/octet-stream\r\nCon")


def reset(connection: socket.socket, size: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def fail(connection: socket.socket, size: int) -> None:
    connection.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")


def talk_nonsense(connection: socket.socket, size: int) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


BEHAVIOURS = (hang, drip, cut, cut_head, reset, fail, talk_nonsense)


@pytest.fixture(params=BEHAVIOURS, ids=lambda behaviour: behaviour.__name__)
def bad_store(request: pytest.FixtureRequest, settings: Any) -> Iterator[Callable[[], None]]:
    """Replaces the file store by an S3 on a real socket: it knows every file's size and misbehaves in one way."""
    server = socket.create_server(("127.0.0.1", 0))
    sizes: dict[str, int] = {}

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            asked = connection.recv(65536).split(b" ")
            size = sizes[asked[1].decode().rpartition("/")[2]]
            if asked[0] == b"HEAD" and request.param not in (hang, cut_head):
                send_head(connection, size)
            else:
                request.param(connection, size)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()

    def replace() -> None:
        sizes.update(Artifact.objects.values_list("sha256", "size"))
        options = {
            "bucket_name": "crpbot",
            "access_key": "a",
            "secret_key": "s",
            "endpoint_url": f"http://127.0.0.1:{server.getsockname()[1]}",
            "region_name": "us-east-1",
        }
        settings.STORAGES = {
            **settings.STORAGES,
            "default": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options},
        }

    yield replace
    server.close()


def take_time(call: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.monotonic()
    return call(), time.monotonic() - begun


@pytest.mark.django_db
def test_a_pin_does_not_wait_for_the_file_store(bad_store: Callable[[], None]) -> None:
    scenarios.service_in_use()
    bad_store()
    move, seconds = take_time(lambda: decide.pin(actor=APPROVER, reason="it trades oddly"))
    assert move.kind == MoveKind.PIN
    assert "bytes were not checked" in move.reason
    assert seconds < BOUND_SECONDS


@pytest.mark.django_db
@pytest.mark.parametrize("bad_store", [cut, cut_head, reset, fail, talk_nonsense], indirect=True)
def test_a_store_that_fails_is_never_taken_for_damaged_files(bad_store: Callable[[], None]) -> None:
    scenarios.fallback()
    bad_store()
    artifact = Artifact.objects.all()[0]
    with pytest.raises(artifact_store.StoreUnavailable):
        artifact_store.is_intact(artifact.sha256, artifact.size)


@pytest.mark.django_db
def test_any_error_of_the_store_leaves_the_fallback_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    scenarios.service_in_use()
    monkeypatch.setattr(artifact_store, "open_stream", lambda sha256: 1 / 0)
    readiness = check_fallback()
    assert readiness.is_ready
    assert readiness.unchecked == "division by zero"


def test_calls_that_never_end_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "_slots", threading.BoundedSemaphore(deadlines.MAX_ABANDONED))
    release = threading.Event()
    try:
        for _ in range(deadlines.MAX_ABANDONED):
            with pytest.raises(TimeoutError, match="no answer within"):
                deadlines.run_within(0.001, lambda: release.wait(60))
        with pytest.raises(TimeoutError, match="earlier calls"):
            deadlines.run_within(1, lambda: None)
    finally:
        release.set()


def test_an_error_within_the_deadline_is_raised_on() -> None:
    with pytest.raises(ZeroDivisionError):
        deadlines.run_within(5, lambda: 1 / 0)


@pytest.fixture
def shared_cache(settings: Any, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    """The cache that web processes share, in the Redis of the tests, as `crpbot.settings` makes it."""
    from crpbot import settings as own

    monkeypatch.setattr(throttling, "_paused_until", 0.0)
    settings.CACHES = own.CACHES
    return broker


@pytest.mark.processes
def test_a_pin_does_not_wait_for_a_frozen_redis(
    shared_cache: redis.Redis, redis_process: Process, committed: None, approver: User
) -> None:
    scenarios.service_in_use()
    caller = callers.with_token(approver, "approver")
    redis_process.popen.send_signal(signal.SIGSTOP)
    try:
        answer, seconds = take_time(lambda: caller.post("pointer/pin/", {"reason": "it trades oddly"}))
    finally:
        redis_process.popen.send_signal(signal.SIGCONT)
    assert answer.status_code in (200, 201), answer.content
    assert seconds < BOUND_SECONDS
    move = pointer.get_current()
    assert move is not None
    assert move.kind == MoveKind.PIN


class Payload:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["CRPBOT_TEST_PAYLOAD"],))


@pytest.mark.processes
def test_what_others_write_to_redis_is_never_executed(
    shared_cache: redis.Redis,
    committed: None,
    approver: User,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    scenarios.service_in_use()
    caller = callers.with_token(approver, "approver")
    assert caller.get("coins/").status_code == 200
    keys = list(shared_cache.keys("*limit*"))
    assert keys
    monkeypatch.setenv("CRPBOT_TEST_PAYLOAD", str(tmp_path / "executed"))
    for key in keys:
        shared_cache.set(key, pickle.dumps(Payload()))
    assert caller.get("coins/").status_code == 200
    assert throttling._paused_until > time.monotonic(), "the planted bytes were read and refused"
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Payload()))
    assert (tmp_path / "executed").exists(), "unpickling them would have shown"


@pytest.mark.parametrize("value", ["text", True, 1.5, None, b"1"])
def test_the_shared_cache_stores_nothing_but_integers(value: Any) -> None:
    with pytest.raises(TypeError):
        IntegerSerializer().dumps(value)


@pytest.mark.processes
def test_a_frozen_postgresql_is_left_after_the_deadline(settings: Any) -> None:
    settings.DATABASE_ANSWER_SECONDS = 1
    folder = tempfile.mkdtemp(prefix="crpbot-test-")  # pytest's own folders are closed to PostgreSQL's user
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with BoundedConnection.connect(postgres.start(folder), autocommit=True) as connection:
        server = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert server is not None
        os.kill(server[0], signal.SIGSTOP)
        try:
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
            assert connection.closed
        finally:
            os.kill(server[0], signal.SIGCONT)
