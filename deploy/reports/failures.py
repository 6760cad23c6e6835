"""The five known failures of V6: the figure that shows each, and the gate that detects it."""

from collections.abc import Callable
from dataclasses import dataclass

from common.formatting import format_percent, format_signed
from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured
from mlcore.constants import CLASSES

Reader = Callable[[MeasurementReader], str]


@dataclass(frozen=True)
class KnownFailure:
    """One of the five."""

    number: int
    name: str
    plan: str
    """How it showed in V6."""
    gate: str
    measure: str
    """What the figure is."""
    read: Reader

    def figure(self, measurement: MeasurementReader) -> str:
        """The figure in a few characters; empty where it was not measured."""
        try:
            return self.read(measurement)
        except NotMeasured:
            return ""


def _certain(measurement: MeasurementReader) -> str:
    return format_percent(measurement.share("confidence", "shares_over", "0.99"))


def _most_said(measurement: MeasurementReader) -> str:
    shares = {name: measurement.share("shares", name) for name in CLASSES}
    most = max(shares, key=lambda name: shares[name])
    return f"{most.capitalize()} {format_percent(shares[most])}"


def _logits(measurement: MeasurementReader) -> str:
    least, greatest = (measurement.number("logits", name) for name in ("least", "greatest"))
    return f"{format_signed(least)} … {format_signed(greatest)}"


def _scaler(measurement: MeasurementReader) -> str:
    if not measurement.flag("scaler", "present"):
        return "no scaler"
    where = "in the graph" if measurement.flag("scaler", "in_graph") else "not in the graph"
    return f"{measurement.count('scaler', 'count')} scales, {where}"


def _single_row(measurement: MeasurementReader) -> str:
    if not measurement.flag("single_sample", "runs"):
        return "does not run"
    difference = measurement.number("single_sample", "largest_difference", least=0)
    return f"{difference:.0e} apart" if difference else "equal"


FAILURES = (
    KnownFailure(
        1,
        "Severe overconfidence",
        "100 % of predictions more than 99 % sure",
        "confidence",
        "predictions more than 99 % sure",
        _certain,
    ),
    KnownFailure(
        2,
        "Extreme class bias",
        "98–100 % of predictions are Down",
        "class_balance",
        "the direction said most, and how often",
        _most_said,
    ),
    KnownFailure(
        3,
        "Logit explosion",
        "logits of 16,946 to 52,717, where −10 to +10 is sane",
        "logit_range",
        "least and greatest logit",
        _logits,
    ),
    KnownFailure(
        4,
        "Feature scaling",
        "raw prices are not normalised, and the scaler is not saved",
        "scaler",
        "the scaler that comes with the bundle",
        _scaler,
    ),
    KnownFailure(
        5,
        "Batch normalisation of a single row",
        "a single sample crashes, or gets another answer than in a batch",
        "single_sample",
        "logits of one row against the same row in a batch",
        _single_row,
    ),
)
