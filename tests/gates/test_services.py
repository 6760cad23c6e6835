"""Asking for a measuring, and judging what it found."""

import hashlib
import json
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from accounts.roles import GATE
from audit.hash_chain import to_canonical_json
from audit.models import AuditEvent
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed
from gates.catalogue.registry import GATES
from gates.models import Diagnosis, GateResult, Measurement
from gates.services import judging, measuring, policies
from tests import factories, scenarios
from training.models import Bundle, Dataset
from training.rules import JobState

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

OLIVIA = factories.actor("olivia", "operator")
VICTOR = factories.actor("victor", "viewer")


@pytest.fixture
def data() -> Dataset:
    btc = next(coin for coin in scenarios.coins() if coin.symbol == "BTC")
    return scenarios.dataset(btc)


@pytest.fixture
def made(data: Dataset) -> Bundle:
    return scenarios.bundle(data.coin, data, "v7_fixed", seed=1)


def ended(measurement: Measurement, state: JobState, **columns: Any) -> Measurement:
    Measurement.objects.filter(pk=measurement.pk).update(state=state, finished_at=timezone.now(), **columns)
    measurement.refresh_from_db()
    return measurement


def test_asking_makes_a_row_that_waits_and_an_event(made: Bundle, data: Dataset) -> None:
    measurement = measuring.measure(made, data, actor=OLIVIA)
    assert (measurement.state, measurement.attempt, measurement.body) == (JobState.QUEUED, 0, "")
    event = AuditEvent.objects.get(kind="measurement.queued")
    assert (event.actor, event.object_id) == ("olivia", str(measurement.pk))
    assert made.digest in event.body


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED])
def test_asking_twice_gives_the_same_row(made: Bundle, data: Dataset, state: JobState) -> None:
    first = ended(measuring.measure(made, data, actor=OLIVIA), state)
    assert measuring.measure(made, data, actor=OLIVIA) == first
    assert AuditEvent.objects.filter(kind="measurement.queued").count() == 1


def test_asking_again_measures_again(made: Bundle, data: Dataset) -> None:
    first = measuring.measure(made, data, actor=OLIVIA)
    assert measuring.measure(made, data, actor=OLIVIA, again=True) != first


def test_one_that_failed_is_measured_again(made: Bundle, data: Dataset) -> None:
    first = ended(measuring.measure(made, data, actor=OLIVIA), JobState.FAILED)
    assert measuring.measure(made, data, actor=OLIVIA) != first


def test_one_that_failed_since_it_was_asked_for_comes_back_to_be_judged(made: Bundle, data: Dataset) -> None:
    old = ended(measuring.measure(made, data, actor=GATE), JobState.FAILED)
    launched = timezone.now()
    new = measuring.measure(made, data, actor=GATE, since=launched)
    assert new != old
    ended(new, JobState.FAILED)
    assert measuring.measure(made, data, actor=GATE, since=launched) == new


@pytest.mark.parametrize("again", [True, False])
def test_a_viewer_may_not_have_anything_measured(made: Bundle, data: Dataset, again: bool) -> None:
    with pytest.raises(NotAllowed, match="operator role"):
        measuring.measure(made, data, actor=VICTOR, again=again)
    assert not Measurement.objects.exists()
    assert AuditEvent.objects.get(kind="measurement.request.refused").actor == "victor"


def test_another_coins_candles_are_refused(made: Bundle) -> None:
    eth = next(coin for coin in scenarios.coins() if coin.symbol == "ETH")
    with pytest.raises(InvalidInput, match="another coin's"):
        measuring.measure(made, scenarios.dataset(eth), actor=OLIVIA)
    assert not Measurement.objects.exists()


