"""The baseline gates. Each judge is a pure function of (measurement, parameters); none sees the network."""

from common.formatting import format_limit, format_list, format_percent, format_signed
from gates.catalogue.gate import Choice, Group, Meter, Parameters, Reading, Threshold, scale
from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured
from mlcore.constants import CLASSES
from mlcore.evaluation.bootstrap import get_block_bars
from mlcore.evaluation.metrics import CONFIDENCES
from mlcore.features.labels import MAX_HORIZON_BARS, MIN_HORIZON_BARS
from mlcore.verdict import Finding, Verdict

LOWER_BOUND = "lower_bound"
POINT = "point"
BLOCK_HELP = "The least length of the bootstrap's blocks: labels overlap, and regimes last."

BASELINE = Group(
    "Baseline",
    "complete files, finite values, and the same prediction for one row as in a batch",
    is_baseline=True,
)


@BASELINE.register("bundle", lambda _: "hashes match, loads in a clean process, shapes fit")
def judge_bundle(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """The files are those that were trained, and they run."""
    checks = {
        "digest_matches": "hashes match",
        "loads": "loads in a clean process",
        "shapes_match": "shapes fit",
    }
    return judge_checklist(measurement, "bundle", checks)


@BASELINE.register(
    "scaler",
    lambda _: "a finite mean and a scale above 0 for each input, names equal the schema's, in the graph",
)
def judge_scaler(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """The graph scales features as training did."""
    coin = measurement.coin
    if not measurement.flag("scaler", "present"):
        if measurement.is_false("scaler", "is_needed"):
            measurement.require_no_problem("reload")
            loss = measurement.number("reload", "recomputed", "loss", least=0)
            observed = f"needs none, as declared; loss {loss:.4f} without one"
            sentence = (
                f"{coin}'s model declares that it needs no scaler, and its figures on the stop window were recomputed from"
                f" unscaled features: loss {loss:.4f}."
            )
            return Finding(Verdict.PASSED, None, observed, sentence)
        sentence = f"{coin}'s bundle holds no scaler: the network would get unscaled prices."
        return Finding(Verdict.FAILED, None, "no scaler", sentence)
    count, needed = measurement.count("scaler", "count"), measurement.count("scaler", "columns")
    if count != needed:
        sentence = f"{coin}'s scaler has {count} features; the network reads {needed}."
        return Finding(Verdict.FAILED, float(count), f"{count} of {needed} features", sentence)
    checks = {
        "finite_means": f"{needed} finite means",
        "positive_scales": "scales above 0",
        "names_equal_schema": "names equal the schema's",
        "in_graph": "in the graph",
    }
    return judge_checklist(measurement, "scaler", checks)


@BASELINE.register("finite_weights", lambda _: "no NaN, no Inf in any tensor")
def judge_finite_weights(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """No tensor, buffer or initializer holds a NaN or an Inf."""
    tensors = measurement.count("weights", "tensors")
    broken = measurement.names("weights", "non_finite")
    if broken:
        observed = f"{len(broken)} of {tensors:,} tensors: {format_list(broken)}"
        sentence = f"{measurement.coin}'s weights are not all finite: NaN or Inf in {format_list(broken)}."
        return Finding(Verdict.FAILED, float(len(broken)), observed, sentence)
    measurement.require_no_problem("weights")
    if tensors == 0:
        raise NotMeasured("the bundle holds no tensor", 0.0)
    sentence = f"All {tensors:,} tensors of {measurement.coin}'s bundle are finite."
    return Finding(Verdict.PASSED, 0.0, f"all {tensors:,} tensors finite", sentence)


def read_single_sample(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    difference = measurement.number("single_sample", "largest_difference", least=0)
    return Reading(f"{difference:.0e} apart" if difference else "equal", "single row against the batch")


@BASELINE.register(
    "single_sample",
    lambda p: f"differs by at most 1e-5 + 1e-5·|logit|, {int(p['rows']):,} rows",
    Threshold("rows", 512, 1, 100_000, "lower", "The number of rows that must be compared."),
    read=read_single_sample,
)
def judge_single_sample(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """One row alone gets the logits it gets within a batch, and from a window as the bot cuts it."""
    coin = measurement.coin
    rows, least = measurement.count("single_sample", "rows"), int(parameters["rows"])
    if not measurement.flag("single_sample", "runs"):
        problem = measurement.problem("single_sample") or "no reason given"
        sentence = f"{coin} cannot predict a single row, which is what bots need: {problem}"
        return Finding(Verdict.FAILED, None, "does not run", sentence)
    difference = measurement.number("single_sample", "largest_difference", least=0)
    excess = measurement.number("single_sample", "largest_excess")
    observed = f"largest difference {difference:.2g} over {rows:,} rows"
    if excess > 0:
        sentence = (
            f"{coin}'s logits for a single row differ from the batch's by up to {difference:.2g}, "
            f"{excess:.2g} more than rounding explains."
        )
        return Finding(Verdict.FAILED, excess, observed, sentence)
    measurement.require_no_problem("single_sample")
    compared = min(rows, measurement.count("single_sample", "windows_compared"))
    if compared < least:
        sentence = f"Only {compared:,} single rows of {coin} were compared; {least:,} are required."
        return Finding(Verdict.INCONCLUSIVE, excess, observed, sentence)
    sentence = f"{coin}'s logits for a single row match the batch's: {rows:,} rows differ by {difference:.2g} at most."
    return Finding(Verdict.PASSED, excess, observed, sentence)


def read_confidence(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    level = float(parameters["level"])
    share = 100 * _get_share_over(measurement, level)
    meter = Meter((0.0, 100 * float(parameters["share_below"])), (share,))
    return Reading(f"{share:.1f} %", f"of predictions over {format_limit(level)}", meter)


@BASELINE.register(
    "confidence",
    lambda p: f"less than {format_limit(p['share_below'])} of predictions over {format_limit(p['level'])}",
    Threshold(
        "level", 0.90, 0.34, 0.9999, "higher", "Above this probability a prediction is nearly certain."
    ),
    Threshold("share_below", 0.80, 0.0, 1.0, "higher", "Nearly certain predictions must be a smaller share."),
    read=read_confidence,
)
def judge_confidence(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """Not too many predictions are nearly certain."""
    level, below = float(parameters["level"]), float(parameters["share_below"])
    share = _get_share_over(measurement, level)
    text = format_percent(share, beside=below)
    sentence = (
        f"{measurement.coin}'s confidence is above {format_limit(level)} in {text} of its predictions; "
        f"less than {format_limit(below)} is allowed."
    )
    verdict = Verdict.PASSED if share < below else Verdict.FAILED
    return Finding(verdict, share, f"{text} of predictions over {format_limit(level)}", sentence)


def read_class_balance(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    shares = [100 * share for share in measurement.shares("shares", names=CLASSES).values()]
    meter = Meter((100 * float(parameters["least"]), 100 * float(parameters["most"])), tuple(shares))
    return Reading(" · ".join(f"{share:.0f}" for share in shares) + " %", " · ".join(CLASSES), meter)


@BASELINE.register(
    "class_balance",
    lambda p: f"each {format_limit(p['least'])} – {format_limit(p['most'])}",
    Threshold("least", 0.20, 0.0, 1 / 3, "lower", "Each class must be predicted at least this often."),
    Threshold("most", 0.40, 1 / 3, 1.0, "higher", "No class may be predicted more often than this."),
    read=read_class_balance,
)
def judge_class_balance(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """No class is predicted nearly always, and none hardly ever."""
    least, most = float(parameters["least"]), float(parameters["most"])
    shares = measurement.shares("shares", names=CLASSES)
    middle = (least + most) / 2
    texts = {name: format_percent(x, beside=most if x > middle else least) for name, x in shares.items()}
    observed = ", ".join(f"{name.capitalize()} {text}" for name, text in texts.items())
    excess = {name: max(least - share, share - most) for name, share in shares.items()}
    worst = max(CLASSES, key=lambda name: excess[name])
    if excess[worst] <= 0:
        bounds = f"between {format_limit(least)} and {format_limit(most)}"
        sentence = f"{measurement.coin} predicts {observed}; each must lie {bounds}."
        return Finding(Verdict.PASSED, shares[worst], observed, sentence)
    sentences = [
        f"{measurement.coin} predicts {name.capitalize()} in {texts[name]} of bars; "
        + (
            f"at most {format_limit(most)} is allowed."
            if share > most
            else f"at least {format_limit(least)} is required."
        )
        for name, share in shares.items()
        if excess[name] > 0
    ]
    return Finding(Verdict.FAILED, shares[worst], observed, " ".join(sentences))


def read_logit_range(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    """The meter reaches half as far again as is allowed; a logit beyond is drawn at its end."""
    floor, ceiling = float(parameters["least"]), float(parameters["greatest"])
    least, greatest = measurement.number("logits", "least"), measurement.number("logits", "greatest")
    low, high, left, right = (
        scale(value, 1.5 * floor, 1.5 * ceiling) for value in (floor, ceiling, least, greatest)
    )
    return Reading(
        f"{format_signed(least)} … {format_signed(greatest)}",
        "",
        Meter((low, high), (left, right), (left, right)),
    )


@BASELINE.register(
    "logit_range",
    lambda p: f"{format_signed(p['least'])} … {format_signed(p['greatest'])}",
    Threshold("least", -10.0, -1e6, 0.0, "lower", "No logit may lie below this."),
    Threshold("greatest", 10.0, 0.0, 1e6, "higher", "No logit may lie above this."),
    read=read_logit_range,
)
def judge_logit_range(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """Logits stay small, so that confidence means something."""
    floor, ceiling = float(parameters["least"]), float(parameters["greatest"])
    least, greatest = measurement.number("logits", "least"), measurement.number("logits", "greatest")
    if least > greatest:
        raise NotMeasured(f"the least logit ({least:g}) is above the greatest ({greatest:g})")
    is_inside = floor <= least and greatest <= ceiling
    figure = least if floor - least > greatest - ceiling else greatest
    ends = _format_logit(least, floor), _format_logit(greatest, ceiling)
    sentence = (
        f"{measurement.coin}'s logits range from {ends[0]} to {ends[1]}; "
        f"{format_signed(floor)} to {format_signed(ceiling)} is allowed."
    )
    return Finding(Verdict.PASSED if is_inside else Verdict.FAILED, figure, " … ".join(ends), sentence)


def read_accuracy(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    point, lower, upper = (100 * measurement.share("accuracy", name) for name in ("point", "lower", "upper"))
    meter = Meter((100 * float(parameters["above"]), 100.0), (point,), (lower, upper))
    return Reading(f"{point:.1f} %", f"{lower:.1f} – {upper:.1f} %", meter)


@BASELINE.register(
    "accuracy",
    lambda p: (
        f"{'accuracy' if p['judged_by'] == POINT else 'lower bound'} over {format_limit(p['above'])}, "
        f"{int(p['least_rows']):,} bars or more"
    ),
    Threshold("above", 0.65, 0.0, 0.9999, "lower", "The accuracy must exceed this; chance is a third."),
    Choice(
        "judged_by",
        LOWER_BOUND,
        (LOWER_BOUND, POINT),
        "The lower end of the 95 % interval, or the point estimate.",
    ),
    Threshold("least_rows", 1000, 1, 1e9, "lower", "With fewer bars the result is inconclusive."),
    Threshold("least_block_bars", 72, 1, 100_000, "lower", BLOCK_HELP),
    read=read_accuracy,
)
def judge_accuracy(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """Accurate enough, and shown by enough bars.

    With 1,000 rows a model whose true accuracy is 0.64 shows more than 0.65 one time in four: the interval decides.
    """
    above, rows = float(parameters["above"]), measurement.count("accuracy", "rows")
    point = measurement.share("accuracy", "point")
    is_by_point = parameters["judged_by"] == POINT
    figure = point if is_by_point else _get_lower_bound(measurement, parameters)
    observed = f"{format_percent(point, beside=above)} of {rows:,} bars"
    if not is_by_point:
        upper = format_percent(measurement.share("accuracy", "upper"))
        observed += f" (95 % interval {format_percent(figure, beside=above)} – {upper})"
    start = f"{measurement.coin}'s accuracy is {observed}"
    if rows < parameters["least_rows"]:
        sentence = f"{start}: too few, {int(parameters['least_rows']):,} are required."
        return Finding(Verdict.INCONCLUSIVE, figure, observed, sentence)
    required = f"{start}; more than {format_limit(above)} is required."
    if point <= above:
        return Finding(Verdict.FAILED, figure, observed, required)
    if figure <= above:
        sentence = (
            f"{start}: above {format_limit(above)}, but the interval reaches below it, so it may be chance."
        )
        return Finding(Verdict.INCONCLUSIVE, figure, observed, sentence)
    return Finding(Verdict.PASSED, figure, observed, required)


def _get_share_over(measurement: MeasurementReader, level: float) -> float:
    """The share of predictions above a confidence; levels are the keys of the section."""
    key = next((text for text in CONFIDENCES if float(text) == level), None)
    if key is None:
        raise NotMeasured(f"the share of predictions over {format_limit(level)} was not measured")
    return measurement.share("confidence", "shares_over", key)


def _get_lower_bound(measurement: MeasurementReader, parameters: Parameters) -> float:
    """The lower end of the 95 % interval, from blocks long enough for labels that overlap and regimes that last."""
    require_blocks(measurement, parameters, "accuracy")
    lower, upper = measurement.share("accuracy", "lower"), measurement.share("accuracy", "upper")
    if lower > upper:
        raise NotMeasured(f"the accuracy interval runs from {lower:g} down to {upper:g}")
    return lower


def judge_checklist(measurement: MeasurementReader, section: str, checks: dict[str, str]) -> Finding:
    """Passed when every check holds and nothing went wrong. A check that does not hold fails, whatever else is unknown."""
    broken = [text for name, text in checks.items() if measurement.is_false(section, name)]
    if broken:
        problem = measurement.problem(section)
        sentence = f"{measurement.coin}'s {section} fails these checks: {', '.join(broken)}" + (
            f" ({problem})." if problem else "."
        )
        return Finding(Verdict.FAILED, float(len(broken)), f"fails: {', '.join(broken)}", sentence)
    for name in checks:
        measurement.flag(section, name)
    measurement.require_no_problem(section)
    texts = ", ".join(checks.values())
    return Finding(Verdict.PASSED, 0.0, texts, f"{measurement.coin}'s {section} passes every check: {texts}.")


def read_horizon(measurement: MeasurementReader) -> int:
    """How far its labels look ahead."""
    measurement.require_no_problem("label")
    horizon = measurement.count("label", "horizon_bars")
    if not MIN_HORIZON_BARS <= horizon <= MAX_HORIZON_BARS:
        raise NotMeasured(f"labels that look {horizon:,} bars ahead cannot be judged")
    return horizon


def require_blocks(measurement: MeasurementReader, parameters: Parameters, section: str) -> None:
    """Raise NotMeasured for blocks shorter than the policy asks for, or than labels that overlap need.

    A window too short for such blocks has the longest that it holds twice.
    """
    blocks, needed = measurement.count(section, "block_bars"), int(parameters["least_block_bars"])
    horizons = min(get_block_bars(read_horizon(measurement)), max(1, measurement.count(section, "rows") // 2))
    needed = max(needed, horizons)
    if blocks < needed:
        raise NotMeasured(f"the interval is from blocks of {blocks} bars; {needed} or more are required")


def _format_logit(value: float, bound: float) -> str:
    """With as many digits as it takes to tell it from the bound."""
    if value != bound and round(value, 2) == bound:
        return f"{value:+.9g}".replace("-", "−")
    return format_signed(value)
