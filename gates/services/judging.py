"""What a policy says of what was measured: judged once, frozen, and judged again by another policy without measuring."""

import hashlib
import math
from collections.abc import Iterable
from typing import Any

from django.db import transaction

from accounts.rules import GATE, Actor, Role
from audit import services as audit
from audit.rules import to_canonical_json
from common.errors import Conflict, NotFound
from gates import context
from gates.models import Diagnosis, GatePolicy, GateResult, Measurement
from gates.policy import GateOutcome, evaluate, overall
from training.models import Bundle, Dataset
from training.rules import JobState


def judge(measurement: Measurement, policy: GatePolicy) -> Diagnosis:
    """What a policy says of a measurement that ended; the same diagnosis however often it is asked.

    A measuring that failed is judged too: every gate is then an *error* with the reason. Raises Conflict before the end.
    """
    with transaction.atomic():
        audit.lock_head()
        measurement.refresh_from_db()
        if not measurement.has_ended:
            raise Conflict(f"{measurement} is {measurement.state}: there is nothing to judge yet.")
        existing = Diagnosis.objects.filter(measurement=measurement, policy=policy).first()
        return existing or _judged(measurement, policy)


def judge_stored(bundle: Bundle, policy: GatePolicy, *, dataset: Dataset | None = None) -> Diagnosis | None:
    """A policy's word on what is stored: the bundle's latest successful measurement, on `dataset` where one is named.

    None where nothing was measured; nothing is measured anew.
    """
    latest = _latest(bundle, dataset)
    return judge(latest, policy) if latest else None


def foretell(bundle: Bundle, policy: GatePolicy, *, dataset: Dataset) -> list[GateOutcome] | None:
    """What `judge_stored` would freeze now, from the same measurement; nothing is written, and nothing locked.

    None where nothing was measured.
    """
    latest = _latest(bundle, dataset)
    if latest is None:
        return None
    known = context.of(latest)
    return evaluate({**latest.document, **known}, policy.document, coin=bundle.coin.symbol)


def _latest(bundle: Bundle, dataset: Dataset | None) -> Measurement | None:
    rows = Measurement.objects.filter(bundle=bundle, state=JobState.SUCCEEDED)
    if dataset is not None:
        rows = rows.filter(dataset=dataset)
    return rows.select_related("bundle__coin", "bundle__dataset", "dataset").order_by("-id").first()


def judge_again(diagnosis: Diagnosis, policy: GatePolicy, *, actor: Actor) -> Diagnosis:
    """What another policy, in force or only proposed, says of what an old diagnosis was judged by. Nothing is measured.

    The one there is, where that policy has spoken already. Raises NotAllowed for who neither operates nor approves.
    """
    with audit.record_refusals("diagnosis.again", diagnosis, actor=actor):
        if not actor.has(Role.APPROVER):
            actor.require(Role.OPERATOR, "have a diagnosis judged again")
        with transaction.atomic():
            audit.lock_head()
            existing = Diagnosis.objects.filter(measurement=diagnosis.measurement_id, policy=policy).first()
            if existing is not None:
                return existing
            judged = judge(diagnosis.measurement, policy)
            detail = {"of": diagnosis.pk, "policy": policy.number}
            audit.record("diagnosis.judged_again", judged, actor=actor, detail=detail)
    return judged


def find_diagnosis(pk: int) -> Diagnosis:
    """Raises NotFound."""
    found = Diagnosis.objects.select_related("measurement", "bundle__coin", "policy").filter(pk=pk).first()
    if found is None:
        raise NotFound(f"There is no diagnosis {pk}.")
    return found


def _judged(measurement: Measurement, policy: GatePolicy) -> Diagnosis:
    bundle, measured, known = measurement.bundle, _as_measured(measurement), context.of(measurement)
    failure = measurement.failure or f"the measuring was {measurement.state}"
    is_measured = measurement.state == JobState.SUCCEEDED
    outcomes = evaluate(
        {**measured, **known},
        policy.document,
        coin=bundle.coin.symbol,
        failure="" if is_measured else failure,
    )
    rows = [_result(position, outcome) for position, outcome in enumerate(outcomes)]
    diagnosis = Diagnosis(
        measurement=measurement,
        coin=bundle.coin,
        bundle=bundle,
        dataset=measurement.dataset,
        policy=policy,
        policy_body=policy.body,
        measured=to_canonical_json(measured),
        circumstances=to_canonical_json(known),
        verdict=overall(outcomes),
    )
    diagnosis.digest = diagnosis_digest(diagnosis, rows)
    diagnosis.save(force_insert=True)
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


def diagnosis_digest(diagnosis: Diagnosis, results: Iterable[GateResult]) -> str:
    """`sha256:…` over what was measured and known, by what it was judged, and every word that was said.

    Diagnoses from before there were circumstances have none, and keep the digest they had.
    """
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
    known = {} if diagnosis.circumstances == "{}" else {"circumstances": diagnosis.circumstances}
    judged = {"measured": diagnosis.measured, "policy": diagnosis.policy_body, **known}
    text = to_canonical_json({"bundle": diagnosis.bundle.digest, **judged, "results": said})
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