def test_a_diagnosis_freezes_what_was_measured_and_by_what_it_was_judged(made: Bundle, data: Dataset) -> None:
    measurement = scenarios.add_measurement(made, data, scenarios.healthy("BTC"))
    policy = policies.policy_in_force()
    diagnosis = judging.judge(measurement, policy)
    assert (diagnosis.coin, diagnosis.bundle, diagnosis.dataset) == (data.coin, made, data)
    assert (diagnosis.measured, diagnosis.policy_body) == (measurement.body, policy.body)
    assert diagnosis.verdict == "passed"
    results = list(diagnosis.results.all())
    assert [result.gate for result in results] == scenarios.ALWAYS_JUDGED
    assert {result.verdict for result in results} == {"passed"}
    advisory = {"lead", "label_balance", "calibration", "stability", "latency", "drift"}
    assert {result.gate for result in results if not result.is_required} == advisory
    event = AuditEvent.objects.get(kind="diagnosis.passed")
    assert (event.actor, event.reason) == ("the gate", "every gate passed")
    assert diagnosis.digest in event.body


def test_its_digest_covers_every_result(made: Bundle, data: Dataset) -> None:
    diagnosis = judging.judge(
        scenarios.add_measurement(made, data, scenarios.collapsed("BTC")), policies.policy_in_force()
    )
    said: list[dict[str, object]] = [
        dict(row)
        for row in diagnosis.results.order_by("position").values(
            "gate", "verdict", "figure", "figure_word", "observed", "threshold", "sentence", "is_required"
        )
    ]
    for row in said:
        row["required"] = row.pop("is_required")
    text = to_canonical_json(
        {
            "bundle": made.digest,
            "measured": diagnosis.measured,
            "context": diagnosis.context_body,
            "policy": diagnosis.policy_body,
            "results": said,
        }
    )
    assert diagnosis.digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_a_failed_diagnosis_says_why_in_its_event(made: Bundle, data: Dataset) -> None:
    diagnosis = judging.judge(
        scenarios.add_measurement(made, data, scenarios.inaccurate("BTC")), policies.policy_in_force()
    )
    assert diagnosis.verdict == "failed"
    assert AuditEvent.objects.get(kind="diagnosis.failed").reason == (
        "BTC's accuracy is 39.1 % of 1,500 bars (95 % interval 37.9 % – 40.4 %); more than 65 % is required."
    )


def test_judging_twice_is_one_diagnosis(made: Bundle, data: Dataset) -> None:
    measurement = scenarios.add_measurement(made, data, scenarios.healthy("BTC"))
    first = judging.judge(measurement, policies.policy_in_force())
    assert judging.judge(measurement, policies.policy_in_force()) == first
    assert (Diagnosis.objects.count(), GateResult.objects.count()) == (1, len(GATES) - 1)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_nothing_is_judged_before_its_end(made: Bundle, data: Dataset, state: JobState) -> None:
    measurement = ended(measuring.measure(made, data, actor=OLIVIA), state)
    with pytest.raises(Conflict, match="nothing to judge yet"):
        judging.judge(measurement, policies.policy_in_force())
    assert not Diagnosis.objects.exists()


def test_a_measuring_that_failed_is_an_error_at_every_gate(made: Bundle, data: Dataset) -> None:
    measurement = ended(
        measuring.measure(made, data, actor=OLIVIA), JobState.FAILED, failure="it was killed by SIGKILL"
    )
    diagnosis = judging.judge(measurement, policies.policy_in_force())
    assert diagnosis.verdict == "error"
    results = diagnosis.results.all()
    assert [result.verdict for result in results] == ["error"] * (len(GATES) - 1), "it was not trained twice"
    assert {result.sentence for result in results} == {"BTC could not be measured: it was killed by SIGKILL"}
    assert diagnosis.document["failure"] == "it was killed by SIGKILL"


@pytest.mark.parametrize("word", ["nan", "inf", "-inf"])
def test_a_figure_that_is_no_number_is_kept_as_null_with_its_word(
    made: Bundle, data: Dataset, word: str
) -> None:
    document = scenarios.healthy("BTC")
    document["logits"]["greatest"] = None
    document["non_finite"] = {"logits.greatest": word}
    diagnosis = judging.judge(scenarios.add_measurement(made, data, document), policies.policy_in_force())
    result = diagnosis.results.get(gate="logit_range")
    assert (result.verdict, result.figure, result.figure_word) == ("error", None, word)


