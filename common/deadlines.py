"""Calls that must not take longer than their caller can wait."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import TypeVar

MAX_ABANDONED = 16
"""Calls that may go on after their deadline at the same time; further calls are refused at once."""

client_left: ContextVar[threading.Event | None] = ContextVar("client_left", default=None)
"""An event that is set when the client of this request disconnects. None outside of requests."""

Result = TypeVar("Result")

_slots = threading.BoundedSemaphore(MAX_ABANDONED)


def run_within(seconds: float, call: Callable[[], Result]) -> Result:
    """Run `call` in a thread of its own and return its result. Raises TimeoutError when it takes longer.

    The thread goes on after the deadline, because Python cannot end it; its result is dropped. `call` must not use the
    database: its thread has a connection of its own, outside the caller's transaction.
    """
    slots = _slots
    if not slots.acquire(blocking=False):
        raise TimeoutError(f"{MAX_ABANDONED} earlier calls have not ended yet")
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            future.set_exception(error)
        finally:
            slots.release()

    threading.Thread(target=run, name="bounded call", daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None


def has_client_left() -> bool:
    """Whether the client of this request has disconnected, so that long work for it should end."""
    event = client_left.get()
    return event is not None and event.is_set()
