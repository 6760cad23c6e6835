"""Whether the accuracy is skill: above naive forecasters and near V5, and not the best of many attempts by chance."""

from dataclasses import dataclass

from common.formatting import format_limit, format_percent, format_points
from gates.catalogue.baseline import BLOCK_HELP, require_blocks
from gates.catalogue.gate import Group, Meter, Parameters, Reading, Threshold, scale
from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured
from mlcore.evaluation.bootstrap import compute_student_quantile
from mlcore.verdict import WORST_FIRST, Finding, Verdict

NAIVE = {
    "majority": "the majority class",
    "last_move": "persistence",
    "reversal": "reversal",
}
"""Forecasters that need no model: the most frequent class, the class of the last move, and its opposite."""
ALPHA = 0.05
"""How often an interval may miss the truth: 95 % intervals, as the accuracy's own."""
EXACT = 1e-6
CHAIN_LENGTH = 64
"""Hexadecimal digits of the hash over the attempts."""
NEARLY = 0.01
"""V5 may be compared on a few rows less, where its features begin later."""


@dataclass(frozen=True)
class Lead:
    """The difference in accuracy to another forecaster on the same bars, with its interval."""

    over: str
    difference: float
    lower: float
    upper: float

    @property
    def text(self) -> str:
        interval = f"95 % interval {format_points(self.lower)} to {format_points(self.upper)}"
        return f"{format_points(self.difference)} points against {self.over} ({interval})"

    def get_verdict(self, above: float) -> Verdict:
        if self.lower > above:
            return Verdict.PASSED
        return Verdict.INCONCLUSIVE if self.difference > above else Verdict.FAILED


SKILL = Group(
    "Skill",
    "more accurate than naive forecasters, not too good to be true, not the best of many attempts by chance",
)


