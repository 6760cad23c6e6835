"""A move is told over Redis, and known without it: in every web process, within its half second."""

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction
from pytest_django import Settings

from accounts import services as accounts
from accounts.models import ApiToken
from crpbot.asgi import django_application
from crpbot.demo.processes import REDIS_SERVER
from deploy.edge import freshness
from deploy.edge.application import SIGNED_PATH, STREAM_PATH, Edge
from deploy.pointer import notify, pointer
from deploy.releases import decide
from deploy.serving.advance import advance_revision
from tests import factories, scenarios
from tests.deploy.serving import web
from tests.deploy.streaming import PATIENCE_SECONDS, Stream
from tests.processes import Process, wait_until
from tests.scenarios import APPROVER
from training.jobs.confinement import die_with_parent

pytestmark = [pytest.mark.usefixtures("committed"), pytest.mark.slow]


@pytest.fixture(autouse=True)
def redis_socket(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> str:
    """Where this test's own Redis listens once it is started: killing it takes nobody else's away."""
    path = str(tmp_path_factory.mktemp("r") / "s")
    settings.REDIS_URL = f"unix://{path}"
    return path


@pytest.fixture
def token() -> str:
    return factories.token(factories.person("bot"), "bot")


@contextmanager
def redis_at(path: str) -> Iterator[Process]:
    """A real Redis; leaving the context kills it."""
    command = [REDIS_SERVER, "--port", "0", "--unixsocket", path, "--save", ""]
    popen = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)
    process = Process(popen, Path(os.devnull))
    try:
        with redis.Redis.from_url(f"unix://{path}") as client:
            wait_until(lambda: _answers(client), what="Redis")
        yield process
    finally:
        process.kill()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def listeners() -> int:
    from django.conf import settings

    with redis.Redis.from_url(settings.REDIS_URL) as client:
        return int(client.pubsub_numsub(notify.CHANNEL)[0][1])


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async_to_sync(story)()


async def pin() -> None:
    await sync_to_async(decide.pin)(actor=APPROVER, reason="V6 is broken")


@pytest.fixture
def unasking(monkeypatch: pytest.MonkeyPatch) -> Edge:
    """An edge that asks the database by itself only once in ten minutes: what it hears, it was told."""
    monkeypatch.setattr(freshness, "FRESH_SECONDS", 600.0)
    return Edge(django_application)


def test_a_stream_hears_of_a_move_because_redis_tells(unasking: Edge, token: str, redis_socket: str) -> None:
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(unasking, token) as bot:
            await bot.hears(1)
            await bot.until(listeners, "the edge at Redis")
            await pin()
            await bot.hears(2)

    with redis_at(redis_socket):
        told(story)


def test_an_edge_finds_back_to_a_redis_that_was_killed(unasking: Edge, token: str, redis_socket: str) -> None:
    scenarios.service_in_use()

    async def story() -> None:
        async with Stream(unasking, token) as bot:
            with redis_at(redis_socket):
                await bot.until(listeners, "the edge at Redis")
            await pin()  # nobody tells; what was missed is looked for once Redis is back
            with redis_at(redis_socket):
                await bot.hears(2)
                await bot.until(listeners, "the edge at Redis again")
                await sync_to_async(advance_revision)(1, actor=APPROVER, reason="one more")
                await bot.hears(3)

    told(story)


def test_a_move_that_is_taken_back_is_told_to_nobody(redis_socket: str) -> None:
    scenarios.service_in_use()
    with redis_at(redis_socket), redis.Redis.from_url(f"unix://{redis_socket}") as client:
        channel = client.pubsub(ignore_subscribe_messages=True)
        channel.subscribe(notify.CHANNEL)
        channel.get_message(timeout=5)
        with pytest.raises(RuntimeError, match="changed its mind"), transaction.atomic():
            decide.pin(actor=APPROVER, reason="V6 is broken")
            raise RuntimeError("changed its mind")
        advance_revision(4, actor=APPROVER, reason="one that stays")
        message = wait_until(lambda: channel.get_message(timeout=1), what="a message")
        assert message["data"] == b"5"
        channel.close()


def test_a_move_stands_without_redis() -> None:
    scenarios.service_in_use()
    decide.pin(actor=APPROVER, reason="V6 is broken")
    now = pointer.get_current()
    assert now is not None
    assert now.revision == 2


def test_a_move_does_not_wait_for_a_redis_that_hangs(redis_socket: str) -> None:
    scenarios.service_in_use()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(redis_socket)
        silent.listen()
        decide.pin(actor=APPROVER, reason="V6 is broken")
        # It is done, and the telling is still under way: it waits for an answer that never comes.
        (telling,) = [one for one in threading.enumerate() if one.name == "push of revision 2"]
        telling.join(PATIENCE_SECONDS)
        assert not telling.is_alive()


@asynccontextmanager
async def opened(url: str, token: str) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of a stream over a real connection."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(timeout=PATIENCE_SECONDS, headers=headers) as client,
        client.stream("GET", url + STREAM_PATH) as response,
    ):
        assert response.status_code == 200
        yield response.aiter_lines()


async def hears(lines: AsyncIterator[str], revision: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await anext(lines) != f"id: {revision}":
            pass


async def ends(lines: AsyncIterator[str]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for _ in lines:
            pass


@pytest.mark.processes
def test_two_web_processes_see_moves_and_revocations_without_redis(
    token: str, redis_socket: str, tmp_path: Path, settings: Settings
) -> None:
    scenarios.service_in_use()
    row = ApiToken.objects.get(digest=accounts.hash_token(token))

    async def story(first: str, second: str, running: Process) -> None:
        async with opened(first, token) as one, opened(second, token) as other:
            for lines in (one, other):
                await hears(lines, 1)
            await pin()
            for lines in (one, other):
                await hears(lines, 2)
            running.kill()
            await sync_to_async(advance_revision)(1, actor=APPROVER, reason="with Redis gone")
            for lines in (one, other):
                await hears(lines, 3)
            await sync_to_async(accounts.revoke_token)(row, actor="the tests")
            for lines in (one, other):
                await ends(lines)

    with (
        redis_at(redis_socket) as running,
        web(tmp_path / "first.log", settings.REDIS_URL) as first,
        web(tmp_path / "second.log", settings.REDIS_URL) as second,
    ):
        async_to_sync(story)(first.url, second.url, running)
        for url in (first.url, second.url):
            asked = httpx.get(url + SIGNED_PATH, headers={"Authorization": f"Bearer {token}"})
            assert asked.status_code == 401
    for log in ("first.log", "second.log"):
        assert "Traceback" not in (tmp_path / log).read_text(), (tmp_path / log).read_text()
