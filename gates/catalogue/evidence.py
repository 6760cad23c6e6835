"""Whether the figures may be believed: what it was trained and measured on, and whether that is what was reported."""

from collections.abc import Iterator
from datetime import timedelta

from common.formatting import listed, percent
from gates.catalogue.checklist import all_true
from gates.catalogue.figures import Figures, NotMeasured
from gates.catalogue.gate import Gate, Parameters, Threshold
from mlcore.features.labels import HORIZON_BARS
from mlcore.verdict import WORST_FIRST, Finding, Verdict

PLACES = {"measured": "it was measured on", "training": "it was trained on"}
LEAK = 0.01
"""In units of a feature's own deviation: what sees one bar ahead differs by more (mlcore.evaluation.lookahead)."""


def judge_candles(figures: Figures, parameters: Parameters) -> Finding:
    """Trained and measured on candles that themselves passed."""
    if figures.is_null("candles", "training"):
        raise NotMeasured("nobody knows which candles it was trained on, so nobody has judged them")
    if figures.text("candles", "measured", "digest") != figures.text("dataset_digest"):
        raise NotMeasured("the candles that were judged are not those that it was measured on")
    if figures.text("candles", "training", "digest") != figures.text("trained_on"):
        raise NotMeasured("the candles that were judged are not those that its manifest names")
    verdicts = {place: _candle_verdict(figures, place) for place in PLACES}
    against = {place: verdict for place, verdict in verdicts.items() if verdict != Verdict.PASSED}
    observed = ", ".join(f"{place} on: {verdict}" for place, verdict in verdicts.items())
    if against:
        worst = next(verdict for verdict in WORST_FIRST if verdict in against.values())
        said = dict.fromkeys(figures.text("candles", place, "sentence")[:500] for place in against)
        sentence = f"{figures.coin} stands on candles that nobody can trust. {' '.join(said)}"
        return Finding(worst, float(len(against)), observed, sentence)
    is_simulated = [figures.flag("candles", place, "simulated") for place in PLACES]
    kind = "simulated, as its simulator makes them" if all(is_simulated) else "sound"
    sentence = f"{figures.coin} was trained and measured on candles that are {kind}."
    return Finding(Verdict.PASSED, 0.0, observed, sentence)


def judge_lookahead(figures: Figures, parameters: Parameters) -> Finding:
    """No feature of a bar knows what came after it."""
    rows, least = figures.count("lookahead", "rows"), int(parameters["rows"])
    differing = figures.names("lookahead", "columns_differing")
    if differing:
        observed = f"{len(differing)} features know the future: {listed(differing)}"
        sentence = (
            f"{figures.coin}'s features see the future: with the bars after it cut off, "
            f"{listed(differing)} {'come' if len(differing) > 1 else 'comes'} out otherwise."
        )
        return Finding(Verdict.FAILED, float(len(differing)), observed, sentence)
    figures.require_sound("lookahead")
    difference = figures.number("lookahead", "largest_difference", least=0)
    if difference > LEAK:
        raise NotMeasured(f"features differ by {difference:.2g} with the future cut off, and none is named")
    observed = f"{rows:,} rows, none differs"
    if rows < least:
        sentence = (
            f"Only {rows:,} rows of {figures.coin} were computed without their future; {least:,} are needed."
        )
        return Finding(Verdict.INCONCLUSIVE, 0.0, observed, sentence)
    sentence = (
        f"{figures.coin}'s features know nothing of the future: {rows:,} rows come out the same without it."
    )
    return Finding(Verdict.PASSED, 0.0, observed, sentence)


def judge_window(figures: Figures, parameters: Parameters) -> Finding:
    """The bars it is judged by took no part in training, nor did any label that looks into them."""
    against = list(_window_faults(figures))
    rows = figures.count("windows", "gate", "rows")
    if against:
        sentence = f"{figures.coin}'s gate window is not apart from its training: {'; '.join(against)}."
        return Finding(Verdict.FAILED, float(len(against)), "; ".join(against), sentence)
    figures.require_sound("windows")
    if rows != figures.count("accuracy", "rows"):
        raise NotMeasured(f"the gate window has {rows:,} rows, and the accuracy is of another number")
    gate, stop = figures.moment("windows", "gate", "first_at"), figures.moment("windows", "stop", "last_at")
    observed = f"gate from {gate:%Y-%m-%d}, training to {stop:%Y-%m-%d}, no row in both"
    sentence = (
        f"{figures.coin}'s gate window begins on {gate:%Y-%m-%d}, after the {HORIZON_BARS} bars that the last label of its "
        f"training looks ahead, and shares no row with it."
    )
    return Finding(Verdict.PASSED, 0.0, observed, sentence)


def judge_schema(figures: Figures, parameters: Parameters) -> Finding:
    """The network reads the features that the bot computes, in the bot's order."""
    out_of_place = figures.names("schema", "columns_out_of_place")
    if out_of_place:
        observed = f"{len(out_of_place)} features out of place: {listed(out_of_place)}"
        sentence = (
            f"{figures.coin}'s scaler knows other figures than its features have: {listed(out_of_place)} "
            f"{'stand' if len(out_of_place) > 1 else 'stands'} where another feature belongs."
        )
        return Finding(Verdict.FAILED, float(len(out_of_place)), observed, sentence)
    figures.text("schema", "name")
    checks = {
        "digest_matches": "what the bot computes",
        "names_match": "in the bot's order",
        "statistics_match": "scaled as the training candles are",
    }
    return all_true(figures, "schema", checks)


