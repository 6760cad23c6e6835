"""What the service knows beyond a measurement: which attempt it is, and what its candles are worth."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from accounts.roles import Role
from audit import services as audit
from audit.hash_chain import GENESIS, hash_event, to_canonical_json
from audit.models import AuditEvent
from common.errors import NotAllowed
from gates.models import Attempt, Diagnosis, GatePolicy, Measurement
from gates.services import judging, policies
from tests import factories, scenarios
from training.models import Bundle, Coin, Dataset
from training.rules import JobState

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


@pytest.fixture
def btc() -> Coin:
    return next(coin for coin in scenarios.coins() if coin.symbol == "BTC")


def measured(coin: Coin, seed: int, *, line: str = "v7_fixed", data: Dataset | None = None) -> Measurement:
    data = data or scenarios.dataset(coin)
    return scenarios.add_measurement(
        scenarios.bundle(coin, data, line, seed=seed), data, scenarios.healthy(coin.symbol)
    )


def attempt(measurement: Measurement) -> int:
    return int(judged(measurement).context_document["attempts"]["count"])


def judged(measurement: Measurement) -> Diagnosis:
    return judging.judge(measurement, policies.policy_in_force())


def test_each_other_bundle_on_the_same_gate_window_is_one_more_attempt(btc: Coin) -> None:
    measurements = [measured(btc, seed) for seed in (1, 2, 3)]
    assert [attempt(measurement) for measurement in measurements] == [1, 2, 3]
    last = judged(measurements[2])
    assert last.context_document["attempts"]["chain"] == chain_of(measurements)
    assert "attempt 3 on this gate window" in last.results.get(gate="attempts").sentence


def chain_of(measurements: list[Measurement]) -> str:
    """The hash over these successes, as ADR 0005 states it."""
    chain = GENESIS
    for measurement in measurements:
        event = AuditEvent.objects.get(kind="measurement.succeeded", object_id=str(measurement.pk))
        link = {"seq": event.seq, "bundle": measurement.bundle.digest, "dataset": measurement.dataset_id}
        chain = hash_event(chain, to_canonical_json(link))
    return chain


def test_an_attempt_costs_the_same_whatever_came_before(btc: Coin) -> None:
    """Neither queries nor stored bytes grow: earlier digests were once repeated in every diagnosis."""

    def judge_next(seed: int) -> tuple[int, int]:
        measurement = measured(btc, seed)
        with CaptureQueriesContext(connection) as asked:
            found = judged(measurement)
        assert not any(
            "check_results" in one["sql"] and "last_at" in one["sql"] for one in asked if " >= " in one["sql"]
        )
        return len(asked), len(found.context_body)

    policies.policy_in_force()
    first = judge_next(1)
    for seed in range(2, 9):
        measured(btc, seed)
    assert judge_next(9) == first


def test_an_attempt_without_its_event_cannot_be_inserted(btc: Coin) -> None:
    attempt(measured(btc, 1))
    other = measured(btc, 2)
    columns = {
        "coin": btc,
        "dataset": other.dataset,
        "bundle": other.bundle,
        "is_counted": True,
        "gate_percent": 15,
        "chain": "0" * 64,
    }
    with (
        pytest.raises(IntegrityError, match="an attempt is a success in the audit chain"),
        transaction.atomic(),
    ):
        Attempt.objects.create(seq=10**9, measurement=other, **columns)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        Attempt.objects.all().delete()
    assert attempt(other) == 2


def test_a_success_without_an_event_counts_after_all_others(btc: Coin) -> None:
    for seed in (1, 2):
        attempt(measured(btc, seed))
    data, body = scenarios.dataset(btc), measured(btc, 3).body
    made = scenarios.bundle(btc, data, "v7_fixed", seed=4)
    forged = Measurement.objects.create(bundle=made, dataset=data, state=JobState.SUCCEEDED, body=body)
    assert attempt(forged) == 4


def test_the_attempt_number_follows_the_order_of_measurement(btc: Coin) -> None:
    measurements = [measured(btc, seed) for seed in (1, 2, 3)]
    assert [attempt(measurement) for measurement in reversed(measurements)] == [3, 2, 1]


def test_of_two_at_once_the_audit_chain_says_which_came_first(btc: Coin) -> None:
    """The row that was asked for first succeeded last."""
    data = scenarios.dataset(btc)
    slow = Measurement.objects.create(bundle=scenarios.bundle(btc, data, "v7_fixed", seed=1), dataset=data)
    quick = measured(btc, 2)
    assert slow.pk < quick.pk
    body = measured(btc, 3).body
    Measurement.objects.filter(pk=slow.pk).update(state=JobState.SUCCEEDED, body=body)
    audit.record("measurement.succeeded", slow, actor="a worker")
    slow.refresh_from_db()
    assert (attempt(quick), attempt(slow)) == (1, 3)


def test_the_same_bytes_measured_again_are_no_new_attempt(btc: Coin) -> None:
    first, other = measured(btc, 1), measured(btc, 2)
    assert (attempt(first), attempt(other), attempt(measured(btc, 1))) == (1, 2, 1)


def test_judged_again_by_another_policy_it_keeps_its_number(btc: Coin) -> None:
    first = measured(btc, 1)
    attempt(first)
    measured(btc, 2)
    seed = GatePolicy.objects.get(number=1)
    assert judging.judge(first, seed).context_document["attempts"]["count"] == 1


def test_another_coins_and_the_fallbacks_measurements_do_not_count(btc: Coin) -> None:
    eth = next(coin for coin in scenarios.coins() if coin.symbol == "ETH")
    for others in (measured(eth, 1), measured(btc, 5, line="v5"), measured(btc, 6, line="v6_enhanced")):
        assert attempt(others) == 1
    assert attempt(measured(btc, 2)) == 1


def test_a_checkpoint_from_outside_counts_under_whatever_line(btc: Coin) -> None:
    data = scenarios.dataset(btc)
    old = scenarios.bundle(btc, data, "v6_enhanced", seed=9)
    foreign = Bundle.objects.create(
        digest="sha256:foreign",
        coin=btc,
        line="v6_enhanced",
        dataset=data,
        interval_seconds=3600,
        manifest=old.manifest,
        origin="a.pt",
    )
    assert attempt(scenarios.add_measurement(foreign, data, scenarios.healthy("BTC"))) == 1
    assert attempt(measured(btc, 2)) == 2


def later(coin: Coin, days: int, *, is_simulated: bool = False, verdict: str = "passed") -> Dataset:
    """The same history, `days` longer at its end. Of 425 days the gate window is the last 64."""
    name = f"{days} days more"
    Dataset.objects.create(
        coin=coin,
        digest=f"sha256:{name}",
        source="upload",
        origin=name,
        is_simulated=is_simulated,
        rows=10_000,
        first_at=datetime(2024, 1, 1, tzinfo=UTC),
        last_at=datetime(2025, 3, 1, tzinfo=UTC) + timedelta(days=days),
        interval_seconds=3600,
        size=1,
        verdict=verdict,
    )
    return Dataset.objects.get(digest=f"sha256:{name}")


@pytest.mark.parametrize(
    ("days", "is_simulated", "count"),
    [(7, False, 2), (30, False, 2), (60, False, 1), (7, True, 1)],
    ids=["a week more", "a month more", "another window", "a simulated market is its own"],
)
def test_nearly_the_same_gate_window_is_the_same(
    btc: Coin, days: int, is_simulated: bool, count: int
) -> None:
    attempt(measured(btc, 1))
    assert attempt(measured(btc, 2, data=later(btc, days, is_simulated=is_simulated))) == count


def test_the_candles_verdicts_are_frozen_with_the_diagnosis(btc: Coin) -> None:
    good, bad = scenarios.dataset(btc), later(btc, 1, verdict="failed")
    made = scenarios.bundle(btc, good, "v7_fixed", seed=1)
    found = judged(scenarios.add_measurement(made, bad, scenarios.healthy("BTC")))
    assert found.context_document["candles"]["measured"]["verdict"] == "failed"
    assert found.context_document["candles"]["training"]["verdict"] == "passed"
    assert (found.results.get(gate="candles").verdict, found.verdict) == ("failed", "failed")


def test_a_measurement_cannot_speak_for_the_service(btc: Coin) -> None:
    """Figures come out of a process that has run a bundle's bytes: what they say of attempts and candles is not heard."""
    attempt(measured(btc, 1))
    claims = scenarios.healthy("BTC") | {"attempts": {"count": 1, "chain": "0" * 64}, "candles": {}}
    data = scenarios.dataset(btc)
    made = scenarios.bundle(btc, data, "v7_fixed", seed=2)
    found = judged(scenarios.add_measurement(made, data, claims))
    assert "attempt 2" in found.results.get(gate="attempts").sentence
    assert found.results.get(gate="candles").verdict == "passed"


