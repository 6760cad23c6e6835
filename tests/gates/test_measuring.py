"""A gate worker measures the shipped bytes: real bundles, in a real process of its own."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from audit.models import AuditEvent
from audit.services import verify
from gates import worker as runner
from gates.models import Diagnosis, Measurement
from gates.services import judging, measuring, policies
from gates.tasks import measure as measure_task
from mlcore.fitting.fit import Trained
from tests import scenarios
from tests.gates.conftest import BARS, DRIFT, SEED, SYSTEM, Desk, trained, with_a_nan
from training.models import Coin
from training.rules import JobState
from training.services import datasets

pytestmark = pytest.mark.slow

Ask = Callable[[Trained], Measurement]


def verdicts(diagnosis: Diagnosis) -> dict[str, str]:
    return {result.gate: result.verdict for result in diagnosis.results.all()}


def measured(measurement: Measurement, worker: str = "gates@test") -> Diagnosis:
    """Run it and judge it by the policy in force."""
    runner.run(measurement.pk, worker_name=worker)
    return judging.judge(measurement, policies.policy_in_force())


def is_bounded(child: psutil.Process) -> bool:
    """Read from /proc: the limits of another user's process are not for everybody to ask."""
    lines = Path(f"/proc/{child.pid}/limits").read_text().splitlines()
    soft = {line[:26].strip(): line[26:].split()[0] for line in lines}
    kinds = ("Max address space", "Max cpu time", "Max core file size")
    return "unlimited" not in [soft[kind] for kind in kinds] and soft["Max core file size"] == "0"


