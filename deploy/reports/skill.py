"""What a release knows of the market, said honestly: with intervals, against who does not think, and what is missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.formatting import format_limit, format_percent
from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured

NAIVE = {
    "majority": "always saying the commonest direction",
    "last_move": "saying the last move again",
    "reversal": "saying the last move back",
}


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its 95 % interval; without them where none was drawn."""

    point: float
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Skill:
    """One coin's skill; what was not measured is None."""

    coin: str
    rows: int | None
    accuracy: Interval | None
    required: float | None
    naive: str | None
    naive_accuracy: float | None
    difference: Interval | None
    """To the best naive forecaster."""
    baseline: Interval | None
    """The difference to the fallback on the same bars; None for the fallback itself."""
    is_baseline: bool
    """Whether this is the very bundle it would be held against."""
    sentence: str


def describe_skill(coin: str, document: Mapping[str, Any], policy: Mapping[str, Any]) -> Skill:
    """Reads; a document of an older measuring, which drew no differences, still tells its accuracy."""
    measurement = MeasurementReader(document, coin)
    accuracy = _accuracy(measurement)
    naive, naive_accuracy = _best_naive(measurement)
    difference = _difference(measurement, "naive", naive) if naive else None
    required = _required(policy)
    is_baseline = _is_baseline(measurement)
    skill = Skill(
        coin=coin,
        rows=_count(measurement, "accuracy", "rows"),
        accuracy=accuracy,
        required=required,
        naive=naive,
        naive_accuracy=naive_accuracy,
        difference=difference,
        baseline=None if is_baseline else _difference(measurement, "baseline"),
        is_baseline=is_baseline,
        sentence="",
    )
    return Skill(**{**vars(skill), "sentence": " ".join(_sentences(skill))})


def _sentences(skill: Skill) -> list[str]:
    if skill.accuracy is None:
        return [f"{skill.coin}'s accuracy was not measured: nothing is known of its skill."]
    return [_right(skill), *_against_naive(skill), *_against_baseline(skill), *_enough(skill)]


def _right(skill: Skill) -> str:
    assert skill.accuracy is not None
    rows = f" of {skill.rows:,} bars" if skill.rows else ""
    return (
        f"{skill.coin} is right in {format_percent(skill.accuracy.point)}{rows}{_interval(skill.accuracy)}."
    )


def _against_naive(skill: Skill) -> list[str]:
    if skill.naive is None or skill.naive_accuracy is None:
        return []
    says = NAIVE.get(skill.naive, skill.naive).capitalize()
    head = f"{says} is right in {format_percent(skill.naive_accuracy)}"
    if skill.difference is None or skill.difference.lower is None or skill.difference.upper is None:
        return [f"{head}; how sure the difference is was not measured."]
    points = _points(skill.difference)
    if skill.difference.lower > 0:
        return [f"{head}: {points} better, so there is some skill, and it is not luck."]
    if skill.difference.upper < 0:
        return [f"{head}: {points}, so it is worse than not thinking."]
    return [f"{head}: {points}, an interval that holds 0, so no skill is shown."]


def _against_baseline(skill: Skill) -> list[str]:
    if skill.is_baseline:
        return ["It is v5 itself, which the others are held against."]
    if skill.baseline is None or skill.baseline.lower is None:
        return []
    return [f"Against v5 on the same bars it is {_points(skill.baseline)}."]


def _enough(skill: Skill) -> list[str]:
    assert skill.accuracy is not None
    if skill.required is None:
        return []
    reached = skill.accuracy.lower if skill.accuracy.lower is not None else skill.accuracy.point
    short = 100 * (skill.required - reached)
    if short < 0:
        return [f"More than {format_limit(skill.required)} is required, and its lower bound clears that."]
    if skill.accuracy.point > skill.required:
        return [
            f"More than {format_limit(skill.required)} is required: it shows that much, but its lower bound is "
            f"{short:.1f} points short, so luck may explain it."
        ]
    return [
        f"It is not enough: more than {format_limit(skill.required)} is required, {short:.1f} points above its lower bound."
    ]


def _points(found: Interval) -> str:
    """ "+4.1 points (+2.0 … +6.2)"."""
    assert found.lower is not None and found.upper is not None
    return f"{_signed(found.point)} points ({_signed(found.lower)} … {_signed(found.upper)})"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _interval(found: Interval) -> str:
    if found.lower is None or found.upper is None:
        return ""
    return f" (95 % interval {format_percent(found.lower)} – {format_percent(found.upper)})"


def _accuracy(measurement: MeasurementReader) -> Interval | None:
    point = _number(measurement, "accuracy", "point")
    if point is None:
        return None
    return Interval(
        point, _number(measurement, "accuracy", "lower"), _number(measurement, "accuracy", "upper")
    )


def _best_naive(measurement: MeasurementReader) -> tuple[str | None, float | None]:
    """By name, with its accuracy: the one that a skill section names, else the better of the two that were counted."""
    named = {name: _number(measurement, "skill", "naive", name, "accuracy") for name in NAIVE}
    counted = {name: _number(measurement, "accuracy", name) for name in ("majority", "last_move")}
    known = {
        name: value
        for name, value in (named if any(named.values()) else counted).items()
        if value is not None
    }
    best = max(known, key=lambda name: known[name], default=None)
    return best, known[best] if best else None


def _difference(measurement: MeasurementReader, *path: str) -> Interval | None:
    point = _number(measurement, "skill", *path, "difference")
    lower, upper = (_number(measurement, "skill", *path, end) for end in ("lower", "upper"))
    return None if point is None else Interval(point, lower, upper)


def _is_baseline(measurement: MeasurementReader) -> bool:
    try:
        return measurement.text("skill", "baseline", "digest") == measurement.text("bundle_digest")
    except NotMeasured:
        return False


def _required(policy: Mapping[str, Any]) -> float | None:
    above = policy.get("gates", {}).get("accuracy", {}).get("above")
    return float(above) if isinstance(above, int | float) and not isinstance(above, bool) else None


def _count(measurement: MeasurementReader, *path: str) -> int | None:
    found = _number(measurement, *path)
    return None if found is None else int(found)


def _number(measurement: MeasurementReader, *path: str) -> float | None:
    try:
        return measurement.number(*path)
    except NotMeasured:
        return None
