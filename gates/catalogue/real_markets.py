"""What a policy for real markets asks in place of a fixed accuracy and fixed class shares. Advisory in the full policy."""

from common.formatting import format_limit, format_percent, format_points
from gates.catalogue.baseline import BLOCK_HELP, require_blocks
from gates.catalogue.gate import Group, Meter, Parameters, Reading, Threshold, scale
from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured
from gates.catalogue.skill import EXACT, NAIVE, Lead, read_attempt, read_lead, widen_for_attempts
from mlcore.constants import CLASSES
from mlcore.evaluation.bootstrap import CAUTIOUS_BLOCK_BARS
from mlcore.verdict import Finding, Verdict

BASE_RATE = "majority"
OVER = {
    **NAIVE,
    BASE_RATE: "the label's base rate",
    "all_down": "its own calls with every Up named Down",
    "all_up": "its own calls with every Down named Up",
}
"""The majority class of the judged window is right as often as the label's most frequent class occurs. Over its own
calls in one direction leads only who is more often right than wrong in both: to know when markets move is not enough."""

REAL_MARKETS = Group(
    "Real markets", "ahead of the label's base rate, and of forecasters without a model", is_advisory=True
)


def read_least_lead(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    """The least lead; the meter reaches ten points either way."""
    worst = min((_read_lead(measurement, name, 1) for name in OVER), key=lambda lead: lead.lower)
    required, mark, left, right = (
        scale(value, -0.1, 0.1)
        for value in (float(parameters["above"]), worst.difference, worst.lower, worst.upper)
    )
    detail = f"{format_points(worst.lower)} to {format_points(worst.upper)} over {worst.over}"
    return Reading(
        f"{format_points(worst.difference)} pts", detail, Meter((required, 100.0), (mark,), (left, right))
    )


@REAL_MARKETS.register(
    "lead",
    lambda p: (
        f"lower bound over {format_points(p['above'])} points ahead of the label's base rate, of every naive "
        "forecaster and of its own calls in one direction, at 5 % for all attempts together"
    ),
    Threshold("above", 0.0, 0.0, 0.5, "lower", "The interval must begin above this; 0.01 is a point."),
    Threshold("least_block_bars", CAUTIOUS_BLOCK_BARS, 1, 100_000, "lower", BLOCK_HELP),
    read=read_least_lead,
)
def judge_lead(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """More accurate than the label's base rate, than naive forecasters and than its own calls in one direction."""
    above, attempt = float(parameters["above"]), read_attempt(measurement)
    rows, accuracy = measurement.count("lead", "rows"), measurement.share("lead", "accuracy")
    require_blocks(measurement, parameters, "lead")
    shares = _read_label_shares(measurement)
    leads = [_read_lead(measurement, name, attempt) for name in OVER]
    measurement.require_no_problem("lead")
    worst = min(leads, key=lambda lead: lead.lower)
    observed = f"at least {format_points(worst.lower)} points over {worst.over}"
    widened = "" if attempt == 1 else f", widened for attempt {attempt:,}"
    sentence = (
        f"{measurement.coin}'s accuracy is {format_percent(accuracy)} of {rows:,} bars, where the label's base rate is "
        f"{format_percent(max(shares.values()))}: {worst.text}{widened}; the interval must begin above "
        f"{format_points(above)} points."
    )
    return Finding(worst.get_verdict(above), worst.lower, observed, sentence)


def read_label_balance(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    """How often each class is predicted, in shares of how often it occurs; the meter reaches to twice as often."""
    ratios = _read_ratios(measurement)
    band = tuple(scale(float(parameters[end]), 0, 2) for end in ("least", "most"))
    marks = tuple(scale(ratio, 0, 2) for ratio in ratios.values())
    brief = " · ".join(f"{100 * ratio:.0f}" for ratio in ratios.values())
    return Reading(f"{brief} %", "of each class's own share", Meter((band[0], band[1]), marks))


@REAL_MARKETS.register(
    "label_balance",
    lambda p: (
        f"each class predicted {format_limit(p['least'])} – {format_limit(p['most'])} as often as it occurs"
    ),
    Threshold("least", 0.5, 0.0, 1.0, "lower", "Each class must be predicted this often per occurrence."),
    Threshold("most", 1.5, 1.0, 10.0, "higher", "No class may be predicted more often per occurrence."),
    read=read_label_balance,
)
def judge_label_balance(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """No class is predicted far more often, or far more rarely, than it occurs on the judged window."""
    least, most = float(parameters["least"]), float(parameters["most"])
    ratios, shares = _read_ratios(measurement), _read_label_shares(measurement)
    measurement.require_no_problem("lead")
    excess = {name: max(least - ratio, ratio - most) for name, ratio in ratios.items()}
    worst = max(CLASSES, key=lambda name: excess[name])
    observed = ", ".join(
        f"{name.capitalize()} {format_percent(ratio, beside=most if ratio > 1 else least)}"
        for name, ratio in ratios.items()
    )
    occurs = ", ".join(f"{name.capitalize()} {format_percent(share)}" for name, share in shares.items())
    sentence = (
        f"{measurement.coin} predicts each class in these shares of how often it occurs: {observed}; "
        f"{format_limit(least)} to {format_limit(most)} is allowed. The classes occur in {occurs} of bars."
    )
    verdict = Verdict.PASSED if excess[worst] <= 0 else Verdict.FAILED
    return Finding(verdict, ratios[worst], observed, sentence)


def _read_lead(measurement: MeasurementReader, name: str, attempt: int) -> Lead:
    """With the lower end for all attempts together."""
    found = read_lead(measurement, EXACT, OVER[name], "lead", "over", name)
    if not found.lower <= found.difference <= found.upper:
        raise NotMeasured(f"the lead over {found.over} lies outside its own interval")
    error = measurement.number("lead", "over", name, "standard_error", least=0, greatest=1)
    interval = found.difference, found.lower, found.upper
    lower = max(-1.0, widen_for_attempts(measurement, "lead", interval, error, attempt))
    return Lead(found.over, found.difference, lower, found.upper)


def _read_label_shares(measurement: MeasurementReader) -> dict[str, float]:
    """How often each class occurs on the judged window. Raises NotMeasured where that is not the base rate's accuracy."""
    shares = measurement.shares("lead", "label_shares", names=CLASSES)
    if abs(max(shares.values()) - measurement.share("lead", "over", BASE_RATE, "accuracy")) > EXACT:
        raise NotMeasured("the accuracy of the label's base rate is not the share of its most frequent class")
    if measurement.count("lead", "rows") != measurement.count("accuracy", "rows"):
        raise NotMeasured("the lead and the accuracy are of different rows")
    if abs(measurement.share("lead", "accuracy") - measurement.share("accuracy", "point")) > EXACT:
        raise NotMeasured("the accuracy that the lead is of is another one than the accuracy itself")
    return shares


def _read_ratios(measurement: MeasurementReader) -> dict[str, float]:
    """Predicted share over true share, by class."""
    predicted, true = measurement.shares("shares", names=CLASSES), _read_label_shares(measurement)
    missing = [name for name, share in true.items() if share == 0]
    if missing:
        raise NotMeasured(f"{', '.join(missing)} does not occur on the judged window")
    return {name: predicted[name] / true[name] for name in CLASSES}
