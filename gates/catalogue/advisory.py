"""Advisory gates: shown to people, and required by no default policy: calibration, stability, latency, drift,
and whether a second training gave the same model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.formatting import format_gap, format_limit, format_list, format_percent
from gates.catalogue.gate import Group, Parameters, Reading, Threshold
from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured
from mlcore.bundle.format import MODEL_FILE
from mlcore.constants import PSI_DRIFTED, VOLATILITY_TERCILES
from mlcore.verdict import Finding, Verdict


@dataclass(frozen=True)
class Slice:
    """A part of the gate window: a month, or the bars of one tercile of volatility."""

    name: str
    rows: int
    accuracy: float


# Why the thresholds are where they are. On real hourly candles the calibration error is 0.01–0.03, on simulated ones, where
# smoothed labels keep confidence modest, 0.07–0.12, for V6 0.67. A Brier score of 2/3 is that of always a third each. Months
# and terciles of real candles fall 6 points below the whole, simulated ones 7. A busy machine takes 70 ms for the slowest of
# a hundred predictions, and a bot asks once a bar. Three weeks of real candles have an index of 3.4 in the worst of
# relative72, with three features of four above 0.25: volatility lasts. Prices as features, as V6 had them, exceed 6.
ADVISORY = Group("Advisory", "shown, and decides nothing", is_advisory=True)


def read_calibration(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    error, brier = measurement.share("calibration", "ece"), measurement.number("calibration", "brier")
    return Reading(f"{format_gap(error)} points off", f"Brier score {brier:.3f}")


@ADVISORY.register(
    "calibration",
    lambda p: f"at most {100 * p['ece']:g} points off, Brier score at most {p['brier']:g}",
    Threshold("ece", 0.15, 0.0, 1.0, "higher", "The expected calibration error: 0.01 is a point."),
    Threshold("brier", 0.666, 0.0, 2.0, "higher", "The Brier score, 0 … 2; always a third each has ⅔."),
    read=read_calibration,
)
def judge_calibration(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """Confidence matches how often predictions are right."""
    most, most_brier = float(parameters["ece"]), float(parameters["brier"])
    rows = measurement.count("calibration", "rows")
    error = measurement.share("calibration", "ece")
    brier = measurement.number("calibration", "brier", least=0, greatest=2)
    if not rows or not measurement.count("calibration", "bins"):
        raise NotMeasured("the calibration is of no bars at all")
    measurement.require_no_problem("calibration")
    sentence = (
        f"{measurement.coin}'s confidence differs from its accuracy by {format_gap(error)} points on average over {rows:,} "
        f"bars (expected calibration error), with a Brier score of {brier:.3f}; at most {format_gap(most)} points and "
        f"{most_brier:g} are usual."
    )
    verdict = Verdict.PASSED if error <= most and brier <= most_brier else Verdict.FAILED
    return Finding(verdict, error, f"{format_gap(error)} points off, Brier score {brier:.3f}", sentence)


def read_stability(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    slices = [
        *_read_slices(measurement, "months", "month"),
        *_read_slices(measurement, "volatility", "tercile"),
    ]
    worst = min(slices, key=lambda part: part.accuracy)
    return Reading(f"{100 * worst.accuracy:.1f} % at worst", f"in {worst.name}, {worst.rows:,} bars")


@ADVISORY.register(
    "stability",
    lambda p: (
        f"no month or tercile of {int(p['least_rows']):,} bars more than {100 * p['falls_by']:g} points "
        "below the whole"
    ),
    Threshold("falls_by", 0.10, 0.0, 1.0, "higher", "How far a part may fall below the whole."),
    Threshold("least_rows", 200, 1, 1e6, "higher", "Months with fewer bars are ignored."),
    read=read_stability,
)
def judge_stability(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """As accurate in every month, and in calm and volatile markets, as on the whole."""
    falls_by, least = float(parameters["falls_by"]), int(parameters["least_rows"])
    coin, whole = measurement.coin, measurement.share("accuracy", "point")
    measurement.require_no_problem("stability")
    months = _read_slices(measurement, "months", "month")
    terciles = _read_slices(measurement, "volatility", "tercile")
    if sorted(part.name for part in terciles) != sorted(VOLATILITY_TERCILES):
        raise NotMeasured(f"the accuracy in {', '.join(VOLATILITY_TERCILES)} markets was not measured")
    _require_whole(months, measurement.count("accuracy", "rows"), whole)
    large = [part for part in (*months, *terciles) if part.rows >= least]
    if not large:
        sentence = f"No month or tercile of {coin}'s gate window has the {least:,} bars that are required."
        return Finding(Verdict.INCONCLUSIVE, None, "too few bars in every part", sentence)
    worst = min(large, key=lambda part: part.accuracy)
    accuracy = format_percent(worst.accuracy)
    observed = (
        f"worst in {worst.name}: {accuracy} of {worst.rows:,} bars, {format_percent(whole)} on the whole"
    )
    sentence = (
        f"{coin}'s accuracy is {format_percent(worst.accuracy)} of {worst.rows:,} bars in its worst part ({worst.name}), "
        f"{format_percent(whole)} on the whole; a fall of at most {format_gap(falls_by)} points is usual."
    )
    is_stable = whole - worst.accuracy <= falls_by
    return Finding(Verdict.PASSED if is_stable else Verdict.FAILED, worst.accuracy, observed, sentence)


def read_latency(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    return Reading(f"{measurement.number('latency', 'p99_ms'):.3g} ms", "for 99 of 100 rows")


@ADVISORY.register(
    "latency",
    lambda p: f"99 of 100 predictions within {p['p99_ms']:g} ms",
    Threshold("p99_ms", 250.0, 0.001, 60_000, "higher", "The time for 99 of 100 single rows, in ms."),
    read=read_latency,
)
def judge_latency(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """A single row is predicted long before a bot needs it."""
    most, rows = float(parameters["p99_ms"]), measurement.count("latency", "rows")
    median, slow = (measurement.number("latency", name, least=0) for name in ("p50_ms", "p99_ms"))
    if not rows or median > slow or slow == 0:
        raise NotMeasured(
            f"the median of {rows:,} predictions is {median:g} ms, and the 99th percentile {slow:g} ms", slow
        )
    measurement.require_no_problem("latency")
    sentence = (
        f"{measurement.coin} predicts 99 of 100 single rows within {slow:.3g} ms, half of them within {median:.3g} ms; "
        f"{most:g} ms are allowed."
    )
    observed = f"{slow:.3g} ms for 99 of 100, {median:.3g} ms for half"
    return Finding(Verdict.PASSED if slow <= most else Verdict.FAILED, slow, observed, sentence)


def read_drift(measurement: MeasurementReader, parameters: Parameters) -> Reading:
    name, largest = (
        measurement.text("drift", "largest", "name"),
        measurement.number("drift", "largest", "psi"),
    )
    share = 100 * measurement.share("drift", "over")
    return Reading(f"{share:.0f} % of features", f"most {name}, PSI {largest:.2f}")


@ADVISORY.register(
    "drift",
    lambda p: (
        f"at most {format_limit(p['share'])} of features above {PSI_DRIFTED:g}, none above {p['psi']:g}"
    ),
    Threshold(
        "share", 0.9, 0.0, 1.0, "higher", f"The share of features that may drift (PSI above {PSI_DRIFTED:g})."
    ),
    Threshold("psi", 5.0, 0.0, 1000.0, "higher", "No feature's PSI may be above this."),
    read=read_drift,
)
def judge_drift(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """Recent features are distributed as those it was trained on."""
    most_share, most_psi = float(parameters["share"]), float(parameters["psi"])
    if not measurement.count("drift", "recent_rows") or not measurement.count("drift", "fit_rows"):
        raise NotMeasured("the drift is of no bars at all")
    names = sorted(map(str, measurement.section("drift", "psi")))
    psi = {name: measurement.number("drift", "psi", name, least=0) for name in names}
    over, name = measurement.share("drift", "over"), measurement.text("drift", "largest", "name")
    largest = measurement.number("drift", "largest", "psi", least=0)
    if not psi or psi.get(name) != largest or largest != max(psi.values()):
        raise NotMeasured("the feature named as drifting most is another one")
    measurement.require_no_problem("drift")
    drifted = [name for name, value in sorted(psi.items(), key=lambda item: -item[1]) if value > PSI_DRIFTED]
    if abs(over - len(drifted) / len(psi)) > 1e-6:
        raise NotMeasured("the share of drifting features does not follow from their indices")
    observed = f"{format_percent(over)} of features above {PSI_DRIFTED:g}, most {name[:40]} ({largest:.2f})"
    sentence = (
        f"{measurement.coin}'s features have drifted from training in {len(drifted)} of {len(psi)} cases"
        f"{f' ({format_list(drifted)})' if drifted else ''}, {name[:40]} the most with a population stability index "
        f"(PSI) of "
        f"{largest:.2f}; at most {format_limit(most_share)} above {PSI_DRIFTED:g} and none above {most_psi:g} are usual."
    )
    is_usual = over <= most_share and largest <= most_psi
    return Finding(Verdict.PASSED if is_usual else Verdict.FAILED, largest, observed, sentence)


@ADVISORY.register(
    "reproduced",
    lambda p: (
        f"a second worker's training gives the same model, or at most {format_limit(p['differing'])} other directions"
    ),
    Threshold(
        "differing",
        0.03,
        0.0,
        1.0,
        "higher",
        "The share of directions on the stop window that may differ.",
    ),
    applies=lambda measurement: isinstance(measurement.document.get("second_run"), Mapping),
)
def judge_reproduced(measurement: MeasurementReader, parameters: Parameters) -> Finding:
    """A second worker trained it again from the same candles, settings and seed, and got the same model."""
    coin, most = measurement.coin, float(parameters["differing"])
    if measurement.is_null("second_run"):
        sentence = f"{coin}'s model was trained once. A launch can ask that a second worker trains it again."
        return Finding(Verdict.INCONCLUSIVE, None, "trained once", sentence)
    state, run = measurement.text("second_run", "state"), measurement.count("second_run", "run")
    if state != "succeeded":
        raise NotMeasured(
            f"run {run}, its second training, {state}: {measurement.text('second_run', 'failure')[:300]}"
        )
    measurement.require_no_problem("reproduction")
    if measurement.text("reproduction", "bundle") != measurement.text("second_run", "bundle"):
        raise NotMeasured("the model that was compared is not that of the second training")
    rows, others = (measurement.count("reproduction", name) for name in ("rows", "directions_differing"))
    difference = measurement.number("reproduction", "largest_difference", least=0)
    is_equal = measurement.flag("reproduction", "files_equal", MODEL_FILE)
    if not rows or others > rows or (is_equal and (difference or others)):
        raise NotMeasured("the figures of the two trainings contradict one another")
    share, observed = others / rows, f"{MODEL_FILE} equal, bit for bit"
    if not is_equal:
        observed = f"{format_percent(share, beside=most)} of {rows:,} directions differ, logits by up to {difference:.2g}"
    first, second = (measurement.names("second_run", which, "workers") for which in ("first", "second"))
    if not first or not second:
        raise NotMeasured("who trained it is not known")
    sentence = (
        f"{coin}'s model was trained {_name_workers(first, second)}: {observed};"
        f" {format_limit(most)} of directions may differ."
    )
    if share > most:
        return Finding(Verdict.FAILED, share, observed, sentence)
    if not set(first).isdisjoint(second):
        return Finding(Verdict.INCONCLUSIVE, share, f"{observed}, by the same worker", sentence)
    return Finding(Verdict.PASSED, share, observed, sentence)


def _name_workers(first: list[str], second: list[str]) -> str:
    """Who trained it each time; a run that was interrupted may have had more than one worker."""
    one, other = (" and ".join(name[:60] for name in names[:3]) for names in (first, second))
    if one == other:
        return f"twice by {one}, as no other worker took it"
    both = sorted({*first} & {*second})
    return f"by {one}, and again by {other}{f': {both[0][:60]} took part in both' if both else ''}"


def _read_slices(measurement: MeasurementReader, part: str, key: str) -> list[Slice]:
    """Raises NotMeasured unless every entry is a name with an accuracy over at least one row."""
    entries = measurement.section("stability").get(part)
    if not isinstance(entries, list) or not entries:
        raise NotMeasured(f"the stability over {part} was not measured")
    return [_read_slice(entry, part, key) for entry in entries]


def _read_slice(entry: Any, part: str, key: str) -> Slice:
    reader = MeasurementReader({part: entry} if isinstance(entry, Mapping) else {})
    rows = reader.count(part, "rows")
    if not rows:
        raise NotMeasured(f"the stability over {part} counts one that has no bars")
    return Slice(reader.text(part, key)[:40], rows, reader.share(part, "accuracy"))


def _require_whole(months: list[Slice], rows: int, accuracy: float) -> None:
    """Raise NotMeasured where the months do not make up the gate window."""
    hits = sum(month.rows * month.accuracy for month in months)
    if sum(month.rows for month in months) != rows or abs(hits - rows * accuracy) > 0.5:
        raise NotMeasured("the months do not add up to the gate window")
