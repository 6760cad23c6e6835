"""Whether the figures may be believed: what it was trained and measured on, and whether that is what was reported."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from common.formatting import format_list, format_percent
from gates.catalogue.baseline import judge_checklist, read_horizon
from gates.catalogue.gate import Group, Parameters, Threshold
from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured
from mlcore.features.labels import LabelKind
from mlcore.verdict import WORST_FIRST, Finding, Verdict

CANDLE_USES = {"measured": "measured on", "training": "trained on"}
LEAK = 0.01
"""In units of a feature's own deviation: what sees one bar ahead differs by more (mlcore.evaluation.lookahead)."""
EVIDENCE = Group(
    "Evidence", "sound candles, none of the gate window seen in training, figures as training reported them"
)


@EVIDENCE.register("candles", lambda _: "trained and measured on candles that passed their own checks")
def judge_candles(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """Trained and measured on candles that passed their own checks."""
    if measurement.is_null("candles", "training"):
        raise NotMeasured("the candles it was trained on are unknown, so they were not checked")
    if measurement.text("candles", "measured", "digest") != measurement.text("dataset_digest"):
        raise NotMeasured("the candles that were checked are not those that it was measured on")
    if measurement.text("candles", "training", "digest") != measurement.text("trained_on"):
        raise NotMeasured("the candles that were checked are not those that its manifest names")
    verdicts = {use: _get_candle_verdict(measurement, use) for use in CANDLE_USES}
    against = {use: verdict for use, verdict in verdicts.items() if verdict != Verdict.PASSED}
    observed = ", ".join(f"{CANDLE_USES[use]}: {verdict}" for use, verdict in verdicts.items())
    if against:
        worst = next(verdict for verdict in WORST_FIRST if verdict in against.values())
        reasons = dict.fromkeys(measurement.text("candles", use, "sentence")[:500] for use in against)
        sentence = f"{measurement.coin} uses candles that did not pass their checks. {' '.join(reasons)}"
        return Finding(worst, float(len(against)), observed, sentence)
    is_simulated = [measurement.flag("candles", use, "simulated") for use in CANDLE_USES]
    kind = "simulated, and as the simulator makes them" if all(is_simulated) else "sound"
    sentence = f"{measurement.coin} was trained and measured on candles that are {kind}."
    return Finding(Verdict.PASSED, 0.0, observed, sentence)


@EVIDENCE.register(
    "lookahead",
    lambda p: f"features are the same without later bars, {int(p['rows']):,} rows",
    Threshold("rows", 64, 1, 100_000, "lower", "The number of rows to compute without later bars."),
)
def judge_lookahead(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """No feature of a bar depends on later bars."""
    coin = measurement.coin
    rows, least = measurement.count("lookahead", "rows"), int(parameters["rows"])
    differing = measurement.names("lookahead", "columns_differing")
    if differing:
        sentence = (
            f"{coin}'s features look ahead: {format_list(differing)} {'change' if len(differing) > 1 else 'changes'} "
            "when the later bars are cut off."
        )
        observed = f"{len(differing)} features look ahead: {format_list(differing)}"
        return Finding(Verdict.FAILED, float(len(differing)), observed, sentence)
    measurement.require_no_problem("lookahead")
    difference = measurement.number("lookahead", "largest_difference", least=0)
    if difference > LEAK:
        raise NotMeasured(
            f"features differ by {difference:.2g} with later bars cut off, and no feature is named"
        )
    observed = f"{rows:,} rows, none differs"
    if rows < least:
        sentence = f"Only {rows:,} rows of {coin} were computed without later bars; {least:,} are required."
        return Finding(Verdict.INCONCLUSIVE, 0.0, observed, sentence)
    sentence = f"{coin}'s features do not look ahead: {rows:,} rows are the same without later bars."
    return Finding(Verdict.PASSED, 0.0, observed, sentence)


@EVIDENCE.register(
    "window", lambda _: "after fit and stop window, the label's horizon purged, no row in both"
)
def judge_window(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """No bar of the gate window took part in training, nor did any label that looks into it."""
    faults = list(_find_window_faults(measurement))
    rows = measurement.count("windows", "gate", "rows")
    if faults:
        sentence = f"{measurement.coin}'s gate window overlaps its training: {'; '.join(faults)}."
        return Finding(Verdict.FAILED, float(len(faults)), "; ".join(faults), sentence)
    measurement.require_no_problem("windows")
    if rows != measurement.count("accuracy", "rows"):
        raise NotMeasured(f"the gate window has {rows:,} rows, and the accuracy is of another number")
    gate = measurement.timestamp("windows", "gate", "first_at")
    stop = measurement.timestamp("windows", "stop", "last_at")
    if doubt := _find_doubt(measurement, gate):
        sentence = (
            f"{measurement.coin}'s model was trained elsewhere, and {doubt}: nothing shows that its training kept to the"
            " declared windows. Measure it on candles that it cannot have seen."
        )
        return Finding(Verdict.INCONCLUSIVE, None, doubt, sentence)
    purged = read_horizon(measurement)
    observed = f"gate from {gate:%Y-%m-%d}, training to {stop:%Y-%m-%d}, no row in both"
    sentence = (
        f"{measurement.coin}'s gate window begins on {gate:%Y-%m-%d}, after the {purged} bars that the last label of "
        "training looks ahead, and shares no row with training."
    )
    return Finding(Verdict.PASSED, 0.0, observed, sentence)


@EVIDENCE.register("schema", lambda _: "features, their order and their scale are those the bot computes")
def judge_schema(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """The network reads the features that the bot computes, in the bot's order."""
    misplaced = measurement.names("schema", "columns_out_of_place")
    if misplaced:
        sentence = (
            f"{measurement.coin}'s scaler does not fit its features: the statistics of {format_list(misplaced)} "
            f"belong to {'other features' if len(misplaced) > 1 else 'another feature'}."
        )
        observed = f"{len(misplaced)} features out of place: {format_list(misplaced)}"
        return Finding(Verdict.FAILED, float(len(misplaced)), observed, sentence)
    measurement.text("schema", "name")
    if measurement.is_false("schema", "has_scaler"):
        # Without a scaler nothing names the columns: in another order they would give other figures.
        measurement.number("reload", "recomputed", "loss", least=0)
        measurement.require_no_problem("reload")
        return judge_checklist(measurement, "schema", {"digest_matches": "the features that bots compute"})
    checks = {
        "digest_matches": "the features that bots compute",
        "names_match": "in the bot's order",
        "statistics_match": "scaled as the training candles are",
    }
    return judge_checklist(measurement, "schema", checks)


@EVIDENCE.register(
    "reload",
    lambda p: (
        f"loss within {p['loss']:g} and accuracy within {100 * p['accuracy']:g} points of what training reported"
    ),
    Threshold("loss", 0.001, 0.0, 0.1, "higher", "How far the loss may differ from training's."),
    Threshold("accuracy", 0.001, 0.0, 0.1, "higher", "How far accuracy may differ. One row may always."),
)
def judge_reload(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """The stored files give the figures that training reported."""
    coin = measurement.coin
    if measurement.is_false("reload", "weights_equal_in_graph"):
        sentence = f"{coin}'s graph and weights file hold different weights: one of them was not trained."
        return Finding(Verdict.FAILED, None, "the graph holds other weights", sentence)
    if measurement.is_false("reload", "cuts_match"):
        source = (
            "those it declares" if _has_fixed_cuts(measurement) else "the terciles of its training candles"
        )
        sentence = f"The cuts between {coin}'s classes are not {source}."
        return Finding(Verdict.FAILED, None, "classes cut elsewhere than in training", sentence)
    rows = _get_reloaded_rows(measurement)
    then, now = (measurement.share("reload", at, "accuracy") for at in ("reported", "recomputed"))
    losses = [measurement.number("reload", at, "loss", least=0) for at in ("reported", "recomputed")]
    loss, accuracy = abs(losses[0] - losses[1]), abs(then - now)
    texts = format_percent(now, beside=then), format_percent(then, beside=now)
    observed = f"loss {losses[1]:.4f} (reported {losses[0]:.4f}), accuracy {texts[0]} ({texts[1]})"
    # One row that changes class in the last digit does not make another network.
    allowed = max(float(parameters["accuracy"]), 1.5 / rows)
    if loss > parameters["loss"] or accuracy > allowed:
        sentence = (
            f"{coin}'s stored files do not give what training reported: on the {rows:,} bars of early stopping, "
            f"loss {losses[1]:.4f} instead of {losses[0]:.4f}, accuracy {texts[0]} instead of {texts[1]}."
        )
        return Finding(Verdict.FAILED, loss, observed, sentence)
    measurement.require_no_problem("reload")
    for name in ("weights_equal_in_graph", "cuts_match"):
        measurement.flag("reload", name)
    if abs(measurement.number("reload", "largest_difference", least=0) - max(loss, accuracy)) > 1e-9:
        raise NotMeasured("the stated largest difference does not follow from loss and accuracy")
    sentence = (
        f"{coin}'s stored files give what training reported: loss {losses[1]:.4f}, accuracy {format_percent(now)} "
        f"on the {rows:,} bars of early stopping."
    )
    return Finding(Verdict.PASSED, loss, observed, sentence)


def _find_doubt(measurement: MeasurementReader, gate: datetime) -> str | None:
    """Why a model from outside may have seen the gate window; None if it arrived before these candles could be known.

    A real candle is known once it has closed. A simulated market is known from when it was made here.
    """
    if measurement.is_null("import"):
        return None
    imported_at = measurement.timestamp("import", "imported_at")
    if measurement.flag("candles", "measured", "simulated"):
        if measurement.timestamp("import", "candles_at") > imported_at:
            return None
        return f"this simulated market was made before it was imported on {imported_at:%Y-%m-%d %H:%M}"
    if gate >= imported_at:
        return None
    return f"its gate window begins on {gate:%Y-%m-%d}, before it was imported on {imported_at:%Y-%m-%d}"


def _get_candle_verdict(measurement: MeasurementReader, use: str) -> Verdict:
    if measurement.section("candles", use).get("verdict") == "":
        raise NotMeasured(f"the candles it was {CANDLE_USES[use]} have not been checked yet")
    verdict = measurement.text("candles", use, "verdict")
    if verdict not in list(Verdict):
        raise NotMeasured(f"the candles it was {CANDLE_USES[use]} have the unknown verdict {verdict[:40]!r}")
    return Verdict(verdict)


def _find_window_faults(measurement: MeasurementReader) -> Iterator[str]:
    """Every way in which training has seen the gate window, or may have."""
    bars = measurement.count("windows", "horizon_bars")
    horizon = read_horizon(measurement)
    if bars != horizon:
        raise NotMeasured(f"labels look {horizon} bars ahead, and the windows were checked for {bars}")
    seconds = measurement.number("windows", "interval_seconds", least=1, greatest=1e9)
    purge = bars * timedelta(seconds=seconds)
    first = measurement.timestamp("windows", "gate", "first_at")
    if first > measurement.timestamp("windows", "gate", "last_at"):
        raise NotMeasured("the gate window ends before it begins")
    digest = measurement.text("windows", "gate", "digest")
    for name in ("fit", "stop"):
        if not measurement.count("windows", name, "rows"):
            raise NotMeasured(f"the {name} window holds no row")
        begin, last = (measurement.timestamp("windows", name, end) for end in ("first_at", "last_at"))
        if begin > last:
            raise NotMeasured(f"the {name} window ends before it begins")
        if last >= first:
            yield f"the {name} window ends at {last:%Y-%m-%d %H:%M}, the gate window begins at {first:%Y-%m-%d %H:%M}"
        elif last + purge >= first:
            yield f"labels of the {name} window look into it"
        if measurement.text("windows", name, "digest") == digest:
            yield f"the {name} window holds the same rows"
    shared = measurement.count("windows", "rows_shared")
    if shared:
        yield f"{shared:,} of its rows were used in training"
    measurement.flag("windows", "on_training_candles")
    if not measurement.flag("windows", "recomputed"):
        yield "the windows in its manifest are not those of its training candles"


def _has_fixed_cuts(measurement: MeasurementReader) -> bool:
    label = measurement.document.get("label")
    return isinstance(label, Mapping) and label.get("kind") in (LabelKind.PERCENT, LabelKind.BARRIERS)


def _get_reloaded_rows(measurement: MeasurementReader) -> int:
    reported, recomputed = (measurement.count("reload", at, "rows") for at in ("reported", "recomputed"))
    if reported != recomputed or not reported:
        raise NotMeasured(f"training reported on {reported:,} rows, and {recomputed:,} were measured")
    measurement.count("reload", "reported", "epoch")
    return reported
