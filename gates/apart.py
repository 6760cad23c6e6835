"""The first lines of the measuring process: bounded, tied to its worker's life, and only then what it is for.

Run as `python -m gates.apart PARENT SECONDS …arguments of mlcore.measure`. It imports no Django and knows no secret: a
bundle's bytes are data from outside.
"""

import ctypes
import os
import resource
import runpy
import signal
import sys

MEMORY_LIMIT_BYTES = 8 * 2**30
"""Address space; five years of hourly candles take a tenth of it."""
FILE_LIMIT_BYTES = 2**30
PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, seconds = int(sys.argv[1]), int(sys.argv[2])
    bounds = {
        resource.RLIMIT_CPU: (seconds, seconds + 5),  # SIGXCPU first: a SIGKILL is taken for somebody else's
        resource.RLIMIT_AS: (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES),
        resource.RLIMIT_FSIZE: (FILE_LIMIT_BYTES, FILE_LIMIT_BYTES),
        resource.RLIMIT_CORE: (0, 0),
    }
    for kind, bound in bounds.items():
        resource.setrlimit(kind, bound)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the worker died before the request took hold
        os._exit(1)
    sys.argv[1:] = sys.argv[3:]
    runpy.run_module("mlcore.measure", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
