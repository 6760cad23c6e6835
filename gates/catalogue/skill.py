"""Whether the accuracy is skill: above the naive and near V5, not too good to be true, not the luckiest of many tries."""

from dataclasses import dataclass

from common.formatting import limit, percent, points
from gates.catalogue.figures import Figures, NotMeasured
from gates.catalogue.gate import Gate, Parameters, Threshold
from mlcore.evaluation.bootstrap import compute_student_quantile
from mlcore.verdict import WORST_FIRST, Finding, Verdict

NAIVE = {
    "majority": "always the commonest direction",
    "last_move": "the last move",
    "reversal": "its reversal",
}
"""Forecasters that need no model, each as a sentence names it."""
ALPHA = 0.05
"""How often an interval may miss the truth: 95 % intervals, as the accuracy's own."""
EXACT = 1e-6
NEARLY = 0.01
"""V5 may be compared on a few rows less, where its features begin later."""


@dataclass(frozen=True)
class Lead:
    """By how much more often it is right than another forecaster on the same bars, with the interval of that."""

    over: str
    difference: float
    lower: float
    upper: float

    @property
    def says(self) -> str:
        interval = f"95 % interval {points(self.lower)} to {points(self.upper)}"
        return f"{points(self.difference)} points against {self.over} ({interval})"

    def verdict(self, above: float) -> Verdict:
        if self.lower > above:
            return Verdict.PASSED
        return Verdict.INCONCLUSIVE if self.difference > above else Verdict.FAILED


def judge_skill(figures: Figures, parameters: Parameters) -> Finding:
    """More often right than whoever needs no model, and hardly less often than V5, on the same bars."""
    rows, accuracy = figures.count("skill", "rows"), figures.share("skill", "accuracy")
    _require_blocks(figures, parameters)
    best = figures.text("skill", "best_naive")
    if best not in NAIVE:
        raise NotMeasured(f"the best naive forecaster is called {best[:40]!r}, which this code does not know")
    naive = {name: _lead(figures, EXACT, says, "naive", name) for name, says in NAIVE.items()}
    worst = min(naive.values(), key=lambda lead: lead.lower)
    if naive[best].difference > min(lead.difference for lead in naive.values()) + EXACT:
        raise NotMeasured(
            f"{best.replace('_', ' ')} is named the best naive forecaster, and another is better"
        )
    figures.require_sound("skill")
    baseline = _baseline(figures)
    verdicts = {
        worst.verdict(float(parameters["above_naive"])),
        baseline.verdict(float(parameters["above_v5"])),
    }
    verdict = next(verdict for verdict in WORST_FIRST if verdict in verdicts)
    observed = f"{points(worst.lower)} points or more over {worst.over}, {points(baseline.lower)} over V5"
    sentence = (
        f"{figures.coin} is right in {percent(accuracy)} of {rows:,} bars: {worst.says}, {baseline.says}; "
        f"the intervals must begin above {points(parameters['above_naive'])} and {points(parameters['above_v5'])} points."
    )
    return Finding(verdict, worst.lower, observed, sentence)


def judge_too_good(figures: Figures, parameters: Parameters) -> Finding:
    """Nobody is right that often about a market: a leak until shown otherwise."""
    above, point = float(parameters["above"]), figures.share("accuracy", "point")
    rows = figures.count("accuracy", "rows")
    observed = f"{percent(point, beside=above)} of {rows:,} bars"
    right = f"{figures.coin} is right in {observed}"
    if not rows:
        raise NotMeasured("the accuracy is of no bars at all", 0.0)
    if point > above:
        sentence = f"{right}: more than {limit(above)} is a leak until somebody shows otherwise."
        return Finding(Verdict.INCONCLUSIVE, point, observed, sentence)
    return Finding(Verdict.PASSED, point, observed, f"{right}, which is not too good to be true.")


def judge_attempts(figures: Figures, parameters: Parameters) -> Finding:
    """Right often enough for the best of so many tries: each try on one gate window widens the interval."""
    above, rows = float(parameters["above"]), figures.count("accuracy", "rows")
    point, count = figures.share("accuracy", "point"), _attempt(figures)
    lower = _widened(figures, point, count)
    if count == 1:
        sentence = (
            f"{figures.coin}: the first attempt on this gate window; the accuracy's own interval stands."
        )
        return Finding(Verdict.PASSED, lower, "attempt 1, nothing to widen", sentence)
    reaches = f"{percent(lower, beside=above)}"
    observed = f"attempt {count:,}: {percent(point, beside=above)}, no less than {reaches}"
    tried = f"{figures.coin}: attempt {count:,} on this gate window"
    right = f"right in {percent(point, beside=above)} of {rows:,} bars, an interval widened for it begins at {reaches}"
    if point <= above:
        verdict, ends = Verdict.FAILED, f"more than {limit(above)} is required."
    elif lower <= above:
        verdict, ends = Verdict.INCONCLUSIVE, f"below {limit(above)}, so it may be the luckiest of its tries."
    else:
        verdict, ends = Verdict.PASSED, f"more than {limit(above)} is required."
    return Finding(verdict, lower, observed, f"{tried}, {right}; {ends}")