def read_skill(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    """Against the naive forecaster with the least lead; the meter reaches ten points either way."""
    naive = measurement.section("skill", "naive")
    name = min(naive, key=lambda name: measurement.number("skill", "naive", name, "lower"))
    difference, lower, upper = (
        measurement.number("skill", "naive", name, end) for end in ("difference", "lower", "upper")
    )
    required, mark, left, right = (
        scale(value, -0.1, 0.1) for value in (float(parameters["above_naive"]), difference, lower, upper)
    )
    detail = f"{format_points(lower)} to {format_points(upper)} over {NAIVE[name]}"
    return Reading(
        f"{format_points(difference)} pts", detail, Meter((required, 100.0), (mark,), (left, right))
    )


@SKILL.register(
    "skill",
    lambda p: (
        f"interval above {format_points(p['above_naive'])} points over every naive forecaster, "
        f"{format_points(p['above_v5'])} over V5"
    ),
    Threshold(
        "above_naive", 0.0, -0.05, 0.5, "lower", "The interval must begin above this; 0.01 is a point."
    ),
    Threshold(
        "above_v5",
        -0.02,
        -0.2,
        0.5,
        "lower",
        "The same over a V5 fitted on the same candles and windows; −0.02 allows two points less.",
    ),
    Threshold("least_block_bars", 72, 1, 100_000, "lower", BLOCK_HELP),
    read=read_skill,
)
def judge_skill(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """More accurate than forecasters without a model, and hardly less accurate than V5 on its own candles and windows."""
    rows, accuracy = measurement.count("skill", "rows"), measurement.share("skill", "accuracy")
    require_blocks(measurement, parameters, "skill")
    best = measurement.text("skill", "best_naive")
    if best not in NAIVE:
        raise NotMeasured(f"the best naive forecaster is {best[:40]!r}, which this version does not know")
    naive = {
        name: read_lead(measurement, EXACT, text, "skill", "naive", name) for name, text in NAIVE.items()
    }
    worst = min(naive.values(), key=lambda lead: lead.lower)
    if naive[best].difference > min(lead.difference for lead in naive.values()) + EXACT:
        raise NotMeasured(f"{NAIVE[best]} is named the best naive forecaster, and another is better")
    measurement.require_no_problem("skill")
    v5 = _read_lead_over_v5(measurement)
    verdicts = {
        worst.get_verdict(float(parameters["above_naive"])),
        v5.get_verdict(float(parameters["above_v5"])),
    }
    verdict = next(verdict for verdict in WORST_FIRST if verdict in verdicts)
    observed = (
        f"at least {format_points(worst.lower)} points over {worst.over}, {format_points(v5.lower)} over V5"
    )
    sentence = (
        f"{measurement.coin}'s accuracy is {format_percent(accuracy)} of {rows:,} bars: {worst.text}, {v5.text}; the "
        f"intervals "
        f"must begin above {format_points(parameters['above_naive'])} and {format_points(parameters['above_v5'])} points."
    )
    return Finding(verdict, worst.lower, observed, sentence)


def read_too_good(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    return Reading(f"{100 * measurement.share('accuracy', 'point'):.1f} %")


@SKILL.register(
    "too_good",
    lambda p: f"accuracy of at most {format_limit(p['above'])}",
    Threshold("above", 0.85, 0.34, 0.9999, "higher", "A higher accuracy is a leak until shown otherwise."),
    read=read_too_good,
)
def judge_too_good(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """No accuracy beyond what markets allow, which is a leak until shown otherwise."""
    above, point = float(parameters["above"]), measurement.share("accuracy", "point")
    rows = measurement.count("accuracy", "rows")
    observed = f"{format_percent(point, beside=above)} of {rows:,} bars"
    start = f"{measurement.coin}'s accuracy is {observed}"
    if not rows:
        raise NotMeasured("the accuracy is of no bars at all", 0.0)
    if point > above:
        sentence = f"{start}: more than {format_limit(above)} is a leak until somebody shows otherwise."
        return Finding(Verdict.INCONCLUSIVE, point, observed, sentence)
    return Finding(Verdict.PASSED, point, observed, f"{start}, which is not too good to be true.")


def read_attempts(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    return Reading(f"attempt {measurement.count('attempts', 'count'):,}", "on this gate window")


@SKILL.register(
    "attempts",
    lambda p: (
        f"lower bound over {format_limit(p['above'])}, at 5 % for all attempts together, from the second on"
    ),
    Threshold("above", 0.65, 0.0, 0.9999, "lower", "The widened interval must begin above this."),
    read=read_attempts,
)
def judge_attempts(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """Accurate enough for the best of its attempts: each attempt on one gate window widens the interval."""
    above, rows = float(parameters["above"]), measurement.count("accuracy", "rows")
    point, count = measurement.share("accuracy", "point"), read_attempt(measurement)
    lower = _get_widened_bound(measurement, point, count)
    if count == 1:
        sentence = f"{measurement.coin}: the first attempt on this gate window; the interval is not widened."
        return Finding(Verdict.PASSED, lower, "attempt 1, not widened", sentence)
    texts = format_percent(point, beside=above), format_percent(lower, beside=above)
    observed = f"attempt {count:,}: accuracy {texts[0]}, at least {texts[1]}"
    if point <= above:
        verdict, end = Verdict.FAILED, f"more than {format_limit(above)} is required."
    elif lower <= above:
        verdict, end = (
            Verdict.INCONCLUSIVE,
            f"below {format_limit(above)}, so it may be the best of its attempts by chance.",
        )
    else:
        verdict, end = Verdict.PASSED, f"more than {format_limit(above)} is required."
    sentence = (
        f"{measurement.coin}: attempt {count:,} on this gate window, accuracy {texts[0]} of {rows:,} bars; "
        f"the interval widened for it begins at {texts[1]}; {end}"
    )
    return Finding(verdict, lower, observed, sentence)


def read_lead(measurement: MeasurementReader, slack: float, over: str, section: str, *path: str) -> Lead:
    """Raises NotMeasured where the figures contradict one another, or differ by more than `slack` from the accuracies."""
    at = (section, *path)
    difference, lower, upper = (
        measurement.number(*at, name, least=-1, greatest=1) for name in ("difference", "lower", "upper")
    )
    if not lower <= upper:
        raise NotMeasured(f"the interval against {over} runs from {lower:g} down to {upper:g}")
    between = measurement.share(section, "accuracy") - measurement.share(*at, "accuracy")
    if abs(between - difference) > slack:
        raise NotMeasured(f"the difference against {over} is {between:g}, not {difference:g} as stated")
    return Lead(over, difference, lower, upper)


def _read_lead_over_v5(measurement: MeasurementReader) -> Lead:
    if measurement.is_null("skill", "baseline", "digest"):
        problem = measurement.problem("skill", "baseline") or "no reason given"
        raise NotMeasured(f"it could not be compared with V5 ({problem}): measure it again")
    measurement.require_no_problem("skill", "baseline")
    digest = measurement.text("skill", "baseline", "digest")
    if not measurement.count("skill", "baseline", "fit", "rows"):
        raise NotMeasured(f"the V5 that it is compared with ({digest}) was fitted on no bars")
    is_itself = measurement.flag("skill", "baseline", "is_itself")
    over = "V5, which is itself" if is_itself else "V5"
    return read_lead(measurement, NEARLY, over, "skill", "baseline")


def read_attempt(measurement: MeasurementReader) -> int:
    """The number of this attempt on its gate window, from 1."""
    count, chain = measurement.count("attempts", "count"), measurement.text("attempts", "chain")
    if count < 1 or len(chain) != CHAIN_LENGTH:
        raise NotMeasured(f"attempt {count:,} is stated, without the hash of those before it")
    return count


def _get_widened_bound(measurement: MeasurementReader, point: float, attempts: int) -> float:
    """The lower bound of the accuracy for all attempts together."""
    lower, upper = measurement.share("accuracy", "lower"), measurement.share("accuracy", "upper")
    error = measurement.number("accuracy", "standard_error", least=0, greatest=0.5)
    if not lower <= point <= upper:
        raise NotMeasured(f"the accuracy is {point:g}, its interval {lower:g} to {upper:g}")
    bound = widen_for_attempts(measurement, "accuracy", (point, lower, upper), error, attempts)
    return bound if attempts == 1 else max(0.0, bound)


def widen_for_attempts(
    measurement: MeasurementReader,
    section: str,
    interval: tuple[float, float, float],
    error: float,
    attempts: int,
) -> float:
    """The lower bound at ALPHA for all attempts together (Bonferroni), never above the bootstrap's own.

    `interval` is the estimate with its lower and upper end, `error` its standard error. By Student's t with as many
    degrees of freedom as the bootstrap of this section had blocks, less one, as the interval's own.
    """
    point, lower, upper = interval
    rows, blocks = measurement.count(section, "rows"), measurement.count(section, "block_bars")
    if not rows or not blocks:
        raise NotMeasured(f"the {section} is of {rows:,} bars in blocks of {blocks:,}")
    freedom = max(rows / blocks, 2) - 1
    # An interval twice as wide as its standard error allows belongs to other figures.
    if error < (upper - lower) / (4 * compute_student_quantile(1 - ALPHA / 2, freedom)) or (
        error == 0 and abs(point) not in (0, 1)
    ):
        raise NotMeasured(f"a standard error of {error:g} does not fit an interval of {lower:g} to {upper:g}")
    reach = compute_student_quantile(1 - ALPHA / (2 * attempts), freedom) * error
    return lower if attempts == 1 else min(lower, point - reach)
