"""The result of one check of candles: its name, its threshold in words, and its finding."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlcore.quality.market_statistics import DAY, HOUR
from mlcore.verdict import WORST_FIRST, Finding, Verdict


@dataclass(frozen=True)
class Check:
    """The result of one check on one series, in the same form as a gate's result."""

    name: str
    threshold: str
    finding: Finding
    compared_with: int | None = None
    """The number of the dataset that the series was compared with, if there was one."""

    def document(self) -> dict[str, Any]:
        """JSON values. A figure that is not finite is null; `observed` still says what it was."""
        figure = self.finding.figure
        document = {
            "check": self.name,
            "verdict": str(self.finding.verdict),
            "figure": float(figure) if figure is not None and math.isfinite(figure) else None,
            "observed": self.finding.observed,
            "threshold": self.threshold,
            "sentence": self.finding.sentence,
        }
        return document if self.compared_with is None else {**document, "compared_with": self.compared_with}


@dataclass(frozen=True)
class CandleReport:
    """The results of all checks on one series, and the data of its plots."""

    checks: tuple[Check, ...]
    plots: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        return next(v for v in WORST_FIRST if any(check.finding.verdict == v for check in self.checks))

    def document(self) -> dict[str, Any]:
        """Ready for canonical JSON: no figure in it is NaN or infinite."""
        return {"checks": [check.document() for check in self.checks], "plots": self.plots}


def pass_or_fail(
    name: str,
    threshold: str,
    figure: float | None,
    observed: str,
    *,
    passed: str,
    failed: str,
    is_passed: bool,
    otherwise: Verdict = Verdict.FAILED,
    compared_with: int | None = None,
) -> Check:
    """A check with the sentence `passed`, or one with the verdict `otherwise` and the sentence `failed`."""
    verdict, sentence = (Verdict.PASSED, passed) if is_passed else (otherwise, failed)
    return Check(name, threshold, Finding(verdict, figure, observed, sentence), compared_with)


@dataclass(frozen=True)
class RangeCheck:
    """`low` ≤ figure ≤ `high`; None leaves that side open."""

    name: str
    low: float | None
    high: float | None
    template: str
    """Formats a value: "{:.2f}"."""
    passed: str
    failed: str

    def judge(self, value: float, whole: float | None = None) -> Check:
        """`value` is that of the worst stretch if `whole`, that of the whole series, is given too."""
        bounds = [self.template.format(bound) for bound in (self.low, self.high) if bound is not None]
        sign = "≤" if self.low is None else "≥"
        threshold = " … ".join(bounds) if len(bounds) == 2 else f"{sign} {bounds[0]}"
        if not math.isfinite(value):
            sentence = "It cannot be measured on this series: nothing moves in it."
            return Check(self.name, threshold, Finding(Verdict.ERROR, value, str(value), sentence))
        low, high = -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high
        observed = self.template.format(value)
        if whole is not None:
            observed += f" at worst, {self.template.format(whole)} over all"
        return pass_or_fail(
            self.name, threshold, value, observed,
            passed=self.passed, failed=self.failed, is_passed=low <= value <= high,
        )  # fmt: skip


def furthest_outside(
    values: list[float], low: float, high: float, scale: Callable[[float], float] = float
) -> float:
    """The value furthest outside `low` … `high`, measured on the scale; one that is not finite comes first."""
    return max(values, key=lambda value: compute_excess(scale(value), scale(low), scale(high)))


def compute_excess(value: float, low: float, high: float) -> float:
    """The distance from the middle in half widths: below 1 inside, 1 at the border, infinite for NaN."""
    return abs(value - (low + high) / 2) / ((high - low) / 2) if math.isfinite(value) else math.inf


_TOO_SHORT = "The series is too short for this check; the other checks decide."


def skip_check(name: str, threshold: str, observed: str, reason: str = _TOO_SHORT) -> Check:
    """Passed, because there is nothing to check."""
    return Check(name, threshold, Finding(Verdict.PASSED, None, observed, reason))


def format_interval(seconds: int) -> str:
    """ "4 hours", or "90 s" if no whole unit fits."""
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (60, "minute")):
        if seconds and seconds % unit == 0:
            count = seconds // unit
            return f"{count} {name}s" if count > 1 else f"1 {name}"
    return f"{seconds} s"