def wait_for_child(seconds: float = 20) -> psutil.Process:
    """The measuring process, once it is at work within its bounds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for child in psutil.Process().children():
            with contextlib.suppress(
                psutil.Error, OSError
            ):  # one that looked for the sandbox's layers has ended
                if "mlcore.evaluation.measure" in child.cmdline() and is_bounded(child):
                    return child
        time.sleep(0.01)
    raise AssertionError("no measuring process was started")


def while_it_measures(do: Callable[[psutil.Process], None]) -> threading.Thread:
    """Do something to the measuring process from beside."""

    def work() -> None:
        try:
            do(wait_for_child())
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_good_bundle_passes_and_a_second_delivery_changes_nothing(asked: Ask) -> None:
    measurement = asked(trained("v7_fixed"))
    measure_task.apply(args=(measurement.pk,)).get()
    diagnosis = judging.judge(measurement, policies.policy_in_force())
    assert diagnosis.verdict == "passed", verdicts(diagnosis)
    assert diagnosis.document["skill"]["baseline"]["problem"] is None
    assert len(verdicts(diagnosis)) == len(scenarios.ALWAYS_JUDGED)

    stored = Measurement.objects.get()
    assert (stored.state, stored.attempt) == (JobState.SUCCEEDED, 1)
    assert stored.document["bundle_digest"] == stored.bundle.digest

    before, events = Measurement.objects.values().get(), AuditEvent.objects.count()
    measure_task.apply(args=(measurement.pk,)).get()
    assert Measurement.objects.values().get() == before
    assert AuditEvent.objects.count() == events
    assert verify() == []


def test_v6_fails_by_its_own_figures_and_the_command_says_so(desk: Desk) -> None:
    made = desk.bundle(trained("v6_enhanced"))
    said = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("diagnose", "--coin", "btc", stdout=said)
    assert ended.value.code == 1

    diagnosis = Diagnosis.objects.get(bundle=made)
    gates = verdicts(diagnosis)
    assert {gate for gate, verdict in gates.items() if verdict == "failed"} >= {
        "scaler",
        "confidence",
        "class_balance",
        "logit_range",
    }
    results = {result.gate: result for result in diagnosis.results.all()}
    confidence, logit_range = results["confidence"].figure, results["logit_range"].figure
    assert confidence is not None and confidence > 0.99
    assert logit_range is not None and abs(logit_range) > 1000
    assert "BTC v6_enhanced" in said.getvalue()
    for result in diagnosis.results.exclude(verdict="passed"):
        assert result.sentence in said.getvalue()


@pytest.mark.postgresql
def test_a_nan_weight_fails_and_a_silent_worker_is_replaced(
    asked: Ask,
) -> None:
    measurement = asked(with_a_nan(trained("v7_fixed")))
    Measurement.objects.update(
        state=JobState.RUNNING,
        attempt=1,
        worker_name="gates@dead",
        lease_until=timezone.now() - timedelta(seconds=1),
    )
    diagnosis = measured(measurement, "gates@alive")
    gates = verdicts(diagnosis)
    assert gates["bundle"] == "passed"
    assert gates["finite_weights"] == "failed"
    assert "fc2.weight" in diagnosis.results.get(gate="finite_weights").observed
    assert gates["logit_range"] == "error"
    assert diagnosis.results.get(gate="logit_range").figure_word == "nan"
    assert (measurement.attempt, measurement.worker_name) == (2, "gates@alive")


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("model.onnx", "one byte", "model.onnx is not the file the manifest names"),
        ("weights.safetensors", "gone", "weights.safetensors is missing"),
        ("manifest.json", "torn", "manifest.json"),
    ],
    ids=["one byte changed", "a file gone", "a manifest cut off"],
)
def test_a_damaged_bundle_is_a_failed_bundle(
    desk: Desk, asked: Ask, name: str, damage: str, says: str
) -> None:
    measurement = asked(trained("v7_fixed"))
    path = desk.stored(measurement.bundle, name)
    if damage == "gone":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data if damage == "one byte" else data[: len(data) // 2])
    diagnosis = measured(measurement)
    result = diagnosis.results.get(gate="bundle")
    assert result.verdict == "failed"
    assert "BTC's bundle fails these checks: hashes match" in result.sentence
    assert says in result.sentence
    assert diagnosis.verdict != "passed"


def test_a_model_under_another_coins_name_is_measured_for_neither(desk: Desk) -> None:
    eth, _ = Coin.objects.get_or_create(symbol="ETH")
    candles = datasets.simulate_candles(eth, bars=4_000, drift=1.8, seed=7, actor=SYSTEM).dataset
    made = desk.bundle(trained("v7_fixed"), coin="BTC", registered_as=eth)
    diagnosis = measured(Measurement.objects.create(bundle=made, dataset=candles))
    assert diagnosis.verdict == "error"
    assert "its manifest says that it is a model of BTC, not of ETH" in diagnosis.results.all()[0].sentence


def test_a_killed_measurement_process_had_no_secret_and_is_repeated(
    asked: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRPBOT_S3_SECRET_KEY", "hush")
    surroundings: dict[str, str] = {}

    def kill(child: psutil.Process) -> None:
        surroundings.update(child.environ())
        child.kill()

    measurement = asked(trained("v7_fixed"))
    killer = while_it_measures(kill)
    runner.run(measurement.pk, worker_name="gates@first")
    killer.join()
    assert surroundings["OMP_NUM_THREADS"] == "1"
    assert "hush" not in surroundings.values()
    assert list(Measurement.objects.due(timezone.now(), resend_after=timezone.now())) == [measurement]

    assert measured(measurement, "gates@second").verdict == "passed"
    assert (measurement.attempt, measurement.worker_name) == (2, "gates@second")


@pytest.mark.postgresql
def test_a_worker_thought_dead_that_comes_back_writes_nothing(committed: None, asked: Ask) -> None:
    measurement = asked(trained("v7_fixed"))

    def take_over(child: psutil.Process) -> None:
        Measurement.objects.filter(pk=measurement.pk).update(attempt=2, worker_name="gates@second")
        child.kill()

    other = while_it_measures(take_over)
    runner.run(measurement.pk, worker_name="gates@first")
    other.join()
    measurement.refresh_from_db()
    assert (measurement.state, measurement.body, measurement.failure) == (JobState.RUNNING, "", "")
    assert measurement.worker_name == "gates@second"


def test_a_measuring_that_takes_too_long_is_stopped(asked: Ask, settings: Any) -> None:
    settings.MEASURING_TIME_LIMIT_SECONDS = 0.2
    diagnosis = measured(measurement := asked(trained("v7_fixed")))
    assert measurement.failure == "measuring took longer than 0.2 s and was stopped"
    assert diagnosis.verdict == "error"
    assert not [
        child for child in psutil.Process().children() if "mlcore.evaluation.measure" in child.cmdline()
    ]


def test_candles_that_are_gone_fail_the_measuring(desk: Desk, asked: Ask) -> None:
    desk.candles().unlink()
    diagnosis = measured(measurement := asked(trained("v7_fixed")))
    assert measurement.state == JobState.FAILED
    assert "its candles cannot be read" in measurement.failure
    assert diagnosis.verdict == "error"


def test_after_five_killed_attempts_nobody_tries_again(asked: Ask) -> None:
    measurement = asked(trained("v7_fixed"))
    Measurement.objects.update(
        state=JobState.RUNNING, attempt=5, lease_until=timezone.now() - timedelta(seconds=1)
    )
    measured(measurement)
    assert "5 attempts to measure it were killed" in measurement.failure
    assert AuditEvent.objects.get(kind="measurement.failed").reason == measurement.failure


def test_diagnose_prints_json_and_ends_well_for_a_bundle_that_passes(desk: Desk) -> None:
    made = desk.bundle(trained("v7_fixed"))
    said = StringIO()
    call_command("diagnose", "--bundle", made.short_digest, "--json", stdout=said)
    (answer,) = json.loads(said.getvalue())
    assert (answer["coin"], answer["verdict"], answer["is_simulated"]) == ("BTC", "passed", True)
    assert [gate["gate"] for gate in answer["gates"]] == scenarios.ALWAYS_JUDGED
    assert {gate["verdict"] for gate in answer["gates"] if gate["is_required"]} == {"passed"}


def test_a_v5_is_compared_with_itself(desk: Desk) -> None:
    made = desk.bundle(trained("v5"))
    diagnosis = measuring.diagnose_here(made, desk.dataset, actor=SYSTEM, worker_name="gates@test")
    compared = diagnosis.document["skill"]["baseline"]
    assert (compared["is_itself"], compared["lower"], compared["upper"]) == (True, 0.0, 0.0)
    assert "V5, which is itself" in diagnosis.results.get(gate="skill").sentence


def test_a_measurement_on_other_candles_gets_those_of_the_training_too(desk: Desk) -> None:
    other = datasets.simulate_candles(
        desk.dataset.coin, bars=BARS, drift=DRIFT, seed=SEED + 1, actor=SYSTEM
    ).dataset
    made = desk.bundle(trained("v7_fixed"))
    diagnosis = measuring.diagnose_here(made, other, actor=SYSTEM, worker_name="gates@test")
    windows = diagnosis.document["windows"]
    assert (windows["on_training_candles"], windows["recomputed"], windows["rows_shared"]) == (False, True, 0)
    assert verdicts(diagnosis)["reload"] == verdicts(diagnosis)["candles"] == "passed"


def test_candles_of_its_training_that_are_gone_fail_the_measuring(desk: Desk) -> None:
    other = datasets.simulate_candles(
        desk.dataset.coin, bars=BARS, drift=DRIFT, seed=SEED + 1, actor=SYSTEM
    ).dataset
    made = desk.bundle(trained("v7_fixed"))
    desk.candles().unlink()
    diagnosis = measuring.diagnose_here(made, other, actor=SYSTEM, worker_name="gates@test")
    assert diagnosis.verdict == "error"
    assert "its candles cannot be read" in diagnosis.document["failure"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--coin", "DOGE"], "There is no bundle of DOGE yet"),
        (["--bundle", "ffff"], "No bundle's digest begins with 'ffff'"),
        (["--dataset", "99"], "There is no dataset 99"),
    ],
)
def test_diagnose_says_what_it_cannot_find(desk: Desk, arguments: list[str], says: str) -> None:
    desk.bundle(trained("v7_fixed"))
    error = StringIO()
    with pytest.raises(SystemExit):
        call_command("diagnose", *arguments, stderr=error)
    assert says in error.getvalue()
    assert not Measurement.objects.exists()
