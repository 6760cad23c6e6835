"""What is asked of the gates: policies, measurings and judgements."""

import hashlib
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from accounts.rules import GATE, Actor, Role
from audit import services as audit
from audit.errors import Conflict, InvalidInput, NotAllowed, Unavailable
from audit.rules import canonical
from gates import runner
from gates.models import Diagnosis, GatePolicy, GateResult, Measurement, PolicyAdoption
from gates.rules import SEED_POLICY, GateOutcome, checked_policy, evaluate, loosened, overall
from training import queue
from training.models import Bundle, Dataset
from training.rules import JobState

SEED_PLAN = "the seed plan"
_WITHOUT_RESULT = (JobState.FAILED, JobState.CANCELLED)


@transaction.atomic
def ensure_seed_policy() -> None:
    """Policy number 1, with the seed's thresholds, in force from the first migration on. Safe to repeat."""
    audit.lock_head()
    if GatePolicy.objects.filter(number=1).exists():
        return
    policy = _new_policy(
        1, SEED_POLICY, actor=SEED_PLAN, reason="the thresholds of the plan to retrain as V7"
    )
    _put_in_force(policy, actor=SEED_PLAN, reason="the service starts under the plan's own thresholds")


def policy_in_force() -> GatePolicy:
    """The policy that was adopted last. Raises Unavailable before the first migration."""
    adoption = PolicyAdoption.objects.select_related("policy").order_by("-id").first()
    if adoption is None:
        raise Unavailable("No gate policy is in force yet: run `manage.py migrate`.")
    return adoption.policy


def propose_policy(document: Mapping[str, Any], *, actor: Actor, reason: str) -> GatePolicy:
    """A new numbered policy; it decides nothing until another approver adopts it.

    Raises NotAllowed, InvalidInput (saying what is wrong in it) and Conflict when it is what is in force.
    """
    with audit.refusals_recorded("gatepolicy.proposal", policy_in_force(), actor=actor, reason=reason):
        actor.require(Role.APPROVER, "propose a policy")
        body = checked_policy(document)
        _need_reason(reason)
        with transaction.atomic():
            audit.lock_head()
            if body == (current := policy_in_force()).document:
                raise Conflict(f"That is what {current} says, which is in force.")
            number = (GatePolicy.objects.aggregate(Max("number"))["number__max"] or 0) + 1
            return _new_policy(number, body, actor=str(actor), reason=reason)


def adopt_policy(policy: GatePolicy, *, actor: Actor, reason: str) -> PolicyAdoption:
    """Put a proposed policy in force, as another person than who proposed it. Raises NotAllowed, Conflict."""
    with audit.refusals_recorded("gatepolicy.adoption", policy, actor=actor, reason=reason):
        actor.require(Role.APPROVER, "adopt a policy")
        if str(actor) == policy.proposed_by:
            raise NotAllowed(f"{actor} proposed {policy}: another approver must adopt it.")
        _need_reason(reason)
        with transaction.atomic():
            audit.lock_head()
            if policy.number <= (current := policy_in_force()).number:
                raise Conflict(
                    f"{current} is in force already; only a newer one than it can follow. "
                    f"To go back to what {policy} says, propose it again."
                )
            return _put_in_force(policy, actor=str(actor), reason=reason)


def measure(
    bundle: Bundle, dataset: Dataset, *, actor: Actor, again: bool = False, since: datetime | None = None
) -> Measurement:
    """Have a bundle measured by a gate worker. One that waits, runs or succeeded is returned as it is, unless `again`.

    One that failed is repeated, unless it was asked for after `since`: whoever asks in a loop says since when, and a
    bundle that no worker can measure comes back failed, to be judged, instead of being measured for ever.
    Raises NotAllowed, and InvalidInput for another coin's candles.
    """
    with audit.refusals_recorded("measurement.request", bundle, actor=actor), transaction.atomic():
        _authorise_measuring(bundle, dataset, actor)
        audit.lock_head()
        existing = None if again else _usable(bundle, dataset, since)
        if existing is not None:
            return existing
        measurement = _ask(bundle, dataset, actor=actor)
        queue.enqueue(measurement)
    return measurement


