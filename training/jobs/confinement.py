"""Takes a process's rights away for good, then runs a module in it. This is the inside of the sandbox; `sandbox` starts it.

    python -m training.jobs.confinement PARENT SECONDS PRIVATE_BYTES LAYERS READABLE MODULE ARGUMENTS

Five layers, of which a machine may lack some. Each is applied before the module reads a byte from outside, and a layer
that is listed in LAYERS and cannot be applied ends the process. Without arguments it prints the layers that this machine
has, tried in the current folder.

- *namespaces*: a network and shared memory of its own, both empty.
- *user*: when started as root, another user that owns nothing but the folder.
- *capabilities*: none are left, except to read files where the layer *files* restricts which.
- *files* (Landlock): the folder; Python, its packages, mlcore and READABLE read-only; nothing else. No debugging of other
  processes.
- *system calls* (seccomp): those of computing and of files. No sockets, no new programs or processes, no signals to others.

It imports no Django.
"""

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import runpy
import signal
import struct
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

ADDRESS_SPACE_BYTES = 8 * 2**30
FILE_LIMIT_BYTES = 2**30
MAX_OPEN_FILES = 256

_SERVICE = Path(__file__).resolve().parents[2]
_CODE = (_SERVICE / "mlcore",)
_SYSTEM_PATHS = (
    "/usr/lib", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo",
    "/dev/null", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip
"""What libraries read: shared libraries, time zones, and facts about the processor, on which their figures depend."""

_libc = ctypes.CDLL(None, use_errno=True)


class Layer(StrEnum):
    """In the order in which they are applied."""

    NAMESPACES = "namespaces"
    USER = "user"
    CAPABILITIES = "capabilities"
    FILES = "files"
    SYSTEM_CALLS = "system calls"


class LayerMissing(Exception):
    """This machine does not allow the layer; the message says why."""


def confine(
    folder: Path, parent: int, required: Iterable[Layer] = (), readable: Path | None = None
) -> frozenset[Layer]:
    """Apply every layer that this machine has; returns them. `folder` stays writable, and `readable` can be read.

    Raises LayerMissing for a required layer. The process must have one thread. It then ends with its `parent`.
    """
    was_root = os.geteuid() == 0
    can_restrict_files = _query_landlock() >= 1
    steps = {
        Layer.NAMESPACES: _enter_namespaces,
        Layer.USER: lambda: _become_another_user(folder, can_restrict_files=can_restrict_files),
        Layer.CAPABILITIES: lambda: _drop_capabilities(
            may_read=was_root and os.geteuid() != 0 and can_restrict_files
        ),
        Layer.FILES: lambda: _restrict_files(folder, readable),
        Layer.SYSTEM_CALLS: _restrict_system_calls,
    }
    active, wanted = set(), set(required)
    for layer, apply in steps.items():
        try:
            apply()
            active.add(layer)
        except (LayerMissing, OSError) as missing:
            if layer in wanted:
                raise LayerMissing(
                    f"the layer {layer} of the sandbox cannot be applied: {missing}"
                ) from missing
        if layer == Layer.CAPABILITIES:
            die_with_parent(parent)  # another user or other rights undo it, and the last layer forbids it
    return frozenset(active)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise LayerMissing(f"{what}: {os.strerror(number)}")
    return result


# Namespaces and user

_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000
_CAP_CHOWN, _CAP_DAC_READ_SEARCH, _CAP_SETGID, _CAP_SETUID, _CAP_SYS_ADMIN = 0, 2, 6, 7, 21
_FIRST_USER = 2_000_000_000
"""Nobody's: the user of a sandbox is this number plus its process id, so that no two at a time are the same user."""


def _enter_namespaces() -> None:
    """A user namespace too where that is what allows the others: its rights end at its border, and are dropped next."""
    if _has_capabilities(_CAP_SYS_ADMIN):
        _check(_libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC), "unshare")
        return
    user, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC), "unshare")
    for name, text in (
        ("uid_map", f"{user} {user} 1"),
        ("setgroups", "deny"),
        ("gid_map", f"{group} {group} 1"),
    ):
        # Without a map it is nobody in there, which is as good. Root without rights gets none.
        with contextlib.suppress(OSError):
            Path(f"/proc/self/{name}").write_text(text)


