"""Fuzzes one reader in processes of its own, and counts how its inputs ended.

The child writes each input to a file before it reads it. When the child dies or takes too long, the parent keeps that
input and goes on with the next one.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from tests.fuzz.readers import READERS, Reader

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS_PER_INPUT = 10.0
"""Of processor time: on a busy machine an input waits for its turn."""
_WAIT_PER_INPUT = 120.0
"""Until a reader that only waits counts as stuck, too."""
MEMORY_BYTES = 3 * 2**30
_START_SECONDS = 900.0
"""Until a child that has not begun counts as failed: on a busy machine its imports take minutes."""
_SHOWN_ERRORS = 5


@dataclass
class Tally:
    """How the inputs of one reader ended."""

    reader: str
    inputs: int = 0
    read: int = 0
    refused: int = 0
    contained: int = 0
    """Ended the process of a reader that runs in the sandbox, or exhausted its memory or time there."""
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    peak_mib: int = 0
    ends: list[str] = field(default_factory=list)
    """Of those, how."""
    violations: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        for name in ("inputs", "read", "refused", "contained"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds += other.seconds
        self.slowest_seconds = max(self.slowest_seconds, other.slowest_seconds)
        self.peak_mib = max(self.peak_mib, other.peak_mib)
        self.violations += other.violations
        self.ends += other.ends


def fuzz(reader: Reader, *, seed: str, count: int, seconds: float, kept: Path) -> Tally:
    """Try `count` inputs, or as many as `seconds` allow. Inputs that break the property are written to the folder `kept`."""
    total, begun = Tally(reader.name), time.monotonic()
    kept.mkdir(parents=True, exist_ok=True)
    while total.inputs < count and (left := seconds - (time.monotonic() - begun)) > 0:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            folder = Path(name)
            end = _run_child(reader, seed, total.inputs, count, left, folder)
            tally = Tally(**json.loads((folder / "tally.json").read_text()))
            if end:
                _record_end(reader, tally, end, (folder / "input").read_bytes())
            for path in folder.glob("violation-*"):
                (kept / f"{reader.name.replace(' ', '-')}-{path.name}").write_bytes(path.read_bytes())
            total.add(tally)
            if end:
                _keep(kept, reader, (folder / "input").read_bytes())
    total.seconds = time.monotonic() - begun
    return total


def _run_child(reader: Reader, seed: str, first: int, count: int, seconds: float, folder: Path) -> str:
    """How the child ended before its time; empty if it did not."""
    (folder / "tally.json").write_text(json.dumps(vars(Tally(reader.name))))
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.harness",
        reader.name,
        seed,
        str(first),
        str(count),
        str(seconds),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "POLARS_MAX_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    environment["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    environment["TMPDIR"] = str(folder)
    with (folder / "errors").open("wb") as errors:
        child = subprocess.Popen(
            [*command, str(folder)], cwd=REPOSITORY, env=environment, stderr=errors, stdout=errors
        )
    watch = _Watch(folder, psutil.Process(child.pid))
    try:
        while True:
            try:
                code = child.wait(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                if watch.is_stuck():
                    child.kill()
                    code = child.wait()
                    if not (folder / "input").exists():
                        break
                    return f"took longer than {SECONDS_PER_INPUT:g} s"
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if code != 0 and not (folder / "input").exists():
        raise RuntimeError(f"a child of the harness ended with {code} before it began")
    if code > 0:
        raise RuntimeError(f"the harness failed: {(folder / 'errors').read_text()[-3000:]}")
    return f"was killed by signal {-code}" if code < 0 else ""


class _Watch:
    """How long the child has read its present input."""

    def __init__(self, folder: Path, child: psutil.Process) -> None:
        self._folder, self._child = folder, child
        self._since, self._used_s = 0.0, 0.0

    def is_stuck(self) -> bool:
        path = self._folder / "input"
        if not path.exists():
            return time.time() - self._folder.stat().st_ctime > _START_SECONDS
        since, times = path.stat().st_mtime, self._child.cpu_times()
        used_s = times.user + times.system
        if since != self._since:
            self._since, self._used_s = since, used_s
        return used_s - self._used_s > SECONDS_PER_INPUT or time.time() - since > _WAIT_PER_INPUT


def _record_end(reader: Reader, tally: Tally, end: str, data: bytes) -> None:
    """The input that ended the child counts too; the tally on disk may lack the last few before it."""
    tally.inputs += 1
    if reader.is_sandboxed:
        tally.contained += 1
        tally.ends.append(end)
    else:
        tally.violations.append(f"{reader.name}: {hashlib.sha256(data).hexdigest()[:12]} {end}")


def _keep(kept: Path, reader: Reader, data: bytes) -> None:
    name = f"{reader.name.replace(' ', '-')}-{hashlib.sha256(data).hexdigest()[:12]}"
    (kept / name).write_bytes(data)


def run_child(reader: Reader, seed: str, first: int, count: int, seconds: float, folder: Path) -> Tally:
    """Read inputs number `first` to `count`, or for `seconds`."""
    target = reader.prepare()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tally, begun, number = Tally(reader.name), time.monotonic(), first
    seen: set[str] = set()
    with (folder / "input").open("wb", buffering=0) as current:
        while number < count and time.monotonic() - begun < seconds:
            try:
                data = target.make(Random(f"{seed} {number}"))
            except MemoryError:
                if number == first or not reader.is_sandboxed:
                    raise
                break  # earlier inputs left no room. In the service each file has a process of its own, as here the next
            number += 1
            tally.inputs += 1
            os.pwrite(current.fileno(), data, 0)
            os.ftruncate(current.fileno(), len(data))
            started = time.process_time()
            try:
                target.read(data)
                tally.read += 1
            except target.refusals:
                tally.refused += 1
            except BaseException as error:  # noqa: BLE001 - what a reader may not raise is what is looked for
                _record_error(reader, tally, error, data, folder, seen)
            tally.slowest_seconds = max(tally.slowest_seconds, time.process_time() - started)
            if number % 50 == 0:
                _save(tally, folder)
    _save(tally, folder)
    return tally


def _record_error(
    reader: Reader, tally: Tally, error: BaseException, data: bytes, folder: Path, seen: set[str]
) -> None:
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, MemoryError) and reader.is_sandboxed:
        tally.contained += 1
        tally.ends.append("MemoryError")
        return
    digest = hashlib.sha256(data).hexdigest()[:12]
    kind = ascii(f"{type(error).__name__}: {str(error)[:200]}")
    tally.violations.append(f"{reader.name}: {digest} raised {kind}")
    if kind not in seen and len(seen) < _SHOWN_ERRORS:
        seen.add(kind)
        (folder / f"violation-{digest}").write_bytes(data)


def _save(tally: Tally, folder: Path) -> None:
    tally.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    unfinished = folder / "tally.tmp"
    unfinished.write_text(json.dumps(vars(tally)))
    unfinished.replace(folder / "tally.json")


def main() -> None:
    name, seed, first, count, seconds, folder = sys.argv[1:]
    run_child(READERS[name], seed, int(first), int(count), float(seconds), Path(folder))


if __name__ == "__main__":
    main()
