"""The cost of an attempt while it runs, and the alarm that stops it within an epoch at its limit."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any

from training.models import TrainingRun
from training.rules import compute_cost, compute_headroom

ALARM_REPEAT_SECONDS = 0.5
"""Python drops an exception raised within a finalizer: the alarm repeats in case it fell into one."""


class CostMeter:
    """The machine time of one attempt since the run was claimed, added to that of its earlier attempts."""

    def __init__(self, run: TrainingRun) -> None:
        self.started = monotonic()
        self.seconds_before, self.usd_before = run.billed_seconds, run.spent_usd
        self.rate_per_hour, self.allowed_seconds = run.rate_usd_per_hour, run.allowed_seconds

    @property
    def attempt_seconds(self) -> float:
        return monotonic() - self.started

    @property
    def seconds(self) -> float:
        """Machine time of all attempts."""
        return self.seconds_before + self.attempt_seconds

    @property
    def headroom(self) -> float:
        return compute_headroom(self.allowed_seconds - self.seconds_before)

    @property
    def seconds_left(self) -> float:
        """Time until the attempt must stop."""
        return self.allowed_seconds - self.headroom - self.seconds

    def build_columns(self) -> dict[str, Any]:
        """The columns of the run that keep its cost so far."""
        elapsed = self.attempt_seconds
        return {
            "billed_seconds": self.seconds_before + elapsed,
            "spent_usd": self.usd_before + compute_cost(elapsed, self.rate_per_hour),
        }


class TimeLimitAlarm:
    """Raises an exception in the running code once its time is up, but not during a deferred section.

    It uses SIGALRM, so it works only in the main thread of a process, where a worker's child trains. In other threads the
    limits are checked between epochs.
    """

    def __init__(self, error: type[Exception]) -> None:
        self.error = error
        self._is_deferred = False
        self._is_due = False

    @contextmanager
    def raise_after(self, seconds: float) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGALRM, self._on_alarm)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), ALARM_REPEAT_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self._is_due = False

    @contextmanager
    def defer(self) -> Iterator[None]:
        """Let the section run to its end; an alarm during it is raised afterwards."""
        is_outermost, self._is_deferred = not self._is_deferred, True
        try:
            yield
        finally:
            self._is_deferred = not is_outermost
        if is_outermost and self._is_due:
            raise self.error

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        self._is_due = True
        if not self._is_deferred:
            raise self.error