def _become_another_user(folder: Path, *, can_restrict_files: bool) -> None:
    if os.geteuid() != 0 or not _has_capabilities(_CAP_CHOWN, _CAP_SETGID, _CAP_SETUID):
        raise LayerMissing("it was not started as root")
    # Where Landlock says what may be read, the new user may read what root can: Python may lie in root's own folder.
    if not can_restrict_files and not all(map(_is_open_to_all, (*_list_python_paths(), *_CODE))):
        raise LayerMissing("Python or the code can be read by root only")
    user = _FIRST_USER + os.getpid()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl")
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _has_capabilities(*wanted: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    return all(effective >> number & 1 for number in wanted)


def _is_open_to_all(path: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


# Capabilities

_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_PDEATHSIG = 8, 38, 22, 1
_CAPABILITY_VERSION = 0x20080522


def _drop_capabilities(*, may_read: bool) -> None:
    """All, also for programs that it would start. `may_read` keeps the right to read files of other users."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    kept = 1 << _CAP_DAC_READ_SEARCH if may_read else 0
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)(
        kept, kept, 0, 0, 0, 0
    )  # effective, permitted, inheritable; the upper halves
    _check(_libc.capset(header, sets), "capset")


# Files: Landlock, https://docs.kernel.org/userspace-api/landlock.html

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _REFER, _TRUNCATE = 1 << 7, 1 << 8, 1 << 13, 1 << 14
_FOR_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE
_READING = _READ_FILE | _READ_DIR
_WRITING = _READING | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
_RIGHTS_BY_VERSION = (0, 13, 14, 15, 15, 16)
"""How many rights on files each version knows; the sixth and later know no more."""

_ALL_TCP, _ALL_SCOPES = 0b11, 0b11  # bind, connect; abstract sockets, signals


def _query_landlock() -> int:
    """The version of Landlock in this kernel; below 1 where there is none."""
    return int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def _restrict_files(folder: Path, readable: Path | None) -> None:
    """Also: no TCP from version 4, no signals to other processes from version 6."""
    version = _check(_query_landlock(), "Landlock")
    handled = (1 << _RIGHTS_BY_VERSION[min(version, len(_RIGHTS_BY_VERSION) - 1)]) - 1
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("=QQQ", handled, _ALL_TCP, _ALL_SCOPES)[:size]
    rules = _check(_libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0), "Landlock")
    added = () if readable is None else (readable,)
    for path in (*_list_python_paths(), *_CODE, *added, *map(Path, _SYSTEM_PATHS)):
        _allow(rules, path, _READING & handled)
    _allow(rules, folder, _WRITING & handled)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(_libc.syscall(_RESTRICT_SELF, rules, 0), "Landlock")
    os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there, or cannot be reached, stays forbidden
    try:
        rights = rights if path.is_dir() else rights & _FOR_FILES
        _check(_libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, place), 0), f"Landlock: {path}")
    finally:
        os.close(place)


def _list_python_paths() -> list[Path]:
    return [Path(path) for path in dict.fromkeys((sys.prefix, sys.base_prefix))]


# System calls: seccomp, https://docs.kernel.org/userspace-api/seccomp_filter.html

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""The column of the table below, and the number in `struct seccomp_data`."""

_SYSTEM_CALLS = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "preadv": (295, 69), "pwritev": (296, 70), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436),
    "dup": (32, 23), "dup2": (33, -1), "dup3": (292, 24), "open": (2, -1), "openat": (257, 56), "stat": (4, -1),
    "lstat": (6, -1), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291), "statfs": (137, 43),
    "fstatfs": (138, 44), "access": (21, -1), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, -1),
    "readlinkat": (267, 78), "getcwd": (79, 17), "getdents64": (217, 61), "ftruncate": (77, 46), "fsync": (74, 82),
    "fdatasync": (75, 83), "fallocate": (285, 47), "fadvise64": (221, 223), "unlink": (87, -1), "unlinkat": (263, 35),
    "rename": (82, -1), "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, -1), "mkdirat": (258, 34),
    "rmdir": (84, -1), "umask": (95, 166), "sendfile": (40, 71), "copy_file_range": (326, 285), "chdir": (80, 49),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "msync": (26, 227), "futex": (202, 98), "futex_waitv": (449, 449), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "sched_getparam": (143, 121), "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126), "getcpu": (309, 168),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "restart_syscall": (219, 128), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "gettimeofday": (96, 169),
    "time": (201, -1), "times": (100, 153), "getrusage": (98, 165), "sysinfo": (99, 179), "uname": (63, 160),
    "getrandom": (318, 278), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getresuid": (118, 148), "getresgid": (120, 150),
    "getgroups": (115, 158), "getpgrp": (111, -1), "getpgid": (121, 155), "getpriority": (140, 141),
    "getrlimit": (97, 163), "set_robust_list": (273, 99), "rseq": (334, 293), "set_tid_address": (218, 96),
    "arch_prctl": (158, -1), "membarrier": (324, 283), "poll": (7, -1), "ppoll": (271, 73), "select": (23, -1),
    "pselect6": (270, 72), "epoll_create": (213, -1), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, -1), "epoll_pwait": (281, 22), "eventfd2": (290, 19), "pipe": (22, -1), "pipe2": (293, 59),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
"""Those that are allowed whatever their arguments, on x86-64 and on 64-bit ARM."""

_FCNTL, _IOCTL, _PRCTL, _PRLIMIT, _KILL, _TGKILL = (
    (72, 25),
    (16, 29),
    (157, 167),
    (302, 261),
    (62, 129),
    (234, 131),
)
_CLONE, _CLONE3 = (56, 220), (435, 435)
_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020080  # every flag of a new namespace
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)  # duplicate, flags; not the owner of signals, leases or locks
_IOCTL_COMMANDS = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # is it a terminal, how much is there, flags
_PRCTL_COMMANDS = (15, 16, 0x53564D41)  # names of threads and of memory
_ALLOW, _KILL_PROCESS, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000


