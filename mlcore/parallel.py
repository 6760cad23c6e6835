"""A map over threads. How the work is cut does not depend on the number of cores, so the figures do not either.

NumPy and onnxruntime release the interpreter's lock while they compute: threads are enough, and nothing is copied.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_THREADS = 4
"""More threads only wait for memory and for the interpreter's lock."""

_pool: ContextVar[ThreadPoolExecutor | None] = ContextVar("pool", default=None)
"""The pool that the running function belongs to."""


def thread_map(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The results in the order of the items. If calls fail, the error of the first failed item is raised.

    `function` runs in a copy of the caller's context, so `np.errstate` applies. A nested call uses the same threads:
    there are never more than cores. The threads end with the outermost call, so a process that forks has none.
    """
    waiting, threads = list(items), min(available_cores(), _MAX_THREADS)
    if len(waiting) < 2 or threads < 2:
        return [function(item) for item in waiting]
    if (pool := _pool.get()) is not None:
        return _map_nested(pool, function, waiting)
    with ThreadPoolExecutor(threads) as pool:
        token = _pool.set(pool)
        futures = [_submit(pool, function, item) for item in waiting]
        _pool.reset(token)
        wait(futures)  # before the pool closes: nested calls still submit to it
    return [future.result() for future in futures]


def run_all(*functions: Callable[[], Any]) -> list[Any]:
    """The results of functions without arguments, in their order."""
    return thread_map(lambda function: function(), functions)


def _map_nested(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: list[Item]
) -> list[Result]:
    """The calling thread runs every call that no other thread has begun: waiting for those would be a deadlock."""
    futures = [_submit(pool, function, item) for item in items]
    for index, item in enumerate(items):
        if futures[index].cancel():
            futures[index] = _completed(function, item)
    return [future.result() for future in futures]


def _submit(pool: ThreadPoolExecutor, function: Callable[[Item], Result], item: Item) -> "Future[Result]":
    return pool.submit(copy_context().run, function, item)


def _completed(function: Callable[[Item], Result], item: Item) -> "Future[Result]":
    future: Future[Result] = Future()
    try:
        future.set_result(function(item))
    except BaseException as error:  # noqa: BLE001 - the caller raises it when it reads the results
        future.set_exception(error)
    return future


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chunks(rows: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size` rows that cover `rows`."""
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
