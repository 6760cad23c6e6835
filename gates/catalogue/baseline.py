"""The eight baseline gates. Each is one pure function of (measurements, parameters); none sees the network."""

from common.formatting import limit, listed, percent, signed
from gates.catalogue.checklist import all_true
from gates.catalogue.figures import Figures, NotMeasured
from gates.catalogue.gate import Choice, Gate, Parameters, Threshold
from mlcore.verdict import Finding, Verdict

DIRECTIONS = ("down", "neutral", "up")
LOWER_BOUND = "lower_bound"
POINT = "point"


def judge_bundle(figures: Figures, parameters: Parameters) -> Finding:
    """The files are those that were trained, and they run."""
    checks = {
        "digest_matches": "hashes match",
        "loads": "loads in a clean process",
        "shapes_match": "shapes fit",
    }
    return all_true(figures, "bundle", checks)


def judge_scaler(figures: Figures, parameters: Parameters) -> Finding:
    """The bot scales its features as training did, by a scaler inside the graph."""
    if not figures.flag("scaler", "present"):
        return Finding(
            Verdict.FAILED,
            None,
            "no scaler",
            f"{figures.coin}'s bundle holds no scaler: the network would be fed prices it was never trained on.",
        )
    count = figures.count("scaler", "count")
    if count != 72:
        sentence = f"{figures.coin}'s scaler knows {count} features; the network reads 72."
        return Finding(Verdict.FAILED, float(count), f"{count} of 72 features", sentence)
    checks = {
        "finite_means": "72 finite means",
        "positive_scales": "scales above 0",
        "names_equal_schema": "names equal the schema's",
        "in_graph": "in the graph",
    }
    return all_true(figures, "scaler", checks)


def judge_finite_weights(figures: Figures, parameters: Parameters) -> Finding:
    """No tensor, buffer or initializer holds a NaN or an Inf."""
    tensors = figures.count("weights", "tensors")
    broken = figures.names("weights", "non_finite")
    if broken:
        return Finding(
            Verdict.FAILED,
            float(len(broken)),
            f"{len(broken)} of {tensors:,} tensors: {listed(broken)}",
            f"{figures.coin}'s weights are not all numbers: NaN or Inf in {listed(broken)}.",
        )
    figures.require_sound("weights")
    if tensors == 0:
        raise NotMeasured("no tensor was found to look at", 0.0)
    sentence = f"All {tensors:,} tensors of {figures.coin}'s bundle are finite."
    return Finding(Verdict.PASSED, 0.0, f"all {tensors:,} tensors finite", sentence)


def judge_single_sample(figures: Figures, parameters: Parameters) -> Finding:
    """One row alone gets the logits it gets within a batch, and from a window as the bot cuts it."""
    rows, least = figures.count("single_sample", "rows"), int(parameters["rows"])
    if not figures.flag("single_sample", "runs"):
        why = figures.problem("single_sample") or "no reason given"
        sentence = f"{figures.coin} cannot predict from a single row, which is how the bot asks: {why}"
        return Finding(Verdict.FAILED, None, "does not run", sentence)
    difference = figures.number("single_sample", "largest_difference", least=0)
    excess = figures.number("single_sample", "largest_excess")
    observed = f"largest difference {difference:.2g} over {rows:,} rows"
    if excess > 0:
        sentence = (
            f"{figures.coin} answers a single row otherwise than the same row in a batch: logits differ by up to "
            f"{difference:.2g}, {excess:.2g} more than rounding explains."
        )
        return Finding(Verdict.FAILED, excess, observed, sentence)
    figures.require_sound("single_sample")
    windows = figures.count("single_sample", "windows_compared")
    if min(rows, windows) < least:
        sentence = (
            f"Only {min(rows, windows):,} single rows of {figures.coin} were compared; {least:,} are needed."
        )
        return Finding(Verdict.INCONCLUSIVE, excess, observed, sentence)
    sentence = f"{figures.coin} answers a single row as it does a batch: {rows:,} rows differ by {difference:.2g} at most."
    return Finding(Verdict.PASSED, excess, observed, sentence)


