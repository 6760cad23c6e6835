"""What the service knows of a measurement beyond its figures: which attempt it is, and the verdicts on its candles."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Q

from audit.hash_chain import GENESIS, hash_event, to_canonical_json
from audit.models import AuditEvent
from gates.models import Attempt, Measurement
from mlcore.features.splits import DEFAULT_SHARES
from mlcore.features.terms import Terms
from mlcore.fitting.recipes import LINES_WITHOUT_ATTEMPTS
from mlcore.verdict import Verdict
from training.models import Bundle, Dataset
from training.rules import JobState
from training.services import candle_checks
from training.services.runs import list_workers

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
    return {
        "candles": candles,
        "attempts": _count_attempts(measurement),
        "import": _describe_import(measurement) if measurement.bundle.origin else None,
        "second_run": _describe_second_run(measurement),
    }


def _describe_import(measurement: Measurement) -> dict[str, str]:
    """When the model came from outside, and when the candles did that it was measured on."""
    times = {"imported_at": measurement.bundle.created_at, "candles_at": measurement.dataset.created_at}
    return {name: at.isoformat() for name, at in times.items()}


def _describe_second_run(measurement: Measurement) -> dict[str, Any] | None:
    """The second training that the measurement compared its model with, and who trained it each time."""
    run = measurement.second_run
    if run is None or run.reproduces is None:
        return None
    return {
        "run": run.pk,
        "state": run.state,
        "failure": run.failure or "no reason given",
        "bundle": run.bundle and run.bundle.digest,
        **{
            name: {"workers": list_workers(one), "device": one.device, "code_version": one.code_version}
            for name, one in (("first", run.reproduces), ("second", run))
        },
    }


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
    rows = Attempt.objects.filter(_is_on_window(measurement), is_counted=True)
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
    rows = Measurement.objects.select_related("bundle").defer("body")
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
                gate_percent=_read_gate_percent(bundle),
                chain=chains[bundle.coin_id],
            )
        )
    Attempt.objects.bulk_create(attempts)


def _get_last_chain(coin: int) -> str:
    last = Attempt.objects.filter(coin=coin).order_by("-seq").values_list("chain", flat=True).first()
    return last or GENESIS


def _read_gate_percent(bundle: Bundle) -> int:
    """Of the split that the manifest declares, by which it is measured; the default one where it cannot be read."""
    try:
        return Terms.parse(json.loads(bundle.manifest)).shares.gate_percent
    except (KeyError, TypeError, ValueError, RecursionError):
        return DEFAULT_SHARES.gate_percent


def _is_on_window(measurement: Measurement) -> Q:
    """Attempts on nearly the same gate window. A simulated market shares its history with no other.

    On one dataset all windows are the same, however large: each ends with its last bar.
    """
    own = measurement.dataset
    same = Q(dataset=own.pk)
    if own.is_simulated:
        return same
    window = _get_gate_window(own.first_at, own.last_at, _read_gate_percent(measurement.bundle))
    # Only those whose history overlaps the window can share half of it.
    others = Attempt.objects.filter(
        coin=own.coin_id,
        dataset__is_simulated=False,
        dataset__last_at__gte=window[0],
        dataset__first_at__lte=window[1],
    ).exclude(dataset=own.pk)
    facts = others.order_by().values_list("dataset", "gate_percent", "dataset__first_at", "dataset__last_at")
    for dataset, percent, first_at, last_at in facts.distinct():
        if _is_nearly_the_same(window, _get_gate_window(first_at, last_at, percent)):
            same |= Q(dataset=dataset, gate_percent=percent)
    return same


def _get_gate_window(first_at: datetime, last_at: datetime, percent: int) -> Window:
    """The last part of a history, exact to a few bars."""
    return last_at - percent / 100 * (last_at - first_at), last_at


def _is_nearly_the_same(one: Window, other: Window) -> bool:
    """Whether two windows share half of the shorter one."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    shorter = min(one[1] - one[0], other[1] - other[0])
    return shared >= NEARLY_THE_SAME * shorter
