"""A process of its own for bytes from outside: bounded, tied to its parent's life, and without a secret in its reach.

`run` starts one. Run as `python -m training.jobs.sandbox PARENT SECONDS PRIVATE_BYTES MODULE …its arguments`, this
module is the first lines of that process, before anything reads what came from outside. It imports no Django.
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


class Killed(Exception):
    """Killed from outside, by SIGKILL: that says nothing about what it read."""


class TookTooLong(Exception):
    """It was stopped at the end of its time."""


class EndedBadly(Exception):
    """It ended otherwise than by finishing; the message is how, and its last words."""


def run(
    module: str, arguments: Sequence[str], *, folder: Path, seconds: float, private_bytes: int | None = None
) -> None:
    """Run a module in `folder`, until it has finished well. Raises Killed, TookTooLong or EndedBadly.

    `private_bytes` bounds the memory that is its own; without it the address space alone is bounded.
    """
    bounds = [str(os.getpid()), str(int(seconds) + 1), str(private_bytes or 0)]
    command = [sys.executable, "-m", "training.jobs.sandbox", *bounds, module, *arguments]
    words = folder / "errors"
    with words.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=surroundings(folder),
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise TookTooLong(f"longer than {seconds:g} s") from None
        finally:
            process.kill()
            process.wait()
    if code == -signal.SIGKILL:
        raise Killed("killed by SIGKILL")
    if code != 0:
        raise EndedBadly(f"{_end(code)}{_last_words(words)}")


def surroundings(folder: Path) -> dict[str, str]:
    """Its whole environment. Libraries get one thread: what is found must not hang on a machine's cores.

    What is freed is kept, not given back: arrays of all sizes come and go, and clearing their pages anew takes longer
    than filling them, most of all where a virtual machine's host must find each page again.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    memory = {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
    }
    return {
        **kept,
        **threads,
        **memory,
        "PYTHONPATH": str(_SERVICE),
        "PYTHONHASHSEED": "0",
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }


def _end(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _last_words(path: Path) -> str:
    """The last line it wrote, where there is one."""
    lines = path.read_bytes()[-4000:].decode(errors="replace").strip().splitlines()
    return f": {lines[-1][:500]}" if lines else ""


def main() -> None:
    parent, seconds, private_bytes = (int(word) for word in sys.argv[1:4])
    bounds = {
        resource.RLIMIT_CPU: (seconds, seconds + 5),  # SIGXCPU first: a SIGKILL is taken for somebody else's
        resource.RLIMIT_AS: (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES),
        resource.RLIMIT_FSIZE: (FILE_LIMIT_BYTES, FILE_LIMIT_BYTES),
        resource.RLIMIT_CORE: (0, 0),
    }
    if private_bytes:
        bounds[resource.RLIMIT_DATA] = (private_bytes, private_bytes)
    for kind, bound in bounds.items():
        resource.setrlimit(kind, bound)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the request took hold
        os._exit(1)
    module = sys.argv[4]
    sys.argv[1:] = sys.argv[5:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