def judge_confidence(figures: Figures, parameters: Parameters) -> Finding:
    """Not too many predictions are nearly certain."""
    level, below = float(parameters["level"]), float(parameters["share_below"])
    measured = figures.section("confidence", "shares_over")
    key = next((text for text in measured if _is_number(text) and float(text) == level), None)
    if key is None:
        raise NotMeasured(f"the share of predictions over {limit(level)} was not measured")
    share = figures.share("confidence", "shares_over", key)
    observed = f"{percent(share, beside=below)} of predictions over {limit(level)}"
    sentence = (
        f"{figures.coin} is more than {limit(level)} sure in {percent(share, beside=below)} of its predictions; "
        f"less than {limit(below)} is allowed."
    )
    return Finding(Verdict.PASSED if share < below else Verdict.FAILED, share, observed, sentence)


def judge_class_balance(figures: Figures, parameters: Parameters) -> Finding:
    """No direction is said nearly always, and none hardly ever."""
    least, most = float(parameters["least"]), float(parameters["most"])
    shares = {direction: figures.share("shares", direction) for direction in DIRECTIONS}
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise NotMeasured(f"the predicted shares add up to {sum(shares.values()):.4g}, not to 1")
    nearest = {d: most if share > (least + most) / 2 else least for d, share in shares.items()}
    texts = {d: percent(share, beside=nearest[d]) for d, share in shares.items()}
    observed = ", ".join(f"{d.capitalize()} {texts[d]}" for d in DIRECTIONS)
    outside = {d: max(least - share, share - most) for d, share in shares.items()}
    worst = max(DIRECTIONS, key=lambda d: outside[d])
    says = [
        f"{figures.coin} says {d.capitalize()} in {texts[d]} of its predictions; "
        + (
            f"at most {limit(most)} is allowed."
            if shares[d] > most
            else f"at least {limit(least)} is required."
        )
        for d in DIRECTIONS
        if outside[d] > 0
    ]
    if says:
        return Finding(Verdict.FAILED, shares[worst], observed, " ".join(says))
    sentence = f"{figures.coin} says {observed}; each must lie between {limit(least)} and {limit(most)}."
    return Finding(Verdict.PASSED, shares[worst], observed, sentence)


def judge_logit_range(figures: Figures, parameters: Parameters) -> Finding:
    """The network's raw answers stay small, so that its certainty means something."""
    floor, ceiling = float(parameters["least"]), float(parameters["greatest"])
    least, greatest = figures.number("logits", "least"), figures.number("logits", "greatest")
    if least > greatest:
        raise NotMeasured(f"the least logit ({least:g}) is above the greatest ({greatest:g})")
    is_inside = floor <= least and greatest <= ceiling
    figure = least if floor - least > greatest - ceiling else greatest
    observed = f"{_logit(least, floor)} … {_logit(greatest, ceiling)}"
    sentence = (
        f"{figures.coin}'s logits run from {_logit(least, floor)} to {_logit(greatest, ceiling)}; "
        f"{signed(floor)} to {signed(ceiling)} is allowed."
    )
    return Finding(Verdict.PASSED if is_inside else Verdict.FAILED, figure, observed, sentence)


def judge_accuracy(figures: Figures, parameters: Parameters) -> Finding:
    """Right often enough, and shown to be so by enough bars.

    With 1,000 rows a model whose true accuracy is 0.64 shows more than 0.65 one time in four: the interval decides.
    """
    above, rows = float(parameters["above"]), figures.count("accuracy", "rows")
    point = figures.share("accuracy", "point")
    judged_by_point = parameters["judged_by"] == POINT
    figure = point if judged_by_point else _lower_bound(figures, parameters)
    right = f"{figures.coin} is right in {percent(point, beside=above)} of {rows:,} bars"
    observed = f"{percent(point, beside=above)} of {rows:,} bars"
    if not judged_by_point:
        interval = (
            f"95 % interval {percent(figure, beside=above)} – {percent(figures.share('accuracy', 'upper'))}"
        )
        right, observed = f"{right} ({interval})", f"{observed} ({interval})"
    if rows < parameters["least_rows"]:
        sentence = f"{right}: too few to tell, {int(parameters['least_rows']):,} are needed."
        return Finding(Verdict.INCONCLUSIVE, figure, observed, sentence)
    if point <= above:
        return Finding(Verdict.FAILED, figure, observed, f"{right}; more than {limit(above)} is required.")
    if figure <= above:
        sentence = f"{right}: over {limit(above)}, but the interval reaches below it, so luck may explain it."
        return Finding(Verdict.INCONCLUSIVE, figure, observed, sentence)
    return Finding(Verdict.PASSED, figure, observed, f"{right}; more than {limit(above)} is required.")


