"""The faults of the chaos test: each begins, lasts for a moment and ends, and several last at once."""

import contextlib
import random
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
import redis
from django.conf import settings
from django.db import connection

from tests.loopback import free_port, wait_until_it_answers
from tests.processes import start
from tests.tcp_proxy import Fault, Proxy, connect_to

BUCKET = "crpbot-chaos"
LONGEST_FAULT_S = 3.0
HOUR_S = 3_600.0
WORKERS = ("training", "gates", "reconcile")
CREDENTIALS = {"access_key": "test", "secret_key": "test"}

Pids = Callable[[], Mapping[str, int]]


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault. `end` may be called more than once, and also where `begin` failed."""

    name: str
    begin: Callable[[], None]
    end: Callable[[], None] = lambda: None


class Store:
    """An S3 behind a proxy that can be slow, hang, or cut answers."""

    def __init__(self, log: Path) -> None:
        host, port = "127.0.0.1", free_port()
        command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
        self._server = start(*command, log=log)  # a process of its own: this one has enough to do
        wait_until_it_answers(f"http://{host}:{port}/moto-api/")
        self.endpoint = f"http://{host}:{port}"
        self.proxy = Proxy(connect_to((host, port)))
        boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        ).create_bucket(Bucket=BUCKET)

    def build_options(self) -> dict[str, Any]:
        """For this process, which prepares releases: past the proxy."""
        return {
            "BACKEND": "storages.backends.s3.S3Storage",
            "OPTIONS": {
                "bucket_name": BUCKET,
                "endpoint_url": self.endpoint,
                "region_name": "us-east-1",
                **CREDENTIALS,
            },
        }

    def build_environment(self) -> dict[str, str]:
        """For the processes of the service."""
        return {
            "CRPBOT_S3_BUCKET": BUCKET,
            "CRPBOT_S3_ACCESS_KEY": "test",
            "CRPBOT_S3_SECRET_KEY": "test",
            "CRPBOT_S3_REGION": "us-east-1",
            "CRPBOT_S3_ENDPOINT": f"http://127.0.0.1:{self.proxy.port}",
        }

    def stop(self) -> None:
        self._server.stop()


class OwnPostgreSQL:
    """The server of this test run, which nobody else uses. Freezing and restarting it affects only this test."""

    def __init__(self) -> None:
        self._folder = Path(settings.STATE_DIR) / "postgresql"

    def make_durable(self) -> None:
        """A commit is on disk before it is answered, as in production; else a restart may lose it."""
        with connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET synchronous_commit = on")
            cursor.execute("SELECT pg_reload_conf()")

    def freeze(self) -> None:
        for process in self._list_processes():
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        for process in self._list_processes():
            process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """As after a crash: every connection is cut, and the server recovers from its log."""
        from pgserver import postgres_server

        user = postgres_server.get_server(self._folder, cleanup_mode=None).system_user
        restart = getattr(postgres_server, "pg_ctl")  # noqa: B009 - of no public name
        restart(["-w", "-m", "immediate", "restart"], pgdata=self._folder, user=user, timeout=60)

    def _list_processes(self) -> list[psutil.Process]:
        postmaster = psutil.Process(int((self._folder / "postmaster.pid").read_text().split()[0]))
        return [postmaster, *postmaster.children(recursive=True)]


def list_faults(
    folder: Path, store: Store | None, database: OwnPostgreSQL | None, pids: Pids
) -> list[FaultKind]:
    """Every fault that this machine can inject without root."""
    faults = [
        FaultKind("Redis frozen", lambda: _signal(pids, "redis", signal.SIGSTOP), lambda: _thaw_redis(pids)),
        FaultKind("Redis emptied", _empty_redis),
        FaultKind(
            "disk full: web and keys",
            lambda: _limit_files(pids, ("web",), is_full=True),
            lambda: _limit_files(pids, ("web",), is_full=False),
        ),
        FaultKind(
            "disk full: workers",
            lambda: _limit_files(pids, WORKERS, is_full=True),
            lambda: _limit_files(pids, WORKERS, is_full=False),
        ),
        *(
            FaultKind(
                f"clock {hours:+.0f} h",
                _write(folder / "clock", hours * HOUR_S),
                _write(folder / "clock", 0.0),
            )
            for hours in (1.0, -1.0)
        ),
    ]
    if store is not None:
        proxy = store.proxy
        faults += [
            FaultKind(f"store {fault}", _set(proxy, fault), _set(proxy, Fault.NONE))
            for fault in (Fault.SLOW, Fault.CUT, Fault.FREEZE)
        ]
    if database is not None:
        faults += [
            FaultKind("database frozen", database.freeze, database.thaw),
            FaultKind("database restarted", database.restart, database.thaw),
        ]
    return faults


def _set(proxy: Proxy, fault: Fault) -> Callable[[], None]:
    return lambda: proxy.set(fault)


def _write(path: Path, shift: float) -> Callable[[], None]:
    return lambda: _replace(path, shift)


def _replace(path: Path, shift: float) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(str(shift))
    draft.replace(path)


def _signal(pids: Pids, name: str, signum: signal.Signals) -> None:
    if pid := pids().get(name):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).send_signal(signum)


def _thaw_redis(pids: Pids) -> None:
    _signal(pids, "redis", signal.SIGCONT)


def _empty_redis() -> None:
    with (
        contextlib.suppress(redis.RedisError),
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2) as client,
    ):
        client.flushall()


def _limit_files(pids: Pids, names: tuple[str, ...], *, is_full: bool) -> None:
    """While their disk is full, no file of these processes may grow: each write fails, with EFBIG."""
    gone = (psutil.NoSuchProcess, ProcessLookupError, PermissionError)  # a sandbox may belong to another user
    for name, pid in pids().items():
        if name.startswith(names):
            with contextlib.suppress(*gone):
                root = psutil.Process(pid)
                for process in (root, *root.children(recursive=True)):
                    with contextlib.suppress(*gone):
                        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                        limits = (0 if is_full else hard, hard)
                        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)


@dataclass
class Injector:
    """Draws faults from a seed, up to three at a time, and ends each by itself after a moment."""

    kinds: Sequence[FaultKind]
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    together: Counter[int] = field(default_factory=Counter)
    _active: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _timers: list[threading.Timer] = field(default_factory=list)
    _turns: list[FaultKind] = field(default_factory=list)

    @property
    def active(self) -> frozenset[str]:
        with self._lock:
            return frozenset(+self._active)

    def inject(self) -> None:
        """Begin one to three faults now, each kind in its turn."""
        for _ in range(self.chance.choice((1, 1, 2, 3))):
            if not self._turns:
                self._turns = self.chance.sample(self.kinds, len(self.kinds))
            kind = self._turns.pop()
            if kind.name in self.active:
                continue
            with self._lock:
                self._active[kind.name] += 1
            kind.begin()
            self.counts[kind.name] += 1
            timer = threading.Timer(self.chance.uniform(0.5, LONGEST_FAULT_S), self._end, [kind])
            timer.start()
            self._timers.append(timer)
        self.together[len(self.active)] += 1

    def _end(self, kind: FaultKind) -> None:
        kind.end()
        with self._lock:
            self._active[kind.name] -= 1

    def end_all(self) -> None:
        """Whatever happened: nothing stays frozen."""
        for timer in self._timers:
            timer.join(LONGEST_FAULT_S + 1)
        for kind in self.kinds:
            kind.end()


@dataclass(frozen=True)
class Sample:
    """One request for the signed snapshot while faults lasted."""

    faults: frozenset[str]
    status: int | None
    seconds: float


@contextlib.contextmanager
def sampling(injector: Injector, ask: Callable[[], int | None], samples: list[Sample]) -> Iterator[None]:
    """Ask again and again, as one more bot, and note what was answered."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.3):
            faults, began = injector.active, time.monotonic()
            status = ask()
            samples.append(Sample(faults | injector.active, status, time.monotonic() - began))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join(30)
