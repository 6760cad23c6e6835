"""What an app above this one wants to know of runs at work: it registers an observer, because nothing here imports it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from mlcore.fitting.prepared import Trained
from training.models import TrainingRun

_observers: list["Observer"] = []


class Observer(Protocol):
    """Called by the worker that holds the run. What it raises, apart from database errors, fails the run."""

    def find_stop_reason(self, run: TrainingRun, epoch: int) -> str | None:
        """After an epoch was stored: why the run is not worth continuing, or None."""

    def look_at_bundle(self, run: TrainingRun, folder: Path, trained: Trained) -> None:
        """The files of its bundle, before they are stored. A repeated call must change nothing."""


def register(observer: Observer) -> None:
    """Add an observer, once of each type."""
    if not any(type(known) is type(observer) for known in _observers):
        _observers.append(observer)


def find_stop_reason(run: TrainingRun, epoch: int) -> str | None:
    """The first reason that an observer gives."""
    return next((reason for reason in _ask(run, epoch) if reason), None)


def _ask(run: TrainingRun, epoch: int) -> Iterator[str | None]:
    for observer in _observers:
        yield observer.find_stop_reason(run, epoch)


def look_at_bundle(run: TrainingRun, folder: Path, trained: Trained) -> None:
    for observer in _observers:
        observer.look_at_bundle(run, folder, trained)
