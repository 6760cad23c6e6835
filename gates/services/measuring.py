"""Requests for measurements."""

from datetime import datetime
from typing import Any

from django.utils import timezone

from accounts.roles import Actor, Role
from audit import services as audit
from common import correlation
from common.errors import InvalidInput
from gates import worker
from gates.models import Diagnosis, Measurement
from gates.services.judging import judge
from gates.services.policies import policy_in_force
from mlcore.quality.result import format_interval
from training.jobs import queue
from training.models import Bundle, Dataset, TrainingRun
from training.rules import JobState
from training.services.runs import find_second_run

_WITHOUT_RESULT = (JobState.FAILED, JobState.CANCELLED)


def measure(
    bundle: Bundle,
    dataset: Dataset,
    *,
    actor: Actor,
    again: bool = False,
    since: datetime | None = None,
    second_run: TrainingRun | None = None,
) -> Measurement:
    """Have a bundle measured by a gate worker. One that waits, runs or succeeded is returned as it is, unless `again`.

    One that failed is repeated, unless it was asked for after `since`: a caller in a loop says since when, and a bundle
    that no worker can measure comes back failed, to be judged, instead of being measured for ever. With `second_run`, only
    one that compares the model with that second training is taken; without, a new one compares it with the last there was.
    Raises NotAllowed, and InvalidInput for candles of another coin or bar interval.
    """
    with audit.record_refusals("measurement.request", bundle, actor=actor), audit.locked():
        _authorise(bundle, dataset, actor)
        existing = None if again else _find_usable(bundle, dataset, since, second_run)
        if existing is not None:
            return existing
        measurement = _create_measurement(bundle, dataset, second_run, actor=actor)
        queue.enqueue(measurement)
    return measurement


def diagnose_here(bundle: Bundle, dataset: Dataset, *, actor: Actor, worker_name: str) -> Diagnosis:
    """Measure again in a child of this process, and judge by the policy in force. Raises like `measure`."""
    with audit.record_refusals("measurement.request", bundle, actor=actor), audit.locked():
        _authorise(bundle, dataset, actor)
        # Marked as enqueued without a message: `reconcile` then leaves it alone unless this process dies.
        measurement = _create_measurement(bundle, dataset, None, actor=actor, enqueued_at=timezone.now())
    worker.run(measurement.pk, worker_name=worker_name)
    return judge(measurement, policy_in_force())


def _authorise(bundle: Bundle, dataset: Dataset, actor: Actor) -> None:
    actor.require(Role.OPERATOR, "have a bundle measured")
    if bundle.coin_id != dataset.coin_id:
        raise InvalidInput(
            f"{bundle} must be measured on {bundle.coin} candles; {dataset} is another coin's.",
            field="dataset",
        )
    if bundle.interval_seconds != dataset.interval_seconds:
        raise InvalidInput(
            f"{bundle} answers for bars of {format_interval(bundle.interval_seconds)}; {dataset} has bars of"
            f" {format_interval(dataset.interval_seconds)}.",
            field="dataset",
        )


def _find_usable(
    bundle: Bundle, dataset: Dataset, since: datetime | None, second_run: TrainingRun | None
) -> Measurement | None:
    """The latest measurement that need not be repeated; a failed one only where there is no other."""
    rows = Measurement.objects.filter(bundle=bundle, dataset=dataset).order_by("-id")
    if second_run is not None:
        rows = rows.filter(second_run=second_run)
    sound = rows.exclude(state__in=_WITHOUT_RESULT).first()
    if sound is not None or since is None:
        return sound
    return rows.filter(created_at__gte=since).first()


def _create_measurement(
    bundle: Bundle, dataset: Dataset, second_run: TrainingRun | None, *, actor: Actor, **columns: Any
) -> Measurement:
    """A queued row. The caller has authorised it, and holds the audit head.

    It names the second training, which the clocks of a worker and of this process could not order.
    """
    second_run = second_run or find_second_run(bundle)
    measurement = Measurement.objects.create(
        bundle=bundle, dataset=dataset, second_run=second_run, origin=correlation.capture(), **columns
    )
    detail: dict[str, Any] = {"bundle": bundle.digest, "dataset": dataset.digest}
    if second_run is not None:
        detail["second_run"] = second_run.pk
    audit.record("measurement.queued", measurement, actor=actor, detail=detail)
    return measurement
