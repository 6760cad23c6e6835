"""Runs a module in a sandbox: a process with limits and no secrets, which ends with its parent.

Bytes from outside are read in it: candle files, checkpoints, ONNX files and archives; bundles are measured in it, and
recipes of installed packages run in it.
`run_module` starts it, and `confinement` is its inside. What it writes into its folder is not trusted either: only plain
files of a limited size are accepted, and their readers check them again.
"""

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from django.conf import settings

from common.deadlines import has_client_left
from common.errors import Unavailable
from training.jobs.confinement import Layer, hide_memory

logger = logging.getLogger(__name__)

RUNNING_AT_ONCE = 2
"""Sandboxes of one process. A web process must keep memory and cores for the bots."""
WAITING_AT_ONCE = 2
"""Requests that wait for one. More are refused at once, because each holds a database connection."""
WAIT_SECONDS = 10.0
OUTPUT_BYTES = 2**30
SPARE_BYTES = 2**30
"""So much of the disk stays free: a file that was deleted and is still open takes room, and lies in no folder."""
ESSENTIAL = frozenset({Layer.FILES, Layer.SYSTEM_CALLS})
"""Without these, code that a file manages to run reads every file and reaches every host that the service does."""

_SERVICE = Path(__file__).resolve().parents[2]
_SHOWN_BYTES = 4000
_LOOK_EVERY_MS = 100
_places = threading.BoundedSemaphore(RUNNING_AT_ONCE + WAITING_AT_ONCE)
_running = threading.BoundedSemaphore(RUNNING_AT_ONCE)


class ProcessKilled(Exception):
    """Killed by SIGKILL from outside, which says nothing about its input."""


class ProcessTimedOut(Exception):
    """Stopped at its time limit."""


class ProcessFailed(Exception):
    """Ended with an error; the message is its exit status and its last line of output."""


class SandboxBusy(Unavailable):
    """All sandboxes of this process are in use."""


class SandboxTooWeak(Unavailable):
    """This machine lacks a layer without which nothing from outside is read in production."""


def run_module(
    module: str,
    arguments: Sequence[str],
    *,
    folder: Path,
    seconds: float,
    private_bytes: int | None = None,
    output_bytes: int = OUTPUT_BYTES,
    readable: Path | None = None,
    on_look: Callable[[], None] | None = None,
) -> None:
    """Run a module in `folder` to its end; the folder then holds plain files only.

    Raises ProcessKilled, ProcessTimedOut, ProcessFailed, SandboxBusy or SandboxTooWeak. `private_bytes` limits its private
    memory; without it only the address space is limited. `output_bytes` limits the folder. `readable` is another folder
    that it may read. `on_look` is called ten times a second; what it raises ends the process and passes through.
    """
    layers = find_layers()
    require_strong(layers)
    bounds = [str(os.getpid()), str(int(seconds) + 1), str(private_bytes or 0), ",".join(sorted(layers))]
    bounds.append("" if readable is None else str(readable.resolve()))
    command = [sys.executable, "-m", "training.jobs.confinement", *bounds, module, *arguments]
    hide_memory()
    with _take_turn(), tempfile.TemporaryFile() as output:
        code = _run(command, folder, output, time.monotonic() + seconds, output_bytes, seconds, on_look)
        if code == -signal.SIGKILL:
            raise ProcessKilled("killed by SIGKILL")
        if code != 0:
            end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            raise ProcessFailed(f"{end}{_last_line(output)}")
        _require_plain_files(folder)


