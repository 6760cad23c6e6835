"""Bots in processes of their own, for any Python: what each does, and what a test expects of it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.runtime.stub_service import TOKEN, Release, StubService

VERSIONS = ("3.11", "3.12", "3.13")
"""The Pythons that the client supports."""
PYTHON = (sys.executable,)
WARNINGS = ("-W", "error::ResourceWarning")

FORK = """
import json, os, signal, sys, threading
import polars as pl
from crpbot_runtime import Client

def say(*words):
    print(json.dumps(words), flush=True)

signal.alarm(60)
candles = pl.read_parquet(sys.argv[1])
client = Client(*sys.argv[2:], spread_s=0.01, max_age_s=float("inf"))
client.refresh()
threading.Thread(target=client.watch, args=(lambda active: None,), daemon=True).start()
while client.predict("BTC", candles).stale_since:
    pass
held = client._updater._state_lock, client._refresh_lock, client._updater._cache._thread_lock, client._watch_lock
for lock in held[:3]:
    lock.acquire()  # as other threads may hold them at this moment
child = os.fork()
if child:
    for lock in held[:3]:
        lock.release()
    os.waitpid(child, 0)
    say("parent", client.refresh().revision, client.predict("BTC", candles).release)
    client.close()
    sys.exit()
signal.alarm(60)
decision = client.predict("BTC", candles)
say("child", decision.release, decision.reason)
sys.stdin.readline()
say("child", client.refresh().revision, client.predict("BTC", candles).release)
stop = threading.Event()
client.watch(lambda active: stop.set() if active.revision == 3 else say("watching"), every_s=0.05, stop=stop)
say("child", client.active.revision, client.predict("BTC", candles).release)
client.close()
"""

OTHER_SYSTEM = """
import os, pathlib, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("O_DIRECTORY", "O_CLOEXEC", "O_NOFOLLOW", "getuid", "geteuid", "fork", "register_at_fork",
             "chown", "sched_getaffinity", "statvfs", "getpgid", "killpg"):
    delattr(os, name)
os.process_cpu_count = os.cpu_count  # as Python itself does where there is no affinity
import signal
for name in ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "alarm", "setitimer", "pthread_kill"):
    delattr(signal, name)
rename, open_file = os.rename, os.open

def rename_as_windows(source, target, **options):
    if os.path.exists(target):
        raise FileExistsError(17, "Cannot create a file when that file already exists", str(target))
    rename(source, target, **options)

def open_as_windows(path, flags, *rest, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return open_file(path, flags, *rest, **options)

os.rename, os.open = rename_as_windows, open_as_windows
import polars as pl
from crpbot_runtime import Client
candles = pl.read_parquet(sys.argv[1])
for turn in range(3):
    with Client(*sys.argv[2:], max_age_s=float("inf")) as client:
        active = client.refresh()
        print([active.revision, str(active.problem or ""), client.predict("BTC", candles).release], flush=True)
        sys.stdin.readline()
"""


def find_python(version: str) -> str | None:
    """On the path, or among pyenv's versions."""
    installed = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = (str(path) for path in sorted(installed.glob(f"{version}.*/bin/python")))
    return next(found, None) or shutil.which(f"python{version}")


@contextmanager
def running(
    python: Sequence[str], program: str, *arguments: object, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """A bot's program; whatever it does, it ends."""
    command = [*python, "-c", program, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def read_line(child: subprocess.Popen[str]) -> Any:
    assert child.stdout is not None
    return json.loads(child.stdout.readline() or "null")


def tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def check_fork(
    python: Sequence[str],
    service: StubService,
    cache_dir: Path,
    old: Release,
    new: Release,
    candle_file: Path,
) -> None:
    """A client made before a fork works in the child, and goes on in the parent."""
    service.point_at(old)
    arguments = (candle_file, service.url, TOKEN, service.public_key, cache_dir)
    with running(python, FORK, *arguments) as bot:
        assert read_line(bot) == ["child", old.number, ""]
        service.point_at(new)
        tell(bot)
        assert read_line(bot) == ["child", 2, new.number]
        assert read_line(bot) == ["watching"]
        service.point_at(old)
        assert read_line(bot) == ["child", 3, old.number]
        assert read_line(bot) == ["parent", 3, old.number]
        assert bot.wait(30) == 0


def check_other_system(
    python: Sequence[str],
    service: StubService,
    cache_dir: Path,
    old: Release,
    new: Release,
    candle_file: Path,
) -> None:
    """Without what only Unix has, a bot follows, saves and restarts."""
    service.point_at(old)
    arguments = (candle_file, service.url, TOKEN, service.public_key, cache_dir)
    with running(python, OTHER_SYSTEM, *arguments) as bot:
        assert bot.stdout is not None
        assert bot.stdout.readline() == f"[1, '', {old.number}]\n"
        service.point_at(new)
        tell(bot)
        assert bot.stdout.readline() == f"[2, '', {new.number}]\n"
        service.stop()
        tell(bot)
        assert bot.stdout.readline().endswith(f", {new.number}]\n"), "saved, and read again"