BASELINE_GATES = (
    Gate("bundle", judge_bundle, lambda _: "hashes match, loads in a clean process, shapes fit"),
    Gate(
        "scaler",
        judge_scaler,
        lambda _: "72 finite means, scales above 0, names equal the schema's, in the graph",
    ),
    Gate("finite_weights", judge_finite_weights, lambda _: "no NaN, no Inf in any tensor"),
    Gate(
        "single_sample",
        judge_single_sample,
        lambda p: f"differs by at most 1e-5 + 1e-5·|logit|, {int(p['rows']):,} rows",
        (Threshold("rows", 512, 1, 100_000, is_looser_when="lower", is_whole=True),),
    ),
    Gate(
        "confidence",
        judge_confidence,
        lambda p: f"less than {limit(p['share_below'])} of predictions over {limit(p['level'])}",
        (
            Threshold("level", 0.90, 0.34, 0.9999, is_looser_when="higher"),
            Threshold("share_below", 0.80, 0.0, 1.0, is_looser_when="higher"),
        ),
    ),
    Gate(
        "class_balance",
        judge_class_balance,
        lambda p: f"each {limit(p['least'])} – {limit(p['most'])}",
        (
            Threshold("least", 0.20, 0.0, 1 / 3, is_looser_when="lower"),
            Threshold("most", 0.40, 1 / 3, 1.0, is_looser_when="higher"),
        ),
    ),
    Gate(
        "logit_range",
        judge_logit_range,
        lambda p: f"{signed(p['least'])} … {signed(p['greatest'])}",
        (
            Threshold("least", -10.0, -1e6, 0.0, is_looser_when="lower"),
            Threshold("greatest", 10.0, 0.0, 1e6, is_looser_when="higher"),
        ),
    ),
    Gate(
        "accuracy",
        judge_accuracy,
        lambda p: (
            f"{'accuracy' if p['judged_by'] == POINT else 'lower bound'} over {limit(p['above'])}, "
            f"{int(p['least_rows']):,} bars or more"
        ),
        (
            Threshold("above", 0.65, 0.0, 0.9999, is_looser_when="lower"),
            Choice("judged_by", LOWER_BOUND, (LOWER_BOUND, POINT)),
            Threshold("least_rows", 1000, 1, 1e9, is_looser_when="lower", is_whole=True),
            Threshold("least_block_bars", 72, 1, 100_000, is_looser_when="lower", is_whole=True),
        ),
    ),
)


def _lower_bound(figures: Figures, parameters: Parameters) -> float:
    """The lower end of the 95 % interval, from blocks long enough for labels that overlap and regimes that last."""
    blocks = figures.count("accuracy", "block_bars")
    if blocks < parameters["least_block_bars"]:
        needed = int(parameters["least_block_bars"])
        raise NotMeasured(f"the interval was drawn in blocks of {blocks} bars; {needed} or more are needed")
    lower, upper = figures.share("accuracy", "lower"), figures.share("accuracy", "upper")
    if lower > upper:
        raise NotMeasured(f"the accuracy interval runs from {lower:g} down to {upper:g}")
    return lower


def _logit(value: float, bound: float) -> str:
    """With as many digits as it takes to tell it from the bound."""
    if value != bound and round(value, 2) == bound:
        return f"{value:+.9g}".replace("-", "−")
    return signed(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