def test_a_new_policy_judges_what_is_stored_without_measuring(made: Bundle, data: Dataset) -> None:
    policy = policies.policy_in_force()
    assert judging.judge_latest(made, policy) is None
    scenarios.add_measurement(made, data, scenarios.inaccurate("BTC"))
    latest = scenarios.add_measurement(made, data, scenarios.healthy("BTC"))
    ended(measuring.measure(made, data, actor=OLIVIA, again=True), JobState.FAILED)
    diagnosis = judging.judge_latest(made, policy)
    assert diagnosis is not None
    assert diagnosis.measurement == latest
    assert judging.judge_latest(made, policy, dataset=scenarios.dataset(data.coin, name="b")) is None


def test_an_old_diagnosis_stands_beside_that_of_a_new_policy(made: Bundle, data: Dataset) -> None:
    measurement = scenarios.add_measurement(made, data, scenarios.healthy("BTC"))
    old = judging.judge(measurement, policies.policy_in_force())
    stricter = json.loads(policies.policy_in_force().body)
    stricter["gates"]["accuracy"]["above"] = 0.73
    policy = policies.propose_policy(stricter, actor=factories.actor("anna", "approver"), reason="more")
    new = judging.judge(measurement, policy)
    assert (old.verdict, new.verdict) == ("passed", "inconclusive")
    assert new.policy_document["gates"]["accuracy"]["above"] == 0.73


def insert_result(diagnosis: Diagnosis, gate: str, verdict: str) -> None:
    GateResult.objects.create(
        diagnosis=diagnosis,
        position=99,
        gate=gate,
        is_required=True,
        verdict=verdict,
        observed="",
        threshold="",
        sentence="",
    )


def forged_pass(diagnosis: Diagnosis) -> None:
    """A passed diagnosis out of a measuring that never ended."""
    measurement = Measurement.objects.create(bundle=diagnosis.bundle, dataset=diagnosis.dataset)
    Diagnosis.objects.create(
        measurement=measurement,
        coin=diagnosis.coin,
        bundle=diagnosis.bundle,
        dataset=diagnosis.dataset,
        policy=diagnosis.policy,
        policy_body=diagnosis.policy_body,
        measured=diagnosis.measured,
        verdict="passed",
        digest=diagnosis.digest,
    )


def rewritten_by_sql(diagnosis: Diagnosis) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE gates_gateresult SET verdict = 'failed' WHERE diagnosis_id = %s", [diagnosis.pk]
        )


@pytest.mark.parametrize(
    "forge",
    [
        lambda d: Diagnosis.objects.filter(pk=d.pk).update(verdict="failed"),
        lambda d: d.results.all().delete(),
        lambda d: GateResult.objects.filter(diagnosis=d).update(observed="better"),
        rewritten_by_sql,
        lambda d: insert_result(d, "late", "failed"),
        forged_pass,
        lambda d: Measurement.objects.filter(pk=d.measurement_id).update(body="{}"),
        lambda d: Measurement.objects.filter(pk=d.measurement_id).update(bundle_id=d.bundle_id + 1),
        lambda d: Measurement.objects.filter(pk=d.measurement_id)._raw_delete("default"),
    ],
    ids=[
        "another verdict",
        "results gone",
        "another figure",
        "another word by SQL",
        "a failed gate in a passed diagnosis",
        "a pass without a measurement",
        "a measurement written twice",
        "a measurement of another bundle",
        "a measurement gone",
    ],
)
def test_the_database_refuses(made: Bundle, data: Dataset, forge: Any) -> None:
    measurement = scenarios.add_measurement(made, data, scenarios.healthy("BTC"))
    diagnosis = judging.judge(measurement, policies.policy_in_force())
    with pytest.raises((DatabaseError, DomainError)), transaction.atomic():
        forge(diagnosis)
    diagnosis.refresh_from_db()
    assert (diagnosis.verdict, diagnosis.results.count()) == ("passed", len(GATES) - 1)
