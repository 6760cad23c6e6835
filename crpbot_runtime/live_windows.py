"""Counts of a bot's predictions. The service judges by them whether the model still behaves as it was measured.

Only counts leave the bot: directions, confidence, the range of the logits, and feature values outside the range seen in
training. Adding a prediction takes microseconds and never blocks on I/O.
"""

import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from mlcore import confidence_bands
from mlcore.bundle.predictor import Prediction
from mlcore.constants import CLASSES

MAX_PREDICTIONS = 100
MAX_DURATION = timedelta(seconds=60)
"""A window closes after so many predictions, or so long."""
SUSPECT_PREDICTIONS = 10
SUSPECT_LOGIT = 10.0
CERTAIN_PREDICTIONS = 20
CERTAIN_BAND = confidence_bands.find_band(0.90)
CERTAIN_SHARE = 0.80
"""A suspect window closes sooner, so that the service sees it within tens of predictions. The service judges it."""
MAX_WINDOWS = 256
"""Closed windows kept until the service took them; the oldest go first."""


@dataclass
class LiveWindow:
    """Counts for one coin under one revision, between two times of this machine's clock."""

    revision: int
    coin: str
    first_at: datetime
    last_at: datetime
    predictions: int = 0
    non_finite: int = 0
    class_counts: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    confidence: list[int] = field(default_factory=lambda: [0] * confidence_bands.BANDS)
    logit_min: float | None = None
    logit_max: float | None = None
    out_of_range: int | None = 0
    """None once a prediction came from a bundle that does not state the ranges of its training."""

    @property
    def is_suspect(self) -> bool:
        """Whether a healthy model never looks like this."""
        certain = sum(self.confidence[CERTAIN_BAND:])
        return self.predictions >= SUSPECT_PREDICTIONS and (
            self.non_finite > 0
            or max(abs(self.logit_min or 0.0), abs(self.logit_max or 0.0)) > SUSPECT_LOGIT
            or (self.predictions >= CERTAIN_PREDICTIONS and certain >= CERTAIN_SHARE * self.predictions)
        )

    def add(self, prediction: Prediction | None, now: datetime) -> None:
        self.last_at = max(self.last_at, now)
        self.predictions += 1
        if prediction is None:
            self.non_finite += 1
            return
        self.class_counts[CLASSES.index(prediction.direction)] += 1
        self.confidence[confidence_bands.find_band(max(prediction.probabilities.values()))] += 1
        least, greatest = min(prediction.logits), max(prediction.logits)
        self.logit_min = least if self.logit_min is None else min(self.logit_min, least)
        self.logit_max = greatest if self.logit_max is None else max(self.logit_max, greatest)
        if prediction.out_of_range is None or self.out_of_range is None:
            self.out_of_range = None
        else:
            self.out_of_range += prediction.out_of_range

    def to_document(self, instance: str) -> dict[str, Any]:
        """The request body of `POST bots/windows/`."""
        return {
            "instance": instance,
            "revision": self.revision,
            "coin": self.coin,
            "first_at": self.first_at.isoformat(),
            "last_at": self.last_at.isoformat(),
            "predictions": self.predictions,
            "non_finite": self.non_finite,
            "class_counts": dict(zip(CLASSES, self.class_counts, strict=True)),
            "confidence": {"edges": list(confidence_bands.EDGES), "counts": list(self.confidence)},
            "logits": {"min": self.logit_min, "max": self.logit_max},
            "out_of_range": self.out_of_range,
        }


class LiveWindows:
    """The open windows of one bot, one for each coin and revision. Safe to use from several threads."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], LiveWindow] = {}
        self._closed: list[LiveWindow] = []
        self._lock = threading.Lock()

    def add(self, revision: int, coin: str, prediction: Prediction | None, now: datetime) -> None:
        """Count one prediction made under this revision; None was not finite, so that the bot did not act on it."""
        with self._lock:
            window = self._open.get((revision, coin))
            if window is None:
                window = self._open[revision, coin] = LiveWindow(revision, coin, now, now)
            window.add(prediction, now)
            self._close_if_due(window, now)

    def pop_closed(self, now: datetime) -> list[LiveWindow]:
        """The windows that are complete or old enough. Each is returned once."""
        with self._lock:
            newest = max((revision for revision, _ in self._open), default=0)
            for window in list(self._open.values()):
                self._close_if_due(window, now, is_over=window.revision < newest)
            closed, self._closed = self._closed, []
        return closed

    def _close_if_due(self, window: LiveWindow, now: datetime, *, is_over: bool = False) -> None:
        # In both directions: a clock that is set back must not keep a window open for hours.
        is_old = abs(now - window.first_at) >= MAX_DURATION
        if is_over or is_old or window.predictions >= MAX_PREDICTIONS or window.is_suspect:
            del self._open[window.revision, window.coin]
            self._closed = [*self._closed[-MAX_WINDOWS + 1 :], window]
