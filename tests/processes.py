"""Real processes for the tests: Redis from a wheel, Celery workers, all on the test's own state.

A process dies with the test process, whatever happens to that one.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from django.conf import settings
from django.db import connection

from crpbot.demo.processes import REDIS_SERVER
from training.jobs import queue
from training.jobs.confinement import die_with_parent

REPOSITORY = Path(__file__).resolve().parent.parent


def environment(**more: str) -> dict[str, str]:
    """For a process that works on this test's database, files and broker."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "CRPBOT_TEST_STATE_DIR": str(settings.STATE_DIR),
        "CRPBOT_TEST_DATABASE_NAME": str(connection.settings_dict["NAME"]),
        "OMP_NUM_THREADS": "1",
        **more,
    }


@dataclass
class Process:
    """A started process and what it has written."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.popen.pid).children(recursive=True)

    def kill(self) -> None:
        """SIGKILL, as the out-of-memory killer does it."""
        self.popen.kill()
        self.popen.wait(10)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help."""
        if self.popen.poll() is not None:
            return
        self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


def start(*command: str, log: Path, **env: str) -> Process:
    with log.open("ab") as out:
        popen = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment(**env),
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )
    return Process(popen, log)


def wait_until(condition: Callable[[], Any], *, what: str, seconds: float = 90.0) -> Any:
    """What `condition()` answers once it is true. Fails the test, saying what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A real Redis on the socket that the settings name."""
    socket = settings.REDIS_URL.removeprefix("unix://")
    process = Process(
        subprocess.Popen(
            [REDIS_SERVER, "--port", "0", "--unixsocket", socket, "--save", ""],
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        ),
        tmp_path_factory.mktemp("redis") / "log",
    )
    wait_until(lambda: Path(socket).exists(), what="the socket of Redis")
    yield process
    process.stop()


@pytest.fixture
def broker(redis_process: Process, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """That Redis, empty, and no memory of an earlier test's absent broker."""
    monkeypatch.setattr(queue, "_paused_until", 0.0)
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.flushall()
        yield client


StartWorker = Callable[..., Process]


@pytest.fixture
def start_worker(broker: redis.Redis, committed: None, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts real Celery workers, and ends them after the test: start_worker("training", slots=1, name="first")."""
    started: list[Process] = []

    def start_one(queues: str = "training", *, slots: int = 1, name: str = "worker", **env: str) -> Process:
        command = [sys.executable, "-m", "celery", "-A", "crpbot", "worker", "-Q", queues, "-c", str(slots)]
        command += ["-n", f"{name}@test", "--pool", "prefork", "--loglevel", "INFO"]
        command += [
            "--without-mingle",
            "--without-gossip",
        ]  # as in production; it would wait for others of its kind
        process = start(*command, log=tmp_path / f"{name}.log", **env)
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.stop()