def judge_reload(figures: Figures, parameters: Parameters) -> Finding:
    """The stored bytes do what training reported of them."""
    if figures.says_no("reload", "weights_equal_in_graph"):
        sentence = f"{figures.coin}'s graph holds other weights than its weights file: one of them is not what was trained."
        return Finding(Verdict.FAILED, None, "the graph holds other weights", sentence)
    if figures.says_no("reload", "cuts_match"):
        sentence = f"{figures.coin} says that its classes were cut elsewhere than its training candles have their terciles."
        return Finding(Verdict.FAILED, None, "classes cut elsewhere than in training", sentence)
    rows = _same_rows(figures)
    reported, recomputed = (figures.share("reload", at, "accuracy") for at in ("reported", "recomputed"))
    losses = [figures.number("reload", at, "loss", least=0) for at in ("reported", "recomputed")]
    loss, accuracy = abs(losses[0] - losses[1]), abs(reported - recomputed)
    observed = (
        f"loss {losses[1]:.4f} (reported {losses[0]:.4f}), "
        f"right in {percent(recomputed, beside=reported)} ({percent(reported, beside=recomputed)})"
    )
    # One row that tips over in the last digit is no other network.
    allowed = max(float(parameters["accuracy"]), 1.5 / rows)
    if loss > parameters["loss"] or accuracy > allowed:
        sentence = (
            f"{figures.coin}'s stored bytes are not what training reported: on the {rows:,} bars it stopped by, "
            f"loss {losses[1]:.4f} instead of {losses[0]:.4f}, right in {percent(recomputed, beside=reported)} "
            f"instead of {percent(reported, beside=recomputed)}."
        )
        return Finding(Verdict.FAILED, loss, observed, sentence)
    figures.require_sound("reload")
    for name in ("weights_equal_in_graph", "cuts_match"):
        figures.flag("reload", name)
    if abs(figures.number("reload", "largest_difference", least=0) - max(loss, accuracy)) > 1e-9:
        raise NotMeasured("the largest difference that is stated is not that of the figures beside it")
    sentence = (
        f"{figures.coin}'s stored bytes do what training reported: loss {losses[1]:.4f}, right in "
        f"{percent(recomputed)} of the {rows:,} bars it stopped by."
    )
    return Finding(Verdict.PASSED, loss, observed, sentence)


EVIDENCE_GATES = (
    Gate("candles", judge_candles, lambda _: "trained and measured on candles that passed their own checks"),
    Gate(
        "lookahead",
        judge_lookahead,
        lambda p: f"features are the same without the future, {int(p['rows']):,} rows",
        (Threshold("rows", 64, 1, 100_000, is_looser_when="lower", is_whole=True),),
    ),
    Gate(
        "window",
        judge_window,
        lambda _: f"after fit and stop window, {HORIZON_BARS} bars purged, no row in both",
    ),
    Gate(
        "schema", judge_schema, lambda _: "features, their order and their scale are those the bot computes"
    ),
    Gate(
        "reload",
        judge_reload,
        lambda p: (
            f"loss within {p['loss']:g} and accuracy within {100 * p['accuracy']:g} points of what training reported"
        ),
        (
            Threshold("loss", 0.001, 0.0, 0.1, is_looser_when="higher"),
            Threshold("accuracy", 0.001, 0.0, 0.1, is_looser_when="higher"),
        ),
    ),
)


def _candle_verdict(figures: Figures, place: str) -> Verdict:
    if figures.section("candles", place).get("verdict") == "":
        raise NotMeasured(f"the candles {PLACES[place]} have not been judged yet")
    said = figures.text("candles", place, "verdict")
    if said not in list(Verdict):
        raise NotMeasured(f"the candles {PLACES[place]} were judged {said[:40]!r}, which is no verdict")
    return Verdict(said)


def _window_faults(figures: Figures) -> Iterator[str]:
    """Every way in which training has seen the gate window, or might have."""
    bars = figures.count("windows", "horizon_bars")
    if bars != HORIZON_BARS:
        raise NotMeasured(
            f"labels look {HORIZON_BARS} bars ahead, and the windows were looked at with {bars}"
        )
    purge = bars * timedelta(seconds=figures.number("windows", "interval_seconds", least=1, greatest=1e9))
    first = figures.moment("windows", "gate", "first_at")
    if first > figures.moment("windows", "gate", "last_at"):
        raise NotMeasured("the gate window ends before it begins")
    digest = figures.text("windows", "gate", "digest")
    for name in ("fit", "stop"):
        if not figures.count("windows", name, "rows"):
            raise NotMeasured(f"the {name} window holds no row")
        begun, last = (figures.moment("windows", name, end) for end in ("first_at", "last_at"))
        if begun > last:
            raise NotMeasured(f"the {name} window ends before it begins")
        if last >= first:
            yield f"the {name} window reaches to {last:%Y-%m-%d %H:%M}, the gate's begins on {first:%Y-%m-%d %H:%M}"
        elif last + purge >= first:
            yield f"labels of the {name} window look into it"
        if figures.text("windows", name, "digest") == digest:
            yield f"the {name} window's rows are its own"
    shared = figures.count("windows", "rows_shared")
    if shared:
        yield f"{shared:,} of its rows are among those it was trained on"
    figures.flag("windows", "on_training_candles")
    if not figures.flag("windows", "recomputed"):
        yield "the windows that its manifest names are not those of its training candles"


def _same_rows(figures: Figures) -> int:
    reported, recomputed = (figures.count("reload", at, "rows") for at in ("reported", "recomputed"))
    if reported != recomputed or not reported:
        raise NotMeasured(f"training stopped by {reported:,} rows, and {recomputed:,} were measured again")
    figures.count("reload", "reported", "epoch")
    return reported
