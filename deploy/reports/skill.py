"""The skill of a release: accuracy with its interval, compared with naive forecasters and with V5."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from common.formatting import format_limit, format_percent, format_points
from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured
from mlcore.constants import NAIVE_FORECASTERS

T = TypeVar("T")
_NAIVE_NAMES = {
    "majority": "Always the most frequent direction",
    "last_move": "The last move again",
    "reversal": "The reversal of the last move",
}


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; without it where none was measured."""

    point: float
    lower: float | None = None
    upper: float | None = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        return None if self.lower is None or self.upper is None else (self.lower, self.upper)

    @property
    def points(self) -> str:
        """ "+4.1 points (+2.0 … +6.2)"."""
        lower, upper = map(format_points, self.bounds or (self.point, self.point))
        return f"{format_points(self.point)} points ({lower} … {upper})"


@dataclass(frozen=True)
class Skill:
    """The skill of one coin; what was not measured is None."""

    coin: str
    rows: int | None
    accuracy: Interval | None
    required: float | None
    naive: str | None
    naive_accuracy: float | None
    difference: Interval | None
    """From the best naive forecaster."""
    baseline: Interval | None
    """The difference from a V5 of the same candles and windows, on the same bars; None for that V5 itself."""
    is_baseline: bool
    """Whether this bundle is itself that V5."""

    @property
    def sentence(self) -> str:
        if self.accuracy is None:
            return f"{self.coin}'s accuracy was not measured, so its skill is not known."
        sentences = (
            self._describe_accuracy(self.accuracy),
            self._compare_with_naive(),
            self._compare_with_baseline(),
            self._compare_with_required(self.accuracy),
        )
        return " ".join(filter(None, sentences))

    def _describe_accuracy(self, accuracy: Interval) -> str:
        rows = f" of {self.rows:,} bars" if self.rows else ""
        interval = " – ".join(map(format_percent, accuracy.bounds or ()))
        within = f" (95 % interval {interval})" if interval else ""
        return f"{self.coin} is right in {format_percent(accuracy.point)}{rows}{within}."

    def _compare_with_naive(self) -> str:
        if self.naive is None or self.naive_accuracy is None:
            return ""
        head = f"{_NAIVE_NAMES[self.naive]} is right in {format_percent(self.naive_accuracy)}"
        if self.difference is None or self.difference.bounds is None:
            return f"{head}; the confidence in the difference was not measured."
        (lower, upper), points = self.difference.bounds, self.difference.points
        if lower > 0:
            return f"{head}: {points} better, so there is skill beyond luck."
        if upper < 0:
            return f"{head}: {points}, so it is worse than a naive forecaster."
        return f"{head}: {points}, an interval that contains 0, so no skill is shown."

    def _compare_with_baseline(self) -> str:
        if self.is_baseline:
            return "It is v5 itself, with which the others are compared."
        if self.baseline is None or self.baseline.bounds is None:
            return ""
        return f"Against v5 on the same bars it is {self.baseline.points}."

    def _compare_with_required(self, accuracy: Interval) -> str:
        if self.required is None:
            return ""
        short = 100 * (self.required - (accuracy.point if accuracy.lower is None else accuracy.lower))
        required = f"more than {format_limit(self.required)} is required"
        if short < 0:
            return f"{required.capitalize()}, and its lower bound is above that."
        if accuracy.point > self.required:
            return (
                f"{required.capitalize()}: its accuracy is above that, but its lower bound is {short:.1f} points short,"
                " so luck may explain it."
            )
        return f"It is not enough: {required}, {short:.1f} points above its lower bound."


def describe_skill(coin: str, document: Mapping[str, Any], policy: Mapping[str, Any]) -> Skill:
    """From the measurement of one coin. A measurement without differences still gives its accuracy."""
    measurement = MeasurementReader(document, coin)
    naive, naive_accuracy = _find_best_naive(measurement)
    is_baseline = _read(measurement.flag, "skill", "baseline", "is_itself") is True
    return Skill(
        coin=coin,
        rows=_read(measurement.count, "accuracy", "rows"),
        accuracy=_read_interval(measurement, "point", "accuracy"),
        required=policy.get("gates", {}).get("accuracy", {}).get("above"),
        naive=naive,
        naive_accuracy=naive_accuracy,
        difference=_read_interval(measurement, "difference", "skill", "naive", naive) if naive else None,
        baseline=None if is_baseline else _read_interval(measurement, "difference", "skill", "baseline"),
        is_baseline=is_baseline,
    )


def _find_best_naive(measurement: MeasurementReader) -> tuple[str | None, float | None]:
    """Its name and accuracy: from the skill section, else the better of the two that were counted."""
    read = measurement.number
    named = {name: _read(read, "skill", "naive", name, "accuracy") for name in NAIVE_FORECASTERS}
    if not any(named.values()):
        named = {name: _read(read, "accuracy", name) for name in ("majority", "last_move")}
    known = {name: value for name, value in named.items() if value is not None}
    best = max(known, key=lambda name: known[name], default=None)
    return best, known[best] if best else None


def _read_interval(measurement: MeasurementReader, point: str, *path: str) -> Interval | None:
    figure, lower, upper = (_read(measurement.number, *path, name) for name in (point, "lower", "upper"))
    return None if figure is None else Interval(figure, lower, upper)


def _read(read: Callable[..., T], *path: str) -> T | None:
    try:
        return read(*path)
    except NotMeasured:
        return None
