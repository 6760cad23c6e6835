"""Work shared out over the processor's cores in pieces whose cut does not depend on how many cores there are.

NumPy and onnxruntime let other threads run while they compute, so threads are enough, and nothing is copied.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")

_MOST_THREADS = 4
"""Beyond these, memory and the interpreter's lock are what is waited for."""


def each(work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """What `work` finds for each item, in their order; raises what the first item that failed raised.

    `work` sees the caller's context, so that `np.errstate` holds there too. The threads end with the call: a process that
    forks, or a bot that asks for one row, never meets one.
    """
    waiting = list(items)
    threads = min(cores(), _MOST_THREADS, len(waiting))
    if threads < 2:
        return [work(item) for item in waiting]
    with ThreadPoolExecutor(threads) as pool:
        begun = [pool.submit(copy_context().run, work, item) for item in waiting]
        return [future.result() for future in begun]


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def stretches(rows: int, length: int) -> list[slice]:
    """Consecutive slices of at most `length` rows, all of them together."""
    return [slice(start, min(start + length, rows)) for start in range(0, rows, length)]
