"""Redis with the users of docker-compose.yml: each may do what its processes do, and nothing else."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from django.core.cache.backends.redis import RedisCache
from kombu import Connection

from crpbot.demo.processes import REDIS_SERVER
from deploy.alarms import clock
from deploy.pointer import notify
from tests.loopback import free_port
from tests.processes import wait_until

SERVICES = yaml.safe_load((Path(__file__).resolve().parents[2] / "docker-compose.yml").read_text())[
    "services"
]
WITH_DEBUG = ("--enable-debug-command", "yes")
"""Else the server refuses DEBUG to everybody, and nothing is shown about the users."""
PASSWORDS = {"APPLICATION_PASSWORD": "application1", "WORKER_PASSWORD": "worker1"}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The command of docker-compose.yml, with another port."""
    shell, option, script, name = SERVICES["redis"]["command"]
    folder, number = tmp_path_factory.mktemp("redis"), free_port()
    (folder / "redis-server").symlink_to(REDIS_SERVER)
    process = subprocess.Popen(
        [
            shell,
            option,
            script.replace("$$", "$"),
            name,
            "--port",
            str(number),
            "--bind",
            "127.0.0.1",
            *WITH_DEBUG,
        ],
        env={**PASSWORDS, "PATH": f"{folder}:{os.environ['PATH']}"},
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: is_up(number), what="Redis")
        yield number
    finally:
        process.kill()
        process.wait()


def is_up(port: int) -> bool:
    try:
        return bool(connect(port, "health", "").ping())
    except redis.ConnectionError:
        return False


def connect(port: int, user: str, password: str | None = None) -> redis.Redis:
    password = PASSWORDS[f"{user.upper()}_PASSWORD"] if password is None else password
    return redis.Redis(port=port, username=user, password=password)


def url(port: int, user: str) -> str:
    return f"redis://{user}:{PASSWORDS[f'{user.upper()}_PASSWORD']}@127.0.0.1:{port}/0"


def test_each_user_can_send_and_receive_messages(port: int) -> None:
    for user in ("application", "worker"):
        with Connection(url(port, user), transport_options={"socket_timeout": 5}) as connection:
            queue = connection.SimpleQueue("training")
            queue.put({"run": 3}, serializer="json")
            message = queue.get(timeout=5)
            assert message.payload == {"run": 3}
            message.ack()
            queue.close()


@pytest.mark.processes
@pytest.mark.long
def test_a_worker_answers_over_the_broker(port: int, tmp_path: Path) -> None:
    """A Celery worker with the worker's user starts, and the application's user reaches it."""
    celery = [sys.executable, "-m", "celery", "-A", "crpbot"]
    environment = {
        **os.environ,
        "CRPBOT_STATE_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "crpbot.settings",
    }
    worker = subprocess.Popen(
        [*celery, "worker", "--queues", "gates", "--concurrency", "1", "--hostname", "worker@%h"],
        env={**environment, "CRPBOT_REDIS_URL": url(port, "worker")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    name = f"worker@{socket.gethostname()}"
    ping = [*celery, "inspect", "ping", "--destination", name, "--timeout", "5"]
    answers = {**environment, "CRPBOT_REDIS_URL": url(port, "application")}
    try:
        wait_until(
            lambda: subprocess.run(ping, env=answers, capture_output=True).returncode == 0,
            what="the worker's answer",
            seconds=90,
        )
        assert check_health(port, tmp_path) == 0
    finally:
        worker.terminate()
        worker.wait(30)
    assert check_health(port, tmp_path) != 0


def check_health(port: int, folder: Path) -> int:
    """The status of the worker's health check, as docker-compose.yml has it."""
    _, command = SERVICES["cpu-worker"]["healthcheck"]["test"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "CRPBOT_REDIS_URL": url(port, "worker")}
    checked = ["sh", "-c", command.replace("$$", "$")]
    return subprocess.run(checked, cwd=folder, env=environment, capture_output=True, timeout=60).returncode


def test_the_application_counts_pushes_moves_and_reads_the_time(port: int, settings: Any) -> None:
    settings.REDIS_URL = url(port, "application")
    counters = {"KEY_PREFIX": "crpbot", "OPTIONS": {"serializer": "crpbot.web.counters.IntegerSerializer"}}
    cache = RedisCache(settings.REDIS_URL, counters)
    cache.set("requests", 1, 60)
    assert (cache.incr("requests"), cache.get("requests")) == (2, 2)
    with connect(port, "application").pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(notify.CHANNEL)
        channel.get_message(timeout=1)
        notify._publish(7)
        assert wait_until(lambda: channel.get_message(timeout=0.1), what="the move")["data"] == b"7"
    assert clock._compare_with_redis() is not None


@pytest.mark.parametrize("user", ["application", "worker"])
@pytest.mark.parametrize(
    "command",
    [
        "CONFIG GET *", "CONFIG SET dir /tmp", "FLUSHALL", "KEYS *", "DEBUG SLEEP 0", "SHUTDOWN NOSAVE", "ACL LIST",
        "MODULE LIST", "REPLICAOF 127.0.0.1 1", "SAVE", "CLIENT LIST", "MONITOR", "GET other", "SET other 1",
        "PUBLISH other 1", "MIGRATE 127.0.0.1 1 training 0 1", "SCRIPT FLUSH", "EVAL return_redis.call('get','other') 0",
    ],
)  # fmt: skip
def test_neither_user_may_do_anything_else(user: str, command: str, port: int) -> None:
    words = [word.replace("return_", "return ") for word in command.split()]
    with pytest.raises(redis.ResponseError, match=r"(?i)permission|access"):
        connect(port, user).execute_command(*words)


@pytest.mark.parametrize(
    "command",
    [
        "GET crpbot:1:requests",
        "SET crpbot:1:requests 9",
        "DEL crpbot:1:requests",
        "PUBLISH crpbot.moves 9",
        "SUBSCRIBE crpbot.moves",
    ],
)
def test_a_worker_reaches_neither_counters_nor_moves(command: str, port: int) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        connect(port, "worker").execute_command(*command.split())


def test_without_a_password_redis_only_answers_that_it_lives(port: int) -> None:
    with pytest.raises((redis.AuthenticationError, redis.exceptions.NoPermissionError)):
        redis.Redis(port=port).ping()
    with pytest.raises(redis.exceptions.NoPermissionError):
        connect(port, "health", "").get("training")
