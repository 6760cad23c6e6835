"""What a bot's predictions look like, counted: the service judges from it whether the model still behaves.

Nothing of a prediction leaves the bot but counts: which directions, how sure, how far the logits went, how much of what it
saw lies outside what training saw. Adding one takes microseconds and waits for nobody.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from mlcore import confidence_bands
from mlcore.bundle.predictor import Prediction
from mlcore.constants import CLASSES

MOST_PREDICTIONS = 100
LONGEST = timedelta(seconds=60)
"""A window closes after so many predictions, or so long."""
SUSPECT_PREDICTIONS = 10
SUSPECT_LOGIT = 10.0
CERTAIN_PREDICTIONS = 20
CERTAIN_BAND = confidence_bands.find_band(0.90)
CERTAIN_SHARE = 0.80
"""One that looks ill closes sooner, so that the service hears of it within tens of predictions. What is ill, it decides."""
MOST_OPEN = 256
"""Windows kept while nobody takes them; the oldest go first."""


@dataclass
class Window:
    """Predictions of one coin under one revision, counted between two moments of this machine's clock."""

    revision: int
    coin: str
    first_at: datetime
    last_at: datetime
    predictions: int = 0
    non_finite: int = 0
    classes: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    confidence: list[int] = field(default_factory=lambda: [0] * confidence_bands.BANDS)
    least: float | None = None
    greatest: float | None = None
    out_of_range: int | None = 0
    """None once a prediction came from a bundle that does not say what training saw."""

    @property
    def is_suspect(self) -> bool:
        """Whether it looks as a healthy model's never does."""
        certain = sum(self.confidence[CERTAIN_BAND:])
        return self.predictions >= SUSPECT_PREDICTIONS and (
            self.non_finite > 0
            or max(abs(self.least or 0.0), abs(self.greatest or 0.0)) > SUSPECT_LOGIT
            or (self.predictions >= CERTAIN_PREDICTIONS and certain >= CERTAIN_SHARE * self.predictions)
        )

    def document(self, instance: str) -> dict[str, Any]:
        """As the service takes it."""
        return {
            "instance": instance,
            "revision": self.revision,
            "coin": self.coin,
            "first_at": self.first_at.isoformat(),
            "last_at": self.last_at.isoformat(),
            "predictions": self.predictions,
            "non_finite": self.non_finite,
            "shares": dict(zip(CLASSES, self.classes, strict=True)),
            "confidence": {"edges": list(confidence_bands.EDGES), "counts": list(self.confidence)},
            "logits": {"least": self.least, "greatest": self.greatest},
            "out_of_range": self.out_of_range,
        }


class Summaries:
    """The windows that one bot has open, one for each coin and revision. Safe to use from several threads."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], Window] = {}
        self._closed: list[Window] = []
        self._lock = threading.Lock()

    def add(self, revision: int, coin: str, prediction: Prediction, now: datetime) -> None:
        """Count one prediction that was made under this revision."""
        sure = confidence_bands.find_band(max(prediction.probabilities.values()))
        with self._lock:
            window = self._window(revision, coin, now)
            window.classes[CLASSES.index(prediction.direction)] += 1
            window.confidence[sure] += 1
            window.least = _extreme(min, window.least, prediction.logits)
            window.greatest = _extreme(max, window.greatest, prediction.logits)
            if prediction.out_of_range is None or window.out_of_range is None:
                window.out_of_range = None
            else:
                window.out_of_range += prediction.out_of_range
            self._close_if_due(window, now)

    def add_non_finite(self, revision: int, coin: str, now: datetime) -> None:
        """Count an answer that was no number, so that the bot did not act on it."""
        with self._lock:
            window = self._window(revision, coin, now)
            window.non_finite += 1
            self._close_if_due(window, now)

    def take(self, now: datetime) -> list[Window]:
        """The windows that are complete, or have been open for long enough; each is given out once."""
        with self._lock:
            newest = max((revision for revision, _ in self._open), default=0)
            for window in list(self._open.values()):
                self._close_if_due(window, now, is_over=window.revision < newest)
            taken, self._closed = self._closed, []
        return taken

    def _window(self, revision: int, coin: str, now: datetime) -> Window:
        window = self._open.get((revision, coin))
        if window is None:
            window = self._open[revision, coin] = Window(revision, coin, now, now)
        window.last_at = max(window.last_at, now)
        window.predictions += 1
        return window

    def _close_if_due(self, window: Window, now: datetime, *, is_over: bool = False) -> None:
        # Either way: a clock that is set back must not keep a window open for hours.
        is_old = abs(now - window.first_at) >= LONGEST
        if is_over or is_old or window.predictions >= MOST_PREDICTIONS or window.is_suspect:
            del self._open[window.revision, window.coin]
            self._closed = [*self._closed[-MOST_OPEN + 1 :], window]


def _extreme(of: Any, before: float | None, logits: Sequence[float]) -> float:
    found: float = of(logits)
    return found if before is None else of(before, found)
