"""Diagnoses: the verdict on a measurement under a policy, frozen once; and under another policy without measuring again."""

import hashlib
import math
from collections.abc import Iterable
from typing import Any

from accounts.decisions import require_role
from accounts.roles import GATE, Actor, Role
from audit import services as audit
from audit.hash_chain import to_canonical_json
from common.errors import Conflict, NotFound
from gates.catalogue.gate import GateOutcome
from gates.context import build_context, record_attempts
from gates.evaluation import evaluate, get_overall_verdict
from gates.models import Diagnosis, GatePolicy, GateResult, Measurement
from training.models import Bundle, Dataset
from training.rules import JobState


def judge(measurement: Measurement, policy: GatePolicy) -> Diagnosis:
    """The diagnosis of a measurement that ended; the same one however often this is called.

    A measurement that failed is judged too: then every gate is an *error* with the reason. Raises Conflict before the end.
    """
    with audit.locked():
        measurement.refresh_from_db()
        if not measurement.has_ended:
            raise Conflict(f"{measurement} is {measurement.state}: there is nothing to judge yet.")
        existing = Diagnosis.objects.filter(measurement=measurement, policy=policy).first()
        return existing or _diagnose(measurement, policy)


def judge_latest(bundle: Bundle, policy: GatePolicy, *, dataset: Dataset | None = None) -> Diagnosis | None:
    """The diagnosis of the bundle's latest successful measurement, on `dataset` where one is named.

    None where there is none; nothing is measured.
    """
    latest = _find_latest(bundle, dataset)
    return judge(latest, policy) if latest else None


def preview_outcomes(bundle: Bundle, policy: GatePolicy, *, dataset: Dataset) -> list[GateOutcome] | None:
    """What `judge_latest` would freeze now; writes and locks nothing. None where nothing was measured."""
    latest = _find_latest(bundle, dataset)
    if latest is None:
        return None
    document = {**latest.document, **build_context(latest)}
    return evaluate(document, policy.document, coin=bundle.coin.symbol)


def judge_again(diagnosis: Diagnosis, policy: GatePolicy, *, actor: Actor) -> Diagnosis:
    """The diagnosis of the same measurement under another policy, in force or only proposed. Nothing is measured.

    The existing one, where that policy has judged it before. Raises NotAllowed without the operator or approver role.
    """
    with audit.record_refusals("diagnosis.again", diagnosis, actor=actor):
        require_role(actor, (Role.OPERATOR, Role.APPROVER), "have a diagnosis judged again")
        with audit.locked():
            existing = Diagnosis.objects.filter(measurement=diagnosis.measurement_id, policy=policy).first()
            if existing is not None:
                return existing
            judged = judge(diagnosis.measurement, policy)
            detail = {"of": diagnosis.pk, "policy": policy.number}
            audit.record("diagnosis.judged_again", judged, actor=actor, detail=detail)
    return judged


def find_diagnosis(pk: int) -> Diagnosis:
    """Raises NotFound."""
    rows = Diagnosis.objects.select_related("measurement", "bundle__coin", "policy")
    diagnosis = rows.filter(pk=pk).first()
    if diagnosis is None:
        raise NotFound(f"There is no diagnosis {pk}.")
    return diagnosis


def compute_digest(diagnosis: Diagnosis, results: Iterable[GateResult]) -> str:
    """`sha256:…` over the measurement, its context, the policy and every gate's result."""
    columns = ("gate", "verdict", "figure", "figure_word", "observed", "threshold", "sentence")
    document = {
        "bundle": diagnosis.bundle.digest,
        "measured": diagnosis.measured,
        "context": diagnosis.context_body,
        "policy": diagnosis.policy_body,
        "results": [
            {"required": row.is_required, **{name: getattr(row, name) for name in columns}}
            for row in sorted(results, key=lambda row: row.position)
        ],
    }
    text = to_canonical_json(document)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _find_latest(bundle: Bundle, dataset: Dataset | None) -> Measurement | None:
    rows = Measurement.objects.filter(bundle=bundle, state=JobState.SUCCEEDED)
    if dataset is not None:
        rows = rows.filter(dataset=dataset)
    return rows.select_related("bundle__coin", "bundle__dataset", "dataset").order_by("-id").first()


def _diagnose(measurement: Measurement, policy: GatePolicy) -> Diagnosis:
    record_attempts()
    bundle, measured, context = measurement.bundle, _get_document(measurement), build_context(measurement)
    failure = measurement.failure or f"the measurement was {measurement.state}"
    is_measured = measurement.state == JobState.SUCCEEDED
    outcomes = evaluate(
        {**measured, **context},
        policy.document,
        coin=bundle.coin.symbol,
        failure="" if is_measured else failure,
    )
    rows = [_build_result(position, outcome) for position, outcome in enumerate(outcomes)]
    diagnosis = Diagnosis(
        measurement=measurement,
        coin=bundle.coin,
        bundle=bundle,
        dataset=measurement.dataset,
        policy=policy,
        policy_body=policy.body,
        measured=to_canonical_json(measured),
        context_body=to_canonical_json(context),
        verdict=get_overall_verdict(outcomes),
    )
    diagnosis.digest = compute_digest(diagnosis, rows)
    diagnosis.save(force_insert=True)
    for row in rows:
        row.diagnosis = diagnosis
    GateResult.objects.bulk_create(rows)
    _record(diagnosis, outcomes)
    return diagnosis


def _get_document(measurement: Measurement) -> dict[str, Any]:
    """The stored figures; of a measurement that failed, its subject and the reason."""
    if measurement.state == JobState.SUCCEEDED:
        return measurement.document
    return {
        "coin": measurement.bundle.coin.symbol,
        "line": measurement.bundle.line,
        "bundle_digest": measurement.bundle.digest,
        "dataset_digest": measurement.dataset.digest,
        "failure": measurement.failure,
    }


def _build_result(position: int, outcome: GateOutcome) -> GateResult:
    """The row of an outcome: a figure that is not finite becomes null, with its word in another column."""
    is_finite = outcome.figure is not None and math.isfinite(outcome.figure)
    columns = vars(outcome) | {"gate": outcome.gate[:32], "figure": outcome.figure if is_finite else None}
    word = "" if is_finite or outcome.figure is None else str(outcome.figure)
    return GateResult(position=position, figure_word=word, **columns)


def _record(diagnosis: Diagnosis, outcomes: list[GateOutcome]) -> None:
    against = [outcome.sentence for outcome in outcomes if outcome.is_required and outcome.is_problem]
    detail = {
        "digest": diagnosis.digest,
        "bundle": diagnosis.bundle.digest,
        "policy": diagnosis.policy.number,
        "gates": {outcome.gate: str(outcome.verdict) for outcome in outcomes},
    }
    reason = " ".join(against) or "every gate passed"
    audit.record(f"diagnosis.{diagnosis.verdict}", diagnosis, actor=GATE, reason=reason, detail=detail)
