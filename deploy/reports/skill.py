"""The skill of a release: accuracy with its interval, compared with naive forecasters and with the fallback."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.formatting import format_limit, format_percent
from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured

NAIVE = {
    "majority": "always the most frequent direction",
    "last_move": "the last move again",
    "reversal": "the reversal of the last move",
}


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; without it where none was measured."""

    point: float
    lower: float | None = None
    upper: float | None = None


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
    """The difference from the fallback on the same bars; None for the fallback itself."""
    is_baseline: bool
    """Whether this bundle is itself the one that others are compared with."""
    sentence: str


def describe_skill(coin: str, document: Mapping[str, Any], policy: Mapping[str, Any]) -> Skill:
    """From the measurement of one coin. A measurement without differences still gives its accuracy."""
    measurement = MeasurementReader(document, coin)
    accuracy = _read_accuracy(measurement)
    naive, naive_accuracy = _find_best_naive(measurement)
    difference = _read_difference(measurement, "naive", naive) if naive else None
    required = _read_required(policy)
    is_baseline = _is_baseline(measurement)
    skill = Skill(
        coin=coin,
        rows=_read_count(measurement, "accuracy", "rows"),
        accuracy=accuracy,
        required=required,
        naive=naive,
        naive_accuracy=naive_accuracy,
        difference=difference,
        baseline=None if is_baseline else _read_difference(measurement, "baseline"),
        is_baseline=is_baseline,
        sentence="",
    )
    return Skill(**{**vars(skill), "sentence": " ".join(_list_sentences(skill))})


def _list_sentences(skill: Skill) -> list[str]:
    if skill.accuracy is None:
        return [f"{skill.coin}'s accuracy was not measured, so its skill is not known."]
    return [
        _describe_accuracy(skill),
        *_compare_with_naive(skill),
        *_compare_with_baseline(skill),
        *_compare_with_required(skill),
    ]


def _describe_accuracy(skill: Skill) -> str:
    assert skill.accuracy is not None
    rows = f" of {skill.rows:,} bars" if skill.rows else ""
    return f"{skill.coin} is right in {format_percent(skill.accuracy.point)}{rows}{_format_interval(skill.accuracy)}."


def _compare_with_naive(skill: Skill) -> list[str]:
    if skill.naive is None or skill.naive_accuracy is None:
        return []
    forecaster = NAIVE.get(skill.naive, skill.naive).capitalize()
    head = f"{forecaster} is right in {format_percent(skill.naive_accuracy)}"
    if skill.difference is None or skill.difference.lower is None or skill.difference.upper is None:
        return [f"{head}; the confidence in the difference was not measured."]
    points = _format_points(skill.difference)
    if skill.difference.lower > 0:
        return [f"{head}: {points} better, so there is skill beyond luck."]
    if skill.difference.upper < 0:
        return [f"{head}: {points}, so it is worse than a naive forecaster."]
    return [f"{head}: {points}, an interval that contains 0, so no skill is shown."]


def _compare_with_baseline(skill: Skill) -> list[str]:
    if skill.is_baseline:
        return ["It is v5 itself, with which the others are compared."]
    if skill.baseline is None or skill.baseline.lower is None:
        return []
    return [f"Against v5 on the same bars it is {_format_points(skill.baseline)}."]


def _compare_with_required(skill: Skill) -> list[str]:
    assert skill.accuracy is not None
    if skill.required is None:
        return []
    reached = skill.accuracy.lower if skill.accuracy.lower is not None else skill.accuracy.point
    short = 100 * (skill.required - reached)
    if short < 0:
        return [f"More than {format_limit(skill.required)} is required, and its lower bound is above that."]
    if skill.accuracy.point > skill.required:
        return [
            f"More than {format_limit(skill.required)} is required: its accuracy is above that, but its lower bound is "
            f"{short:.1f} points short, so luck may explain it."
        ]
    return [
        f"It is not enough: more than {format_limit(skill.required)} is required, {short:.1f} points above its lower bound."
    ]


def _format_points(interval: Interval) -> str:
    """ "+4.1 points (+2.0 … +6.2)"."""
    assert interval.lower is not None and interval.upper is not None
    return f"{_format_signed(interval.point)} points ({_format_signed(interval.lower)} … {_format_signed(interval.upper)})"


def _format_signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _format_interval(interval: Interval) -> str:
    if interval.lower is None or interval.upper is None:
        return ""
    return f" (95 % interval {format_percent(interval.lower)} – {format_percent(interval.upper)})"


def _read_accuracy(measurement: MeasurementReader) -> Interval | None:
    point = _read_number(measurement, "accuracy", "point")
    if point is None:
        return None
    return Interval(
        point, _read_number(measurement, "accuracy", "lower"), _read_number(measurement, "accuracy", "upper")
    )


def _find_best_naive(measurement: MeasurementReader) -> tuple[str | None, float | None]:
    """Its name and accuracy: from the skill section, else the better of the two that were counted."""
    named = {name: _read_number(measurement, "skill", "naive", name, "accuracy") for name in NAIVE}
    counted = {name: _read_number(measurement, "accuracy", name) for name in ("majority", "last_move")}
    known = {
        name: value
        for name, value in (named if any(named.values()) else counted).items()
        if value is not None
    }
    best = max(known, key=lambda name: known[name], default=None)
    return best, known[best] if best else None


def _read_difference(measurement: MeasurementReader, *path: str) -> Interval | None:
    point = _read_number(measurement, "skill", *path, "difference")
    lower, upper = (_read_number(measurement, "skill", *path, end) for end in ("lower", "upper"))
    return None if point is None else Interval(point, lower, upper)


def _is_baseline(measurement: MeasurementReader) -> bool:
    try:
        return measurement.text("skill", "baseline", "digest") == measurement.text("bundle_digest")
    except NotMeasured:
        return False


def _read_required(policy: Mapping[str, Any]) -> float | None:
    above = policy.get("gates", {}).get("accuracy", {}).get("above")
    return float(above) if isinstance(above, int | float) and not isinstance(above, bool) else None


def _read_count(measurement: MeasurementReader, *path: str) -> int | None:
    number = _read_number(measurement, *path)
    return None if number is None else int(number)


def _read_number(measurement: MeasurementReader, *path: str) -> float | None:
    try:
        return measurement.number(*path)
    except NotMeasured:
        return None
