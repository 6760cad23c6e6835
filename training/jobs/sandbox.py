"""Runs a module in a sandbox: a process with limits and no secrets, which ends with its parent.

`run_module` starts it. The new process runs `python -m training.jobs.sandbox PARENT SECONDS PRIVATE_BYTES MODULE ARGUMENTS`:
this module sets the limits before the other one reads bytes from outside. It imports no Django.
"""

import ctypes
import os
import resource
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ADDRESS_SPACE_BYTES = 8 * 2**30
FILE_LIMIT_BYTES = 2**30
PR_SET_PDEATHSIG = 1

_SERVICE = Path(__file__).resolve().parents[2]


class ProcessKilled(Exception):
    """Killed by SIGKILL from outside, which says nothing about its input."""


class ProcessTimedOut(Exception):
    """Stopped at its time limit."""


class ProcessFailed(Exception):
    """Ended with an error; the message is its exit status and its last line of output."""


def run_module(
    module: str, arguments: Sequence[str], *, folder: Path, seconds: float, private_bytes: int | None = None
) -> None:
    """Run a module in `folder` to its end. Raises ProcessKilled, ProcessTimedOut or ProcessFailed.

    `private_bytes` limits its private memory; without it only the address space is limited.
    """
    bounds = [str(os.getpid()), str(int(seconds) + 1), str(private_bytes or 0)]
    command = [sys.executable, "-m", "training.jobs.sandbox", *bounds, module, *arguments]
    output = folder / "errors"
    try:
        with output.open("wb") as errors:
            code = subprocess.run(
                command,
                cwd=folder,
                env=sandbox_environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                timeout=seconds,
                check=False,
            ).returncode
    except subprocess.TimeoutExpired:
        raise ProcessTimedOut(f"longer than {seconds:g} s") from None
    if code == -signal.SIGKILL:
        raise ProcessKilled("killed by SIGKILL")
    if code != 0:
        exit_status = (
            f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        )
        raise ProcessFailed(f"{exit_status}{_last_line(output)}")


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
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }


def _last_line(path: Path) -> str:
    """The last line of output, if any."""
    lines = path.read_bytes()[-4000:].decode(errors="replace").strip().splitlines()
    return f": {lines[-1][:500]}" if lines else ""


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends: nobody else could stop it."""
    parent = parent or os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before prctl took effect
        os._exit(1)


def main() -> None:
    parent, seconds, private_bytes = (int(word) for word in sys.argv[1:4])
    bounds = {
        resource.RLIMIT_CPU: (seconds, seconds + 5),  # SIGXCPU first: SIGKILL counts as killed from outside
        resource.RLIMIT_AS: (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES),
        resource.RLIMIT_FSIZE: (FILE_LIMIT_BYTES, FILE_LIMIT_BYTES),
        resource.RLIMIT_CORE: (0, 0),
    }
    if private_bytes:
        bounds[resource.RLIMIT_DATA] = (private_bytes, private_bytes)
    for kind, bound in bounds.items():
        resource.setrlimit(kind, bound)
    die_with_parent(parent)
    module = sys.argv[4]
    sys.argv[1:] = sys.argv[5:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
