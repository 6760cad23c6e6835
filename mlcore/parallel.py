"""Work shared out over the processor's cores in pieces whose cut does not depend on how many cores there are.

NumPy and onnxruntime let other threads run while they compute, so threads are enough, and nothing is copied.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from threading import Condition, Thread
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")

_MOST_THREADS = 4
"""Beyond these, memory and the interpreter's lock are what is waited for."""


def each(work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """What `work` finds for each item, in their order; raises what the first item that failed raised.

    `work` sees the caller's context, so that `np.errstate` holds there too. Inside `work`, `each` shares out to the same
    threads: there are never more than cores. The threads end with the outermost call: a process that forks, or a bot
    that asks for one row, never meets one.
    """
    waiting = list(items)
    crew, threads = _crew.get(), min(cores(), _MOST_THREADS)
    if len(waiting) < 2 or threads < 2:
        return [work(item) for item in waiting]
    if crew is None:
        return _with_crew(work, waiting, _Crew(helpers=threads - 1))
    return crew.found(work, waiting, is_outermost=False)


def _with_crew(work: Callable[[Item], Found], items: list[Item], crew: "_Crew") -> list[Found]:
    outside = _crew.set(crew)
    try:
        return crew.found(work, items, is_outermost=True)
    finally:
        _crew.reset(outside)
        crew.dismiss()


@dataclass(eq=False)
class _Work:
    """The pieces of one call that nobody has begun, and how many are not finished."""

    waiting: deque[Callable[[], None]]
    unfinished: int


class _Crew:
    """The threads of one outermost call, which take from whatever is under way, from the oldest first.

    The oldest pieces are the largest: threads at work on different things ask for the interpreter's lock less often than
    threads at work on pieces of one, and small pieces are left for the end, when each thread should have one.
    """

    def __init__(self, helpers: int) -> None:
        self._under_way: list[_Work] = []
        self._changed = Condition()
        self._is_dismissed = False
        self._helpers = [Thread(target=self._help) for _ in range(helpers)]
        for helper in self._helpers:
            helper.start()

    def found(self, work: Callable[[Item], Found], items: list[Item], *, is_outermost: bool) -> list[Found]:
        """What `each` promises. The caller works too, and leaves nothing of its own to be waited for but what is begun.

        A caller within `work` takes no other's pieces while it waits: it may hold a lock that those need.
        """
        results: list[Future[Found]] = [Future() for _ in items]
        pieces = [_piece(work, item, result) for item, result in zip(items, results, strict=True)]
        own = _Work(deque(pieces), len(pieces))
        with self._changed:
            self._under_way.append(own)
            self._changed.notify_all()
        self._labour(self._under_way if is_outermost else [own], lambda: own.unfinished == 0)
        with self._changed:
            self._under_way.remove(own)
        return [result.result() for result in results]

    def dismiss(self) -> None:
        with self._changed:
            self._is_dismissed = True
            self._changed.notify_all()
        for helper in self._helpers:
            helper.join()

    def _help(self) -> None:
        self._labour(self._under_way, lambda: self._is_dismissed)

    def _labour(self, works: list[_Work], is_over: Callable[[], bool]) -> None:
        while taken := self._next(works, is_over):
            work, piece = taken
            piece()
            with self._changed:
                work.unfinished -= 1
                if not work.unfinished:
                    self._changed.notify_all()

    def _next(
        self, works: list[_Work], is_over: Callable[[], bool]
    ) -> tuple[_Work, Callable[[], None]] | None:
        """A piece to do now; None when it is over."""
        with self._changed:
            while not is_over():
                for work in works:
                    if work.waiting:
                        return work, work.waiting.popleft()
                self._changed.wait()
            return None


_crew: ContextVar[_Crew | None] = ContextVar("crew", default=None)
"""Whose thread this is."""


def _piece(work: Callable[[Item], Found], item: Item, result: "Future[Found]") -> Callable[[], None]:
    context = copy_context()

    def run() -> None:
        try:
            result.set_result(context.run(work, item))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            result.set_exception(error)

    return run


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def stretches(rows: int, length: int) -> list[slice]:
    """Consecutive slices of at most `length` rows, all of them together."""
    return [slice(start, min(start + length, rows)) for start in range(0, rows, length)]
