"""How a gate's figure stands against what is allowed: what a page draws beside the verdict. It decides nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from common.formatting import limit, points, signed, size
from gates.catalogue.figures import Figures, NotMeasured
from gates.catalogue.skill import NAIVE

Range = tuple[float, float]
Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Meter:
    """A scale of 0…100: the allowed band, what was measured, and between which ends that is uncertain or spread."""

    band: Range
    marks: tuple[float, ...]
    span: Range | None = None

    @property
    def band_width(self) -> float:
        return self.band[1] - self.band[0]

    @property
    def span_width(self) -> float:
        return self.span[1] - self.span[0] if self.span else 0.0


@dataclass(frozen=True)
class Reading:
    """A gate's figures in a few characters, where there is room for no more."""

    brief: str
    detail: str = ""
    meter: Meter | None = None


def reading(gate: str, measured: Mapping[str, Any], policy: Mapping[str, Any]) -> Reading | None:
    """None for a gate this page cannot draw, and for one that lacks a figure: its own words say so then."""
    read = _READERS.get(gate)
    parameters = policy.get("gates", {}).get(gate)
    if read is None or not isinstance(parameters, Mapping):
        return None
    try:
        return read(Figures(measured), parameters)
    except (NotMeasured, AttributeError, KeyError, TypeError, ValueError):
        return None


def _accuracy(figures: Figures, parameters: Parameters) -> Reading:
    point, above = figures.share("accuracy", "point"), float(parameters["above"])
    lower, upper = figures.share("accuracy", "lower"), figures.share("accuracy", "upper")
    meter = Meter((100 * above, 100.0), (100 * point,), (100 * lower, 100 * upper))
    return Reading(f"{100 * point:.1f} %", f"{100 * lower:.1f} – {100 * upper:.1f} %", meter)


def _class_balance(figures: Figures, parameters: Parameters) -> Reading:
    shares = [100 * figures.share("shares", direction) for direction in ("down", "neutral", "up")]
    meter = Meter((100 * float(parameters["least"]), 100 * float(parameters["most"])), tuple(shares))
    return Reading(" · ".join(f"{share:.0f}" for share in shares) + " %", "down · neutral · up", meter)


def _confidence(figures: Figures, parameters: Parameters) -> Reading:
    level = float(parameters["level"])
    shares = figures.section("confidence", "shares_over")
    key = next(text for text in shares if float(text) == level)
    share = 100 * figures.share("confidence", "shares_over", key)
    return Reading(
        f"{share:.1f} %",
        f"over {limit(level)} sure",
        Meter((0.0, 100 * float(parameters["share_below"])), (share,)),
    )


def _logit_range(figures: Figures, parameters: Parameters) -> Reading:
    """The scale reaches half as far again as is allowed; what lies beyond stands at its end."""
    floor, ceiling = float(parameters["least"]), float(parameters["greatest"])
    least, greatest = figures.number("logits", "least"), figures.number("logits", "greatest")

    def place(value: float) -> float:
        bottom, top = 1.5 * floor, 1.5 * ceiling
        return max(0.0, min(100.0, 100 * (value - bottom) / (top - bottom)))

    ends = (place(least), place(greatest))
    return Reading(
        f"{signed(least)} … {signed(greatest)}", "", Meter((place(floor), place(ceiling)), ends, ends)
    )


def _single_sample(figures: Figures, parameters: Parameters) -> Reading:
    difference = figures.number("single_sample", "largest_difference", least=0)
    text = f"{difference:.0e} apart" if difference else "equal"
    return Reading(text, "one row against the batch")


def _skill(figures: Figures, parameters: Parameters) -> Reading:
    """Ahead of the naive forecaster that it leads by least; the scale reaches ten points either way."""
    naive = figures.section("skill", "naive")
    least = min(naive, key=lambda name: figures.number("skill", "naive", name, "lower"))
    difference, lower, upper = (
        figures.number("skill", "naive", least, name) for name in ("difference", "lower", "upper")
    )

    def place(value: float) -> float:
        return max(0.0, min(100.0, 50 + 500 * value))

    meter = Meter(
        (place(float(parameters["above_naive"])), 100.0), (place(difference),), (place(lower), place(upper))
    )
    return Reading(
        f"{points(difference)} pts", f"{points(lower)} to {points(upper)} over {NAIVE[least]}", meter
    )


def _too_good(figures: Figures, parameters: Parameters) -> Reading:
    return Reading(f"{100 * figures.share('accuracy', 'point'):.1f} %")


def _attempts(figures: Figures, parameters: Parameters) -> Reading:
    return Reading(f"attempt {figures.count('attempts', 'count'):,}", "on this gate window")


def _calibration(figures: Figures, parameters: Parameters) -> Reading:
    error = figures.share("calibration", "ece")
    return Reading(f"{size(error)} points off", f"Brier score {figures.number('calibration', 'brier'):.3f}")


def _stability(figures: Figures, parameters: Parameters) -> Reading:
    parts = figures.section("stability")
    stretches = [*parts["months"], *parts["volatility"]]
    worst = min(stretches, key=lambda part: float(part["accuracy"]))
    name = worst.get("month") or worst.get("tercile")
    return Reading(f"{100 * worst['accuracy']:.1f} % at worst", f"in {name}, {worst['rows']:,} bars")


def _latency(figures: Figures, parameters: Parameters) -> Reading:
    return Reading(f"{figures.number('latency', 'p99_ms'):.3g} ms", "for 99 of 100 rows")


def _drift(figures: Figures, parameters: Parameters) -> Reading:
    largest = figures.number("drift", "largest", "psi")
    return Reading(
        f"{100 * figures.share('drift', 'over'):.0f} % of features",
        f"most {figures.text('drift', 'largest', 'name')}, PSI {largest:.2f}",
    )


_READERS: Mapping[str, Callable[[Figures, Parameters], Reading]] = {
    "accuracy": _accuracy,
    "attempts": _attempts,
    "calibration": _calibration,
    "class_balance": _class_balance,
    "confidence": _confidence,
    "drift": _drift,
    "latency": _latency,
    "logit_range": _logit_range,
    "single_sample": _single_sample,
    "skill": _skill,
    "stability": _stability,
    "too_good": _too_good,
}
