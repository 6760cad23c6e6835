"""What the service knows of a measurement besides its figures: which attempt it is, and what its candles are worth."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from audit.models import AuditEvent
from gates.models import Measurement
from mlcore.features.splits import GATE_SHARE
from mlcore.fitting.recipes import LINES_WITHOUT_ATTEMPTS
from mlcore.verdict import Verdict
from training import services as training
from training.models import Bundle, Dataset
from training.rules import JobState

NEARLY_THE_SAME = 0.5
"""Gate windows that share this part of the shorter one are one window: what was learned on it, was learned."""

Window = tuple[datetime, datetime]


def of(measurement: Measurement) -> dict[str, Any]:
    """What a diagnosis of this measurement freezes beside its figures. The caller holds the audit head.

    Of a measuring that failed only the candles: it showed nobody a figure, and is no attempt.
    """
    trained_on = measurement.bundle.dataset
    candles = {
        "measured": _candles(measurement.dataset),
        "training": _candles(trained_on) if trained_on else None,
    }
    if measurement.state != JobState.SUCCEEDED:
        return {"candles": candles}
    return {"candles": candles, "attempts": _attempts(measurement)}


def _candles(dataset: Dataset) -> dict[str, Any]:
    return {
        "digest": dataset.digest,
        # What was withdrawn once passed; it says nothing for a model any more.
        "verdict": Verdict.FAILED if dataset.is_withdrawn else dataset.verdict,
        "sentence": training.format_verdict(dataset),
        "simulated": dataset.is_simulated,
    }


def _attempts(measurement: Measurement) -> dict[str, Any]:
    """Which try at this gate window it is, by when each first succeeded: the number is the same whenever it is asked."""
    found = measurement.document.get("window")
    window = found if isinstance(found, Mapping) else {}
    ends = {at: window.get(at) for at in ("first_at", "last_at")}
    if not is_attempt(measurement.bundle):
        return {"count": 1, "earlier": [], "window": ends}
    firsts = _first_successes(measurement)
    mine = firsts[measurement.bundle.digest]
    earlier = sorted((seq, digest) for digest, seq in firsts.items() if seq < mine)
    return {"count": len(earlier) + 1, "earlier": [digest for _, digest in earlier], "window": ends}


def is_attempt(bundle: Bundle) -> bool:
    """Whether measuring it is a try at a release. What came from outside always is, whatever line it is said to be."""
    return bool(bundle.origin) or bundle.line not in LINES_WITHOUT_ATTEMPTS


def _first_successes(measurement: Measurement) -> dict[str, int]:
    """{bundle digest: number of the event by which it was first measured on (nearly) this gate window}."""
    datasets = _with_this_window(measurement)
    rows = (
        Measurement.objects.filter(
            bundle__coin=measurement.bundle.coin, state=JobState.SUCCEEDED, dataset__in=datasets
        )
        .select_related("bundle")
        .defer("body", "bundle__manifest")
    )
    attempts = {row.pk: row.bundle.digest for row in rows if is_attempt(row.bundle)}
    succeeded = _succeeded_at(attempts)
    firsts: dict[str, int] = {}
    for pk, digest in attempts.items():
        firsts[digest] = min(firsts.get(digest, succeeded[pk]), succeeded[pk])
    return firsts


def _succeeded_at(measurements: Iterable[int]) -> dict[int, int]:
    """The audit chain is the one order that no clock and no race disturbs. Without its event a success was the first."""
    events = AuditEvent.objects.filter(
        kind="measurement.succeeded",
        object_type="measurement",
        object_id__in=[str(pk) for pk in measurements],
    ).values_list("object_id", "seq")
    return {**dict.fromkeys(measurements, 0), **{int(pk): seq for pk, seq in events}}


def _with_this_window(measurement: Measurement) -> list[int]:
    """The datasets whose gate window is this one or nearly so; simulated markets share no history with any other."""
    mine = measurement.dataset
    if mine.is_simulated:
        return [mine.pk]
    real = Dataset.objects.filter(coin=mine.coin_id, is_simulated=False)
    return [
        other.pk for other in real if other == mine or _is_nearly(_gate_window(mine), _gate_window(other))
    ]


def _gate_window(dataset: Dataset) -> Window:
    """The last stretch of its history: to a few bars, which is near enough to compare two."""
    return dataset.last_at - GATE_SHARE * (dataset.last_at - dataset.first_at), dataset.last_at


def _is_nearly(one: Window, other: Window) -> bool:
    """Whether they share half of the shorter one."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    shorter = min(one[1] - one[0], other[1] - other[0])
    return shared >= NEARLY_THE_SAME * shorter