def diagnose_here(bundle: Bundle, dataset: Dataset, *, actor: Actor, worker_name: str) -> Diagnosis:
    """Measure anew in this very process's own child, and judge by the policy in force. Raises like `measure`."""
    with audit.refusals_recorded("measurement.request", bundle, actor=actor), transaction.atomic():
        _authorise_measuring(bundle, dataset, actor)
        # As if sent: no message is, and `reconcile` leaves it to us unless this process dies over it.
        measurement = _ask(bundle, dataset, actor=actor, enqueued_at=timezone.now())
    runner.run(measurement.pk, worker_name=worker_name)
    return judge(measurement, policy_in_force())


@transaction.atomic
def judge(measurement: Measurement, policy: GatePolicy) -> Diagnosis:
    """What a policy says of a measurement that ended; the same diagnosis however often it is asked.

    A measuring that failed is judged too: every gate is then an *error* with the reason. Raises Conflict before the end.
    """
    audit.lock_head()
    measurement.refresh_from_db()
    if not measurement.has_ended:
        raise Conflict(f"{measurement} is {measurement.state}: there is nothing to judge yet.")
    existing = Diagnosis.objects.filter(measurement=measurement, policy=policy).first()
    return existing or _judged(measurement, policy)


def judge_again(bundle: Bundle, policy: GatePolicy, *, dataset: Dataset | None = None) -> Diagnosis | None:
    """A policy's word on what is stored: the bundle's latest successful measurement, on `dataset` where one is named.

    None where nothing was measured; nothing is measured anew.
    """
    rows = Measurement.objects.filter(bundle=bundle, state=JobState.SUCCEEDED)
    if dataset is not None:
        rows = rows.filter(dataset=dataset)
    latest = rows.order_by("-id").first()
    return judge(latest, policy) if latest else None


def _need_reason(reason: str) -> None:
    if not reason.strip():
        raise InvalidInput("Say why: a policy needs a reason.", field="reason")


def _new_policy(number: int, document: Mapping[str, Any], *, actor: str, reason: str) -> GatePolicy:
    policy = GatePolicy.objects.create(
        number=number, body=canonical(document), reason=reason, proposed_by=actor
    )
    detail = {"body": policy.body, "loosened": loosened(document)}
    audit.record("gatepolicy.proposed", policy, actor=actor, reason=reason, detail=detail)
    return policy


def _put_in_force(policy: GatePolicy, *, actor: str, reason: str) -> PolicyAdoption:
    adoption = PolicyAdoption.objects.create(policy=policy, adopted_by=actor, reason=reason)
    detail = {"proposed_by": policy.proposed_by, "loosened": loosened(policy.document)}
    audit.record("gatepolicy.adopted", policy, actor=actor, reason=reason, detail=detail)
    return adoption


def _authorise_measuring(bundle: Bundle, dataset: Dataset, actor: Actor) -> None:
    actor.require(Role.OPERATOR, "have a bundle measured")
    if bundle.coin_id != dataset.coin_id:
        raise InvalidInput(
            f"{bundle} must be measured on {bundle.coin} candles; {dataset} is another coin's.",
            field="dataset",
        )


def _usable(bundle: Bundle, dataset: Dataset, since: datetime | None) -> Measurement | None:
    """The latest measurement that need not be repeated; one that failed only where no other is there."""
    rows = Measurement.objects.filter(bundle=bundle, dataset=dataset).order_by("-id")
    sound = rows.exclude(state__in=_WITHOUT_RESULT).first()
    if sound is not None or since is None:
        return sound
    return rows.filter(created_at__gte=since).first()


