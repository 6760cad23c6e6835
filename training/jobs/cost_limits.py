"""What an attempt costs while it goes on, and the alarm that ends it in mid-epoch before it costs more."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from time import monotonic
from types import FrameType
from typing import Any, Self

from training.models import TrainingRun
from training.rules import cost, headroom

RINGS_AGAIN_AFTER_SECONDS = 0.5
"""What is raised within a finalizer, Python drops: an alarm that falls into one must ring again."""


@dataclass(frozen=True)
class Bill:
    """The machine time of one attempt, on top of what earlier attempts of the run took."""

    started: float
    seconds_before: float
    usd_before: Decimal
    rate_per_hour: Decimal
    allowed_seconds: float

    @classmethod
    def of(cls, run: TrainingRun) -> Self:
        """Of a run that was claimed just now."""
        return cls(monotonic(), run.billed_seconds, run.spent_usd, run.rate_usd_per_hour, run.allowed_seconds)

    @property
    def attempt_seconds(self) -> float:
        return monotonic() - self.started

    @property
    def seconds(self) -> float:
        """Of all attempts."""
        return self.seconds_before + self.attempt_seconds

    @property
    def headroom(self) -> float:
        return headroom(self.allowed_seconds - self.seconds_before)

    @property
    def seconds_left(self) -> float:
        """Until the attempt must stop."""
        return self.allowed_seconds - self.headroom - self.seconds

    def columns(self) -> dict[str, Any]:
        """What the run has cost by now, as its row keeps it."""
        elapsed = self.attempt_seconds
        return {
            "billed_seconds": self.seconds_before + elapsed,
            "spent_usd": self.usd_before + cost(elapsed, self.rate_per_hour),
        }


class Interruption:
    """Raises in the midst of the work once its time is up, but not while something is being written.

    By SIGALRM, and so in a process's main thread only, where a worker's child does its work; elsewhere the limits are
    kept between epochs.
    """

    def __init__(self, error: type[Exception]) -> None:
        self.error = error
        self._is_held_off = False
        self._has_rung = False

    @contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), RINGS_AGAIN_AFTER_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self._has_rung = False

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """What is in here runs to its end; an alarm in the meantime is raised then."""
        is_outermost, self._is_held_off = not self._is_held_off, True
        try:
            yield
        finally:
            self._is_held_off = not is_outermost
        if is_outermost and self._has_rung:
            raise self.error

    def _ring(self, number: int, frame: FrameType | None) -> None:
        self._has_rung = True
        if not self._is_held_off:
            raise self.error