def read_output(path: Path, limit_bytes: int) -> bytes:
    """A file that the sandbox wrote, of at most so many bytes. Raises ProcessFailed if it is missing, larger, or no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > limit_bytes:
                raise ProcessFailed(f"left no usable {path.name}")
            return file.read(limit_bytes + 1)
    except OSError as error:
        raise ProcessFailed(f"left no usable {path.name}") from error


@cache
def find_layers() -> frozenset[Layer]:
    """The layers that this machine has, found by applying them in a process of their own."""
    with tempfile.TemporaryDirectory(prefix="sandbox-layers-", ignore_cleanup_errors=True) as folder:
        tried = subprocess.run(
            [sys.executable, "-m", "training.jobs.confinement"],
            cwd=folder,
            env=sandbox_environment(Path(folder)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=True,
        )
    layers = frozenset(map(Layer, json.loads(tried.stdout)))
    logger.info("layers of the sandbox: %s", ", ".join(sorted(layers)) or "none")
    return layers


def require_strong(layers: frozenset[Layer]) -> None:
    """Raise SandboxTooWeak in production without an essential layer, unless CRPBOT_ALLOW_WEAK_SANDBOX permits it."""
    missing = sorted(ESSENTIAL - layers)
    if missing and not settings.ALLOW_WEAK_SANDBOX:
        raise SandboxTooWeak(
            f"The sandbox lacks {' and '.join(missing)} on this machine: nothing from outside is read. Use a Linux kernel"
            " with Landlock and seccomp, or accept it by CRPBOT_ALLOW_WEAK_SANDBOX=1."
        )


def sandbox_environment(folder: Path) -> dict[str, str]:
    """The whole environment of the process. Libraries get one thread, so that results do not depend on the core count.

    Freed memory is kept by the process: many arrays are allocated and freed, and zeroing new pages takes longer than
    filling them, most of all on a virtual machine.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    return {
        **kept,
        **threads,
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
        "PYTHONPATH": str(_SERVICE),
        "PYTHONHASHSEED": "0",
        "PYTHONSAFEPATH": "1",  # a file in the folder is never imported
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }


@contextlib.contextmanager
def _take_turn() -> Iterator[None]:
    busy = SandboxBusy("Other files are being read. Try again in a minute.")
    if not _places.acquire(blocking=False):
        raise busy
    try:
        if not _running.acquire(timeout=WAIT_SECONDS):
            raise busy
        try:
            yield
        finally:
            _running.release()
    finally:
        _places.release()


def _run(
    command: list[str],
    folder: Path,
    output: IO[bytes],
    deadline: float,
    output_bytes: int,
    seconds: float,
    on_look: Callable[[], None] | None,
) -> int:
    """The exit code. The process has ended when this returns or raises, whatever the reason."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=sandbox_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    limit = output_bytes + _measure_folder(folder)
    had_room = _measure_free(folder) >= SPARE_BYTES
    ended = os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    try:
        while not poll.poll(_LOOK_EVERY_MS):
            if time.monotonic() >= deadline:
                raise ProcessTimedOut(f"longer than {seconds:g} s")
            if has_client_left():
                raise ProcessTimedOut("no longer than its client waited")
            if _measure_folder(folder) + os.fstat(output.fileno()).st_size > limit:
                raise ProcessFailed(f"wrote more than {output_bytes:,} bytes")
            if had_room and _measure_free(folder) < SPARE_BYTES:
                raise ProcessFailed(
                    f"was stopped, because less than {SPARE_BYTES:,} bytes of the disk are free"
                )
            if on_look is not None:
                on_look()
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        os.close(ended)
        code = process.wait()
    return code


def _measure_folder(folder: Path) -> int:
    """Bytes on the disk of everything in it. A name may vanish while it is looked at."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(where) / name).lstat().st_blocks * 512
    return total


def _measure_free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _require_plain_files(folder: Path) -> None:
    """Raise ProcessFailed for a link or a special file: read by the service, it would be another file of the service."""
    for path in folder.rglob("*"):
        found = path.lstat()
        is_plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
        if not is_plain and not stat.S_ISDIR(found.st_mode):
            raise ProcessFailed(f"left {ascii(path.name)[:80]}, which is not a plain file")


def _last_line(output: IO[bytes]) -> str:
    """The last line of output, if any; Rust adds a note about its backtrace."""
    output.seek(max(0, output.seek(0, os.SEEK_END) - _SHOWN_BYTES))
    text = output.read(_SHOWN_BYTES).decode(errors="replace").strip()
    lines = [line for line in text.splitlines() if not line.startswith("note: ")]
    return f": {lines[-1][:500]}" if lines else ""