class TestJudgingAgain:
    @pytest.mark.parametrize("role", [Role.OPERATOR, Role.APPROVER])
    def test_another_policy_speaks_of_the_same_figures(self, btc: Coin, role: Role) -> None:
        old, seed = judged(measured(btc, 1)), GatePolicy.objects.get(number=1)
        actor = factories.actor("somebody", role)
        new = judging.judge_again(old, seed, actor=actor)
        assert (new.policy, new.measured, new.results.count()) == (seed, old.measured, 8)
        assert judging.judge_again(old, seed, actor=actor) == new
        assert AuditEvent.objects.get(kind="diagnosis.judged_again").actor == "somebody"
        assert Measurement.objects.count() == 1

    def test_a_viewer_may_not_and_the_refusal_is_an_event(self, btc: Coin) -> None:
        old = judged(measured(btc, 1))
        with pytest.raises(NotAllowed, match="operator role"):
            judging.judge_again(old, GatePolicy.objects.get(number=1), actor=factories.VIEWER)
        assert Diagnosis.objects.count() == 1
        assert AuditEvent.objects.get(kind="diagnosis.again.refused").actor == "victor"

    def test_the_command_prints_the_other_policys_word(self, btc: Coin) -> None:
        factories.person("olivia", "operator")
        old, said = judged(measured(btc, 1)), StringIO()
        call_command("judge", str(old.pk), "--policy", "1", "--as", "olivia", stdout=said)
        assert "policy 1: PASSED" in said.getvalue()
        assert Diagnosis.objects.count() == 2

    @pytest.mark.parametrize(
        ("arguments", "says"), [(["99"], "no diagnosis 99"), (["1", "--policy", "9"], "no policy 9")]
    )
    def test_the_command_says_what_it_cannot_find(self, arguments: list[str], says: str) -> None:
        factories.person("olivia", "operator")
        error: Any = StringIO()
        with pytest.raises(SystemExit):
            call_command("judge", *arguments, "--as", "olivia", stderr=error)
        assert says in error.getvalue()
