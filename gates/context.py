"""What the service knows of a measurement beyond its figures: which attempt it is, and the verdicts on its candles."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Count, Max

from audit.hash_chain import GENESIS, hash_event, to_canonical_json
from audit.models import AuditEvent
from gates.models import Attempt, Measurement
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
    """What a diagnosis freezes beside the figures. The caller has called `record_attempts`.

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
    rows = Attempt.objects.filter(dataset__in=_find_datasets_with_window(measurement), is_counted=True)
    own = rows.filter(bundle=measurement.bundle_id).order_by("seq").first()
    if not is_attempt(measurement.bundle):
        return {"count": 1, "chain": GENESIS, "window": ends}
    # Without an event of its success it counts after all others.
    earlier = rows.filter(seq__lt=own.seq) if own else rows.exclude(bundle=measurement.bundle_id)
    count = earlier.aggregate(count=Count("bundle", distinct=True))["count"]
    return {
        "count": count + 1,
        "chain": own.chain if own else _get_last_chain(measurement.bundle.coin_id),
        "window": ends,
    }


def is_attempt(bundle: Bundle) -> bool:
    """Whether measuring it is an attempt at a release. An imported model always is, whatever its line."""
    return bool(bundle.origin) or bundle.line not in LINES_WITHOUT_ATTEMPTS


def record_attempts() -> None:
    """Append the successes that the audit chain has since the last recorded one. The caller holds the audit head.

    The audit chain is an order that no clock changes. It stays the source; the rows are an index of it that can be counted.
    """
    last_seq = Attempt.objects.aggregate(last=Max("seq"))["last"] or 0
    events = AuditEvent.objects.filter(
        kind="measurement.succeeded", object_type="measurement", seq__gt=last_seq
    )
    successes = {int(pk): seq for pk, seq in events.order_by("-seq").values_list("object_id", "seq")}
    rows = Measurement.objects.select_related("bundle").defer("body", "bundle__manifest")
    measurements = rows.filter(state=JobState.SUCCEEDED).filter(success=None).in_bulk(successes)
    chains: dict[int, str] = {}
    attempts = []
    for pk in sorted(measurements, key=lambda pk: successes[pk]):
        bundle, seq = measurements[pk].bundle, successes[pk]
        previous = chains.get(bundle.coin_id) or _get_last_chain(bundle.coin_id)
        link = {"seq": seq, "bundle": bundle.digest, "dataset": measurements[pk].dataset_id}
        chains[bundle.coin_id] = hash_event(previous, to_canonical_json(link))
        attempts.append(
            Attempt(
                seq=seq,
                measurement=measurements[pk],
                coin_id=bundle.coin_id,
                dataset_id=measurements[pk].dataset_id,
                bundle=bundle,
                is_counted=is_attempt(bundle),
                chain=chains[bundle.coin_id],
            )
        )
    Attempt.objects.bulk_create(attempts)


def _get_last_chain(coin: int) -> str:
    last = Attempt.objects.filter(coin=coin).order_by("-seq").values_list("chain", flat=True).first()
    return last or GENESIS


def _find_datasets_with_window(measurement: Measurement) -> list[int]:
    """The datasets with nearly the same gate window. A simulated market shares its history with no other."""
    own = measurement.dataset
    if own.is_simulated:
        return [own.pk]
    window = _get_gate_window(own.first_at, own.last_at)
    # Only those whose history overlaps the window can share half of it.
    real = Dataset.objects.filter(
        coin=own.coin_id, is_simulated=False, last_at__gte=window[0], first_at__lte=window[1]
    )
    return [own.pk] + [
        pk
        for pk, first_at, last_at in real.exclude(pk=own.pk)
        .order_by()
        .values_list("pk", "first_at", "last_at")
        if _is_nearly_the_same(window, _get_gate_window(first_at, last_at))
    ]


def _get_gate_window(first_at: datetime, last_at: datetime) -> Window:
    """The last part of a history, exact to a few bars."""
    return last_at - GATE_SHARE * (last_at - first_at), last_at


def _is_nearly_the_same(one: Window, other: Window) -> bool:
    """Whether two windows share half of the shorter one."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    shorter = min(one[1] - one[0], other[1] - other[0])
    return shared >= NEARLY_THE_SAME * shorter