SKILL_GATES = (
    Gate(
        "skill",
        judge_skill,
        lambda p: (
            f"interval above {points(p['above_naive'])} points over every naive forecaster, "
            f"{points(p['above_v5'])} over V5"
        ),
        (
            Threshold("above_naive", 0.0, -0.05, 0.5, is_looser_when="lower"),
            Threshold("above_v5", -0.02, -0.2, 0.5, is_looser_when="lower"),
            Threshold("least_block_bars", 72, 1, 100_000, is_looser_when="lower", is_whole=True),
        ),
    ),
    Gate(
        "too_good",
        judge_too_good,
        lambda p: f"accuracy of at most {limit(p['above'])}",
        (Threshold("above", 0.85, 0.34, 0.9999, is_looser_when="higher"),),
    ),
    Gate(
        "attempts",
        judge_attempts,
        lambda p: (
            f"lower bound over {limit(p['above'])}, at 5 % for all attempts together, from the second on"
        ),
        (Threshold("above", 0.65, 0.0, 0.9999, is_looser_when="lower"),),
    ),
)


def _require_blocks(figures: Figures, parameters: Parameters) -> None:
    blocks, needed = figures.count("skill", "block_bars"), int(parameters["least_block_bars"])
    if blocks < needed:
        raise NotMeasured(f"the intervals were drawn in blocks of {blocks} bars; {needed} or more are needed")


def _lead(figures: Figures, slack: float, over: str, *path: str) -> Lead:
    """Raises NotMeasured where the figures contradict one another."""
    at = ("skill", *path)
    difference, lower, upper = (
        figures.number(*at, name, least=-1, greatest=1) for name in ("difference", "lower", "upper")
    )
    if not lower <= upper:
        raise NotMeasured(f"the interval against {over} runs from {lower:g} down to {upper:g}")
    between = figures.share("skill", "accuracy") - figures.share(*at, "accuracy")
    if abs(between - difference) > slack:
        raise NotMeasured(f"the difference against {over} is {between:g}, not {difference:g} as stated")
    return Lead(over, difference, lower, upper)


def _baseline(figures: Figures) -> Lead:
    if figures.is_null("skill", "baseline", "digest"):
        why = figures.problem("skill", "baseline") or "no reason given"
        raise NotMeasured(
            f"it could not be compared with V5 ({why}): train a V5 of this coin, or register a fallback, "
            "and measure it again"
        )
    figures.require_sound("skill", "baseline")
    is_itself = figures.text("skill", "baseline", "digest") == figures.text("bundle_digest")
    return _lead(figures, NEARLY, "V5, which is itself" if is_itself else "V5", "baseline")


def _attempt(figures: Figures) -> int:
    """Which try this is on its gate window, this one counted."""
    count, earlier = figures.count("attempts", "count"), figures.names("attempts", "earlier")
    if count < 1 or len(set(earlier)) != count - 1 or figures.text("bundle_digest") in earlier:
        raise NotMeasured(f"this is said to be attempt {count:,}, after {len(set(earlier)):,} others")
    return count


def _widened(figures: Figures, point: float, attempts: int) -> float:
    """The lower bound at ALPHA for all attempts together (Bonferroni), never above the bootstrap's own.

    By Student's t with as many degrees of freedom as the bootstrap had blocks, less one, as the accuracy's own.
    """
    lower, upper = figures.share("accuracy", "lower"), figures.share("accuracy", "upper")
    error = figures.number("accuracy", "standard_error", least=0, greatest=0.5)
    rows, blocks = figures.count("accuracy", "rows"), figures.count("accuracy", "block_bars")
    if not rows or not blocks:
        raise NotMeasured(f"the accuracy is of {rows:,} bars in blocks of {blocks:,}")
    if not lower <= point <= upper:
        raise NotMeasured(f"the accuracy is {point:g}, its interval {lower:g} to {upper:g}")
    freedom = max(rows / blocks, 2) - 1
    # An interval twice as wide as its standard error says belongs to other figures.
    if error < (upper - lower) / (4 * compute_student_quantile(1 - ALPHA / 2, freedom)) or (
        error == 0 and 0 < point < 1
    ):
        raise NotMeasured(
            f"a standard error of {error:g} does not go with an interval of {lower:g} to {upper:g}"
        )
    reach = compute_student_quantile(1 - ALPHA / (2 * attempts), freedom) * error
    return lower if attempts == 1 else max(0.0, min(lower, point - reach))
