"""What code that a file managed to run would try. A test runs it in the sandbox; it imports nothing of ours.

It reads `targets.json`, tries everything, and writes {what: "done" or the error} to `outcome.json`.
"""

import ctypes
import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TARGETS = json.loads(Path("targets.json").read_text()) if Path("targets.json").exists() else {}
PARENT = os.getppid()
LIBC = ctypes.CDLL(None, use_errno=True)
# name: number on x86-64 and on 64-bit ARM
SYSTEM_CALLS = {
    "io_uring_setup": (425, 425), "bpf": (321, 280), "keyctl": (250, 219), "shmget": (29, 194), "mount": (165, 40),
    "unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "pidfd_getfd": (438, 438), "memfd_create": (319, 279), "ptrace": (101, 117),
    "process_vm_writev": (311, 271), "chroot": (161, 51), "init_module": (175, 105), "sched_setaffinity": (203, 122),
}  # fmt: skip


def call(name: str) -> None:
    number = SYSTEM_CALLS[name][platform.machine() == "aarch64"]
    # Arguments that would do no harm where it were allowed: no process, no flags.
    if LIBC.syscall(number, 0, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def read_parent_memory() -> None:
    class Range(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]

    buffer = ctypes.create_string_buffer(8)
    own = Range(ctypes.addressof(buffer), 8)
    theirs = Range(TARGETS["address"], 8)
    if LIBC.process_vm_readv(PARENT, ctypes.byref(own), 1, ctypes.byref(theirs), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def attach_to_parent() -> None:
    if LIBC.ptrace(16, PARENT, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def connect(family: int, address: Any) -> None:
    with socket.socket(family) as connection:
        connection.connect(address)


def clone_a_process() -> None:
    if LIBC.syscall(220 if platform.machine() == "aarch64" else 56, 17, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os._exit(0)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "read the secret key": lambda: Path(TARGETS["secret_key"]).read_bytes(),
    "read a signing key": lambda: Path(TARGETS["signing_key"]).read_bytes(),
    "read the database": lambda: Path(TARGETS["database"]).read_bytes(),
    "list the state folder": lambda: list(Path(TARGETS["secret_key"]).parent.iterdir()),
    "read the service's code": lambda: Path(TARGETS["settings"]).read_bytes(),
    "read /etc/passwd": lambda: Path("/etc/passwd").read_bytes(),
    "read the parent's environment": lambda: Path(f"/proc/{PARENT}/environ").read_bytes(),
    "open the parent's memory": lambda: Path(f"/proc/{PARENT}/mem").read_bytes(),
    "read the parent's memory": read_parent_memory,
    "attach to the parent": attach_to_parent,
    "connect to Redis": lambda: connect(socket.AF_UNIX, TARGETS["redis"]),
    "connect to another host": lambda: connect(socket.AF_INET, ("127.0.0.1", TARGETS["port"])),
    "make a pair of sockets": lambda: socket.socketpair(),
    "write outside its folder": lambda: Path(TARGETS["outside"], "left").write_bytes(b"here"),
    "write into its Python": lambda: Path(sys.prefix, "left.pth").write_bytes(b"import os"),
    "remove a file outside": lambda: Path(TARGETS["secret_key"]).unlink(),
    "move a file outside": lambda: Path(TARGETS["secret_key"]).rename("mine"),
    "change a file's mode": lambda: Path(TARGETS["secret_key"]).chmod(0o777),
    "change a file's owner": lambda: os.chown(TARGETS["secret_key"], os.getuid(), -1),
    "change a file's time": lambda: os.utime(TARGETS["secret_key"]),
    "empty a file outside": lambda: os.truncate(TARGETS["secret_key"], 0),
    "make a link": lambda: Path("link").symlink_to(TARGETS["secret_key"]),
    "make a hard link": lambda: os.link(TARGETS["secret_key"], "hard"),
    "make a pipe": lambda: os.mkfifo("pipe"),
    "stop the parent": lambda: os.kill(PARENT, 0),
    "signal every process": lambda: os.kill(-1, 0),
    "limit the parent": lambda: resource.prlimit(PARENT, resource.RLIMIT_NOFILE, (0, 0)),
    "slow the parent down": lambda: os.setpriority(os.PRIO_PROCESS, PARENT, 19),
    "fork": lambda: os.fork() or os._exit(0),
    "clone a process": clone_a_process,
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "become a program": lambda: os.execv("/bin/true", ["true"]),
    "become root": lambda: os.setuid(0),
    "raise its own limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300)),
    **{f"call {name}": lambda name=name: call(name) for name in SYSTEM_CALLS},  # type: ignore[misc]
}


def attempt(what: Callable[[], object]) -> str:
    try:
        what()
        return "done"
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"


def list_open_files() -> list[int]:
    found = []
    for number in range(256):
        try:
            os.fstat(number)
            found.append(number)
        except OSError:
            pass
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGSYS, signal.SIG_DFL)
    outcome = {
        "open files": list_open_files(),
        "environment": dict(os.environ),
        "attempts": {name: attempt(what) for name, what in ATTEMPTS.items()},
    }
    Path("outcome.json").write_text(json.dumps(outcome))