def _restrict_system_calls() -> None:
    column, architecture = _ARCHITECTURES.get(platform.machine(), (0, 0))
    if not architecture:
        raise LayerMissing(f"its system calls are not known on {platform.machine()}")
    program = b"".join(_build_filter(column, architecture))
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and their address
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(_libc.prctl(_PR_SET_SECCOMP, 2, fprog, 0, 0), "seccomp")


def _build_filter(column: int, architecture: int) -> Iterator[bytes]:
    """A classic BPF program over `struct seccomp_data`: number at 0, architecture at 4, arguments from 16."""
    yield _load(4)
    yield from _return_unless_equal(architecture, _KILL_PROCESS)
    yield _load(0)
    yield _instruction(0x35, 0, 1, _X32)  # numbers from here on are those of another calling convention
    yield _return(_REFUSE | errno.EPERM)
    for numbers in _SYSTEM_CALLS.values():
        if numbers[column] >= 0:
            yield from _return_if_equal(numbers[column], _ALLOW)
    yield from _return_if_equal(
        _CLONE3[column], _REFUSE | errno.ENOSYS
    )  # libraries then use clone, whose flags can be seen
    own = os.getpid()
    for numbers, argument, values in (
        (_FCNTL, 1, _FCNTL_COMMANDS),
        (_IOCTL, 1, _IOCTL_COMMANDS),
        (_PRCTL, 0, _PRCTL_COMMANDS),
        (_PRLIMIT, 0, (0,)),
        (_KILL, 0, (own,)),
        (_TGKILL, 0, (own,)),
    ):
        block = [_load(16 + 8 * argument)]
        for value in values:
            block += _return_if_equal(value, _ALLOW)
        yield from _when(numbers[column], [*block, _return(_REFUSE | errno.EPERM)])
    threads_only = [
        _load(16),
        _instruction(0x45, 0, 1, _CLONE_NEW),
        _return(_REFUSE | errno.EPERM),
        _instruction(0x45, 0, 1, _CLONE_THREAD),
        _return(_ALLOW),
    ]
    yield from _when(_CLONE[column], [*threads_only, _return(_REFUSE | errno.EPERM)])
    yield _return(_REFUSE | errno.EPERM)


def _instruction(code: int, if_true: int, if_false: int, constant: int) -> bytes:
    """struct sock_filter"""
    return struct.pack("=HBBI", code, if_true, if_false, constant)


def _load(offset: int) -> bytes:
    return _instruction(0x20, 0, 0, offset)


def _return(value: int) -> bytes:
    return _instruction(0x06, 0, 0, value)


def _return_if_equal(value: int, result: int) -> list[bytes]:
    return [_instruction(0x15, 0, 1, value), _return(result)]


def _return_unless_equal(value: int, result: int) -> list[bytes]:
    return [_instruction(0x15, 1, 0, value), _return(result)]


def _when(number: int, block: list[bytes]) -> list[bytes]:
    """The block if the system call has this number; it must end with a return."""
    return [_instruction(0x15, 0, len(block), number), *block]


# The process


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends: nobody else could stop it."""
    parent = parent or os.getppid()
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:  # the parent ended before prctl took effect
        os._exit(1)


def hide_memory() -> None:
    """No process of the same user may read this one's memory or environment. Also ends core dumps and debugging."""
    _libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


def _limit(seconds: int, private_bytes: int) -> None:
    bounds = {
        resource.RLIMIT_CPU: (seconds, seconds + 5),  # SIGXCPU first: SIGKILL counts as killed from outside
        resource.RLIMIT_AS: (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES),
        resource.RLIMIT_FSIZE: (FILE_LIMIT_BYTES, FILE_LIMIT_BYTES),
        resource.RLIMIT_NOFILE: (MAX_OPEN_FILES, MAX_OPEN_FILES),
        resource.RLIMIT_CORE: (0, 0),
    }
    if private_bytes:
        bounds[resource.RLIMIT_DATA] = (private_bytes, private_bytes)
    for kind, bound in bounds.items():
        resource.setrlimit(kind, bound)


def main() -> None:
    if len(sys.argv) == 1:
        print(json.dumps(sorted(confine(Path.cwd(), os.getppid()))))  # noqa: T201 - its answer
        return
    parent, seconds, private_bytes = (int(word) for word in sys.argv[1:4])
    required = [Layer(word) for word in sys.argv[4].split(",") if word]
    readable, module = Path(sys.argv[5]) if sys.argv[5] else None, sys.argv[6]
    sys.argv[1:] = sys.argv[7:]
    _limit(seconds, private_bytes)
    die_with_parent(parent)  # before the folder is touched
    import mlcore  # noqa: F401 - found now, because the folder around it cannot be listed later

    confine(Path.cwd(), parent, required, readable)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
