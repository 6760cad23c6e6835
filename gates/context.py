"""What the service knows of a measurement beyond its figures: which attempt it is, and the verdicts on its candles."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from audit.models import AuditEvent
from gates.models import Measurement
from mlcore.features.splits import GATE_SHARE
from mlcore.fitting.recipes import LINES_WITHOUT_ATTEMPTS
from mlcore.verdict import Verdict
from training.models import Bundle, Dataset
from training.rules import JobState
from training.services import candle_checks

NEARLY_THE_SAME = 0.5
"""Gate windows that share this part of the shorter one count as one window."""

Window = tuple[datetime, datetime]


def build_context(measurement: Measurement) -> dict[str, Any]:
    """What a diagnosis freezes beside the figures. The caller holds the audit head.

    A measurement that failed has only its candles: it showed nobody a figure, and is not an attempt.
    """
    trained_on = measurement.bundle.dataset
    candles = {
        "measured": _describe_candles(measurement.dataset),
        "training": _describe_candles(trained_on) if trained_on else None,
    }
    if measurement.state != JobState.SUCCEEDED:
        return {"candles": candles}
    return {"candles": candles, "attempts": _count_attempts(measurement)}


def _describe_candles(dataset: Dataset) -> dict[str, Any]:
    return {
        "digest": dataset.digest,
        # Withdrawn candles passed once; they no longer support a model.
        "verdict": Verdict.FAILED if dataset.is_withdrawn else dataset.verdict,
        "sentence": candle_checks.format_verdict(dataset),
        "simulated": dataset.is_simulated,
    }


def _count_attempts(measurement: Measurement) -> dict[str, Any]:
    """Which attempt on this gate window it is, in the order of first success: the number never changes."""
    window = measurement.document.get("window")
    window = window if isinstance(window, Mapping) else {}
    ends = {at: window.get(at) for at in ("first_at", "last_at")}
    if not is_attempt(measurement.bundle):
        return {"count": 1, "earlier": [], "window": ends}
    firsts = _find_first_successes(measurement)
    own = firsts[measurement.bundle.digest]
    earlier = sorted((seq, digest) for digest, seq in firsts.items() if seq < own)
    return {"count": len(earlier) + 1, "earlier": [digest for _, digest in earlier], "window": ends}


def is_attempt(bundle: Bundle) -> bool:
    """Whether measuring it is an attempt at a release. An imported model always is, whatever its line."""
    return bool(bundle.origin) or bundle.line not in LINES_WITHOUT_ATTEMPTS


def _find_first_successes(measurement: Measurement) -> dict[str, int]:
    """{bundle digest: number of the event of its first successful measurement on nearly this gate window}."""
    datasets = _find_datasets_with_window(measurement)
    rows = (
        Measurement.objects.filter(
            bundle__coin=measurement.bundle.coin, state=JobState.SUCCEEDED, dataset__in=datasets
        )
        .select_related("bundle")
        .defer("body", "bundle__manifest")
    )
    attempts = {row.pk: row.bundle.digest for row in rows if is_attempt(row.bundle)}
    succeeded = _find_success_events(attempts)
    firsts: dict[str, int] = {}
    for pk, digest in attempts.items():
        firsts[digest] = min(firsts.get(digest, succeeded[pk]), succeeded[pk])
    return firsts


def _find_success_events(measurements: Iterable[int]) -> dict[int, int]:
    """{measurement: number of its event}. The audit chain is an order that no clock changes. Without an event: 0."""
    events = AuditEvent.objects.filter(
        kind="measurement.succeeded",
        object_type="measurement",
        object_id__in=[str(pk) for pk in measurements],
    ).values_list("object_id", "seq")
    return {**dict.fromkeys(measurements, 0), **{int(pk): seq for pk, seq in events}}


def _find_datasets_with_window(measurement: Measurement) -> list[int]:
    """The datasets with nearly the same gate window. A simulated market shares its history with no other."""
    own = measurement.dataset
    if own.is_simulated:
        return [own.pk]
    real = Dataset.objects.filter(coin=own.coin_id, is_simulated=False)
    return [
        other.pk
        for other in real
        if other == own or _is_nearly_the_same(_get_gate_window(own), _get_gate_window(other))
    ]


def _get_gate_window(dataset: Dataset) -> Window:
    """The last part of its history, exact to a few bars."""
    return dataset.last_at - GATE_SHARE * (dataset.last_at - dataset.first_at), dataset.last_at


def _is_nearly_the_same(one: Window, other: Window) -> bool:
    """Whether two windows share half of the shorter one."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    shorter = min(one[1] - one[0], other[1] - other[0])
    return shared >= NEARLY_THE_SAME * shorter