def _ask(bundle: Bundle, dataset: Dataset, *, actor: Actor, **columns: Any) -> Measurement:
    actor.require(Role.OPERATOR, "have a bundle measured")
    if bundle.coin_id != dataset.coin_id:
        raise InvalidInput(
            f"{bundle} must be measured on {bundle.coin} candles; {dataset} is another coin's.",
            field="dataset",
        )
    measurement = Measurement.objects.create(bundle=bundle, dataset=dataset, **columns)
    detail = {"bundle": bundle.digest, "dataset": dataset.digest}
    audit.record("measurement.queued", measurement, actor=actor, detail=detail)
    return measurement


def _judged(measurement: Measurement, policy: GatePolicy) -> Diagnosis:
    bundle, measured = measurement.bundle, _as_measured(measurement)
    failure = measurement.failure or f"the measuring was {measurement.state}"
    is_measured = measurement.state == JobState.SUCCEEDED
    outcomes = evaluate(
        measured, policy.document, coin=bundle.coin.symbol, failure="" if is_measured else failure
    )
    rows = [_result(position, outcome) for position, outcome in enumerate(outcomes)]
    body = canonical(measured)
    diagnosis = Diagnosis.objects.create(
        measurement=measurement,
        coin=bundle.coin,
        bundle=bundle,
        dataset=measurement.dataset,
        policy=policy,
        policy_body=policy.body,
        measured=body,
        verdict=overall(outcomes),
        digest=diagnosis_digest(bundle.digest, body, policy.body, rows),
    )
    for row in rows:
        row.diagnosis = diagnosis
    GateResult.objects.bulk_create(rows)
    _record(diagnosis, outcomes)
    return diagnosis


def _as_measured(measurement: Measurement) -> dict[str, Any]:
    """The stored figures; of a measuring that failed, what it was of and why there are none."""
    if measurement.state == JobState.SUCCEEDED:
        return measurement.document
    return {
        "coin": measurement.bundle.coin.symbol,
        "line": measurement.bundle.line,
        "bundle_digest": measurement.bundle.digest,
        "dataset_digest": measurement.dataset.digest,
        "failure": measurement.failure,
    }


def _result(position: int, outcome: GateOutcome) -> GateResult:
    """A row for the database: a figure that is no finite number becomes null with the word beside it."""
    is_number = outcome.figure is not None and math.isfinite(outcome.figure)
    return GateResult(
        position=position,
        gate=outcome.gate[:32],
        is_required=outcome.is_required,
        verdict=outcome.verdict,
        figure=outcome.figure if is_number else None,
        figure_word="" if is_number or outcome.figure is None else str(outcome.figure),
        observed=outcome.observed,
        threshold=outcome.threshold,
        sentence=outcome.sentence,
    )


def diagnosis_digest(bundle: str, measured: str, policy: str, results: list[GateResult]) -> str:
    """`sha256:…` over what was measured, by what it was judged, and every word that was said."""
    said = [
        {
            "gate": row.gate,
            "required": row.is_required,
            "verdict": str(row.verdict),
            "figure": row.figure,
            "figure_word": row.figure_word,
            "observed": row.observed,
            "threshold": row.threshold,
            "sentence": row.sentence,
        }
        for row in sorted(results, key=lambda row: row.position)
    ]
    text = canonical({"bundle": bundle, "measured": measured, "policy": policy, "results": said})
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _record(diagnosis: Diagnosis, outcomes: list[GateOutcome]) -> None:
    against = [o.sentence for o in outcomes if o.is_required and o.verdict != "passed"]
    detail = {
        "digest": diagnosis.digest,
        "bundle": diagnosis.bundle.digest,
        "policy": diagnosis.policy.number,
        "gates": {outcome.gate: str(outcome.verdict) for outcome in outcomes},
    }
    reason = " ".join(against) or "every gate passed"
    audit.record(f"diagnosis.{diagnosis.verdict}", diagnosis, actor=GATE, reason=reason, detail=detail)
