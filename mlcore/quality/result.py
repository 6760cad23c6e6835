"""One check of candles: its name, its threshold in words, and what it found."""

import math
from dataclasses import dataclass
from typing import Any

from mlcore.quality.market_statistics import DAY, HOUR
from mlcore.verdict import Finding, Verdict


@dataclass(frozen=True)
class Check:
    """One check's word on one series, in the form of a gate's result."""

    check: str
    threshold: str
    finding: Finding
    beside: int | None = None
    """The number of the dataset that it was compared with, where it was with one."""

    def document(self) -> dict[str, Any]:
        """Ready for JSON: a figure that is no finite number is null, its word stands in `observed`."""
        figure = self.finding.figure
        beside = {} if self.beside is None else {"compared_with": self.beside}
        return {
            "check": self.check,
            "verdict": str(self.finding.verdict),
            "figure": float(figure) if figure is not None and math.isfinite(figure) else None,
            "observed": self.finding.observed,
            "threshold": self.threshold,
            "sentence": self.finding.sentence,
            **beside,
        }


def pass_or_fail(is_sound: bool, figure: float | None, observed: str, sound: str, unsound: str) -> Finding:
    """Passed with one sentence, or failed with the other."""
    verdict = Verdict.PASSED if is_sound else Verdict.FAILED
    return Finding(verdict, figure, observed, sound if is_sound else unsound)


def check_no_rows(check: str, count: int, be: str, sound: str) -> Check:
    """Of what no row may be, every one counts."""
    rows = "row" if count == 1 else "rows"
    unsound = f"{count:,} {rows} {be}: the file is damaged, or was put together wrongly."
    return Check(check, f"no row {be}", pass_or_fail(count == 0, count, f"{count:,} {rows}", sound, unsound))


def check_range(
    check: str,
    value: float,
    low: float | None,
    high: float | None,
    form: str,
    sound: str,
    unsound: str,
    *,
    whole: float | None = None,
) -> Check:
    """`low` ≤ value ≤ `high`, either of which may be open. A value that is no number is an error.

    `value` is of the worst stretch where `whole`, that of the series, is told beside it.
    """
    bounds = [form.format(bound) for bound in (low, high) if bound is not None]
    threshold = " … ".join(bounds) if len(bounds) == 2 else f"{'≤' if low is None else '≥'} {bounds[0]}"
    if not math.isfinite(value):
        says = "It cannot be measured on this series: nothing moves in it."
        return Check(check, threshold, Finding(Verdict.ERROR, value, str(value), says))
    is_within = (low is None or low <= value) and (high is None or value <= high)
    observed = form.format(value)
    if whole is not None:
        observed += f" at worst, {form.format(whole)} over all"
    return Check(check, threshold, pass_or_fail(is_within, value, observed, sound, unsound))


def skip_check(check: str, threshold: str, observed: str) -> Check:
    """Passed, where a series is too short for this question."""
    says = "Too short a time to ask; the other checks decide."
    return Check(check, threshold, Finding(Verdict.PASSED, None, observed, says))


def format_interval(seconds: int) -> str:
    """ "4 hours", or "90 s" where no whole unit says it."""
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (60, "minute")):
        if seconds and seconds % unit == 0:
            count = seconds // unit
            return f"{count} {name}s" if count > 1 else f"1 {name}"
    return f"{seconds} s"
