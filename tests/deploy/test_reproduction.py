"""A launch that trains each model twice: by another worker, within the limits, compared by a gate and signed."""

import json
import re
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from securesystemslib import dsse
from securesystemslib.signer import SSlibKey

from accounts.models import User
from audit.models import AuditEvent
from common.errors import NotFound
from deploy.models import Release, ReleaseCoin, Statement
from deploy.pointer import pointer
from deploy.reconcile import stop_unneeded_runs
from deploy.releases import decide, launch, settle
from deploy.releases.coins import set_required
from deploy.releases.progress import load_progress
from deploy.rules import Purpose
from deploy.serving import keys, snapshot, statements
from gates import worker as gates_worker
from gates.models import Measurement
from gates.services import measuring
from mlcore.verdict import Verdict
from tests import factories, scenarios
from training import worker
from training.jobs import leases
from training.models import Coin, Dataset, TrainingRun, Worker
from training.rules import JobState

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
QUICK = {"epochs": 2, "batch_size": 256}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, settings: Settings) -> None:
    settings.SIGNING_KEYS_DIR = tmp_path / "keys"
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "training.atomic_storage.AtomicFileStorage",
            "OPTIONS": {"location": tmp_path / "store"},
        },
    }


@pytest.fixture
def btc() -> Dataset:
    """Candles of the one coin that bots trade."""
    for coin in Coin.objects.exclude(symbol="BTC"):
        set_required(coin, False, actor=scenarios.APPROVER, reason="the desk trades one", is_confirmed=True)
    return factories.market("BTC", bars=3_000)


def add_workers(*names: str) -> None:
    for name in names:
        Worker.objects.create(
            name=name,
            queues="training",
            device="CPU",
            torch_version="2",
            code_version="1",
            rate_usd_per_hour=Decimal(0),
            started_at=timezone.now(),
            last_heard_at=timezone.now() + timedelta(hours=1),  # alive however long a training takes here
        )


def launched(**more: Any) -> Release:
    release = launch.launch("v7_fixed", actor=scenarios.LAUNCHER, parameters=QUICK, reproduce=True, **more)
    settle.advance(release)
    return release


def runs_of(release: Release) -> tuple[TrainingRun, TrainingRun]:
    first, second = TrainingRun.objects.filter(budget=release.budget).order_by("id")
    assert second.reproduces == first
    return first, second


def train(run: TrainingRun, name: str) -> TrainingRun | None:
    return worker.train(run.pk, worker_name=name, device="cpu")


def finish(release: Release) -> ReleaseCoin:
    """What workers and `reconcile` do once both trainings have ended."""
    settle.advance(release)
    for measurement in Measurement.objects.filter(state=JobState.QUEUED):
        gates_worker.run(measurement.pk, worker_name="gates@test")
    settle.advance(release)
    return release.coins.get()


def find_gate(release_coin: ReleaseCoin) -> Any:
    assert release_coin.diagnosis is not None
    return release_coin.diagnosis.results.get(gate="reproduced")


def reproduced() -> ReleaseCoin:
    """Trained twice, and not measured yet."""
    add_workers("one@desk", "two@desk")
    release = launched()
    first, second = runs_of(release)
    assert train(first, "one@desk") and train(second, "two@desk")
    settle.advance(release)
    return release.coins.get()


def test_another_worker_trains_it_again_and_both_are_measured_together(btc: Dataset) -> None:
    add_workers("one@desk", "two@desk")
    release = launched()
    first, second = runs_of(release)
    assert release.budget.runs_expected == 2, "both are within the limits of the launch"
    assert train(first, "one@desk")
    settle.advance(release)
    assert not Measurement.objects.exists(), "it is measured with both"
    assert [coin.stage for coin in load_progress(release).coins] == ["queued"], "the second one is"
    assert train(second, "one@desk") is None, "another worker is there"
    second.refresh_from_db()
    assert (second.state, second.enqueued_at) == (JobState.QUEUED, None), "reconcile sends it again"
    assert train(second, "two@desk")
    gate = find_gate(finish(release))
    assert (gate.verdict, gate.observed) == (Verdict.PASSED, "model.onnx equal, bit for bit")
    assert "by one@desk, and again by two@desk" in gate.sentence
    assert Measurement.objects.count() == 1


def test_the_first_is_left_to_another_worker_where_the_second_came_first(btc: Dataset) -> None:
    add_workers("one@desk", "two@desk")
    first, second = runs_of(launched())
    assert train(second, "one@desk")
    assert train(first, "one@desk") is None
    assert train(first, "two@desk")


@pytest.mark.long
def test_a_single_worker_trains_both_and_the_gate_says_so(btc: Dataset) -> None:
    add_workers("one@desk")
    release = launched()
    for run in runs_of(release):
        assert train(run, "one@desk")
    gate = find_gate(finish(release))
    assert gate.verdict == Verdict.INCONCLUSIVE
    assert "no other worker took it" in gate.sentence
    statements.sign_due()
    assert not Statement.objects.exists()


@pytest.mark.long
def test_a_second_training_that_fails_holds_nothing_up(btc: Dataset) -> None:
    add_workers("one@desk", "two@desk")
    release = launched()
    first, second = runs_of(release)
    train(first, "one@desk")
    TrainingRun.objects.filter(pk=second.pk).update(
        state=JobState.FAILED, failure="the disk is full", finished_at=timezone.now()
    )
    gate = find_gate(finish(release))
    assert (gate.verdict, gate.is_required) == (Verdict.ERROR, False)
    assert "the disk is full" in gate.sentence


@pytest.mark.long
def test_a_model_that_was_measured_before_is_measured_again(btc: Dataset) -> None:
    add_workers("one@desk", "two@desk")
    once = launch.launch("v7_fixed", actor=scenarios.LAUNCHER, parameters=QUICK)
    settle.advance(once)
    train(TrainingRun.objects.get(budget=once.budget), "one@desk")
    assert not finish(once).diagnosis.results.filter(gate="reproduced").exists()  # type: ignore[union-attr]
    assert once.coins.get().second_run is None
    release = launched()
    first, second = runs_of(release)
    train(first, "one@desk")
    train(second, "two@desk")
    release_coin = finish(release)
    assert release_coin.bundle == once.coins.get().bundle
    assert find_gate(release_coin).verdict == Verdict.PASSED
    attempts = release_coin.diagnosis and release_coin.diagnosis.context_document["attempts"]
    assert attempts and attempts["count"] == 1, "the same model twice is one attempt"


def test_both_runs_of_a_cancelled_release_stop(btc: Dataset) -> None:
    release = launched()
    decide.cancel(release, actor=scenarios.LAUNCHER, reason="the wrong candles")
    assert {run.state for run in runs_of(release)} == {JobState.CANCELLED}


def test_runs_that_a_dead_process_left_running_are_stopped(btc: Dataset) -> None:
    release = launched()
    _, second = runs_of(release)
    decide.cancel(release, actor=scenarios.LAUNCHER, reason="the wrong candles")
    TrainingRun.objects.filter(pk=second.pk).update(state=JobState.QUEUED)
    stop_unneeded_runs()
    second.refresh_from_db()
    assert second.state == JobState.CANCELLED


def run_example(*arguments: str) -> str:
    """The program of docs/reproduction.md."""
    page = (Path(__file__).parents[2] / "docs" / "reproduction.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_a_statement_names_the_files_and_both_trainings(btc: Dataset, tmp_path: Path) -> None:
    release_coin = reproduced()
    statements.sign_due()
    statements.sign_due()
    statement = Statement.objects.get()
    bundle = release_coin.bundle
    assert bundle is not None and statement.bundle == bundle
    key = keys.list_active()[0]
    envelope = dsse.Envelope.from_dict(json.loads(statement.body))
    envelope.verify([SSlibKey(key.key_id, "ed25519", "ed25519", {"public": key.public_hex})], threshold=1)
    assert envelope.payload_type == "application/vnd.in-toto+json"
    document = json.loads(envelope.payload)
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    files = {entry["name"]: entry["digest"]["sha256"] for entry in document["subject"]}
    assert files == dict(bundle.artifacts.exclude(name="manifest.json").values_list("name", "sha256")) | (
        {"manifest.json": bundle.digest.removeprefix("sha256:")}
    )
    told = document["predicate"]
    assert (told["bundle"], told["candles"], told["seed"]) == (bundle.digest, btc.digest, 1)
    assert [training["workers"] for training in told["trainings"]] == [["one@desk"], ["two@desk"]]
    event = AuditEvent.objects.get(kind="bundle.reproduced")
    assert json.loads(event.body)["detail"]["statement"] == statement.sha256
    keys.create(actor="anna", reason="a second one, which has not signed it")
    (tmp_path / "statement.json").write_text(statement.body)
    shown = run_example(str(tmp_path / "statement.json"), keys.export_public())
    assert [line.split() for line in shown.splitlines()] == [
        [sha256, name] for name, sha256 in sorted(files.items())
    ]


def test_without_a_key_it_waits(btc: Dataset, settings: Settings) -> None:
    reproduced()
    settings.IS_EMBEDDED = False
    statements.sign_due()
    assert not Statement.objects.exists()


def test_nothing_is_signed_about_other_bytes(btc: Dataset) -> None:
    _, second = runs_of(reproduced().release)
    other = factories.bundle(btc, "other")
    other.artifacts.create(name="model.onnx", sha256="0" * 64, size=1)
    second.bundle = other
    statements._sign_if_equal(second)
    assert not Statement.objects.exists()


def test_a_pair_that_gets_no_statement_costs_one_query_a_pass(btc: Dataset) -> None:
    """Such releases stay live, or on standby for good, and `reconcile` looks every few seconds."""
    add_workers("one@desk")
    release = launched()
    for run in runs_of(release):
        assert train(run, "one@desk")
    settle.advance(release)
    with CaptureQueriesContext(connection) as asked:
        statements.sign_due()
    assert len(asked) == 1


@pytest.mark.long
def test_a_worker_that_took_part_in_both_is_no_other_worker(btc: Dataset) -> None:
    add_workers("one@desk", "two@desk")
    release = launched()
    first, second = runs_of(release)
    assert leases.claim(TrainingRun, first.pk, worker_name="two@desk")
    TrainingRun.objects.filter(pk=first.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert train(first, "one@desk"), "it resumes what the other began"
    assert train(second, "two@desk")
    gate = find_gate(finish(release))
    assert gate.verdict == Verdict.INCONCLUSIVE
    assert "two@desk took part in both" in gate.sentence
    statements.sign_due()
    assert not Statement.objects.exists()


def test_a_busy_worker_is_not_waited_for_until_the_release_expires(btc: Dataset) -> None:
    add_workers("one@desk", "two@desk")
    release = launched()
    first, second = runs_of(release)
    assert train(first, "one@desk") and train(second, "one@desk") is None
    longest = timedelta(seconds=release.budget.share_of_time_seconds)
    assert 3 * longest < release.deadline_at - release.created_at
    TrainingRun.objects.filter(pk=first.pk).update(finished_at=timezone.now() - longest)
    assert train(second, "one@desk")


@pytest.mark.long
def test_the_clock_of_a_worker_asks_for_no_second_measurement(btc: Dataset) -> None:
    """Each look asked for another one while a worker's clock was ahead, and none of them knew the second training."""
    add_workers("one@desk", "two@desk")
    release = launched()
    first, second = runs_of(release)
    assert train(first, "one@desk") and train(second, "two@desk")
    TrainingRun.objects.filter(pk=second.pk).update(finished_at=timezone.now() + timedelta(hours=1))
    for _ in range(3):
        settle.advance(release)
    assert Measurement.objects.get().second_run == second
    assert find_gate(finish(release)).verdict == Verdict.PASSED


def test_runs_that_were_written_past_the_service_get_no_statement(btc: Dataset) -> None:
    release = reproduced().release
    first, second = runs_of(release)
    TrainingRun.objects.filter(pk=second.pk).update(seed=second.seed + 1)
    statements.sign_due()
    TrainingRun.objects.filter(pk=second.pk).update(state=JobState.FAILED, seed=second.seed)
    told = {
        name: getattr(second, name) for name in ("coin", "dataset", "line", "recipe", "parameters", "seed")
    }
    ended = {"state": JobState.SUCCEEDED, "bundle": first.bundle, "worker_name": "mallory@desk"}
    TrainingRun.objects.create(
        **told, **ended, epochs=1, budget=first.budget, reproduces=first, finished_at=timezone.now()
    )
    statements.sign_due()
    assert not Statement.objects.exists()
    with pytest.raises(DatabaseError, match="reproduces_id"), transaction.atomic():
        TrainingRun.objects.filter(pk=second.pk).update(reproduces=None)


def test_a_snapshot_names_what_was_signed_before_its_move(btc: Dataset) -> None:
    bundle = reproduced().bundle
    assert bundle is not None
    with pytest.raises(NotFound, match="There is no statement"):
        statements.find_statement(bundle)
    inherited = launch.launch(
        "v7_fixed", actor=scenarios.LAUNCHER, bundles={"BTC": bundle}, purpose=Purpose.INHERITED
    )
    settle.advance(inherited)
    decide.inherit(inherited, actor=scenarios.APPROVER, reason="as the bot stands today")
    move = pointer.get_current()
    assert move is not None
    before = snapshot.build_snapshot(move).body
    assert json.loads(before)["models"]["BTC"]["statement"] is None
    statements.sign_due()
    assert statements.find_statement(bundle).bundle == bundle
    assert snapshot.build_snapshot(move).body == before, "one revision has one content"
    move.audit_seq = Statement.objects.get().audit_seq + 1
    signed = snapshot._describe_statements(move, [bundle.digest])[bundle.digest]
    assert signed["url"] == f"/api/v1/bundles/{bundle.digest}/statement/"


def test_the_database_refuses_a_forged_or_changed_statement(btc: Dataset) -> None:
    release_coin = reproduced()
    bundle, second = release_coin.bundle, release_coin.second_run
    forged = {"bundle": bundle, "run": second, "body": "{}", "sha256": "0" * 64, "audit_seq": 1}
    with pytest.raises(DatabaseError, match="its own event"), transaction.atomic():
        Statement.objects.create(**forged)
    statements.sign_due()
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE deploy_statement SET body = '{}'")


def test_the_command_launches_with_a_second_training(
    btc: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    factories.person("olivia", "operator")
    call_command("release", "--line", "v7_fixed", "--reproduce", "--as", "olivia", "--json")
    assert json.loads(capsys.readouterr().out)["is_reproduced"] is True


def test_the_page_launches_it_and_shows_the_second_run_and_the_statement(
    btc: Dataset, client: Client, operator: User
) -> None:
    client.force_login(operator)
    form: dict[str, str | int] = {"line": "v7_fixed", "purpose": "candidate", "seed": "1", **QUICK}
    once, twice = (
        client.get("/launch/estimate/", {**form, **more}).context["estimate"]
        for more in ({}, {"reproduce": "on"})
    )
    assert twice.usd >= once.usd and twice.seconds > once.seconds
    add_workers("one@desk", "two@desk")
    client.post("/launch/", {**form, "reproduce": "on"})
    release = Release.objects.get()
    settle.advance(release)
    first, second = runs_of(release)
    assert train(first, "one@desk") and train(second, "two@desk")
    settle.advance(release)
    statements.sign_due()
    page = client.get(f"/releases/{release.pk}/").content.decode()
    assert f"/runs/{second.pk}/" in page and "signed statement" in page
    assert f"/runs/{first.pk}/" in client.get(f"/runs/{second.pk}/").content.decode()
    assert client.get(f"/api/v1/runs/{second.pk}/").json()["reproduces"] == first.pk
    answer = client.get(f"/api/v1/releases/{release.pk}/").json()
    assert (answer["is_reproduced"], answer["coins"][0]["second_run"]) == (True, second.pk)
    assert client.get(answer["coins"][0]["statement"]).json()["payloadType"] == statements.PAYLOAD_TYPE


def test_a_measurement_by_hand_knows_the_last_second_training(btc: Dataset) -> None:
    release_coin = reproduced()
    bundle, second = release_coin.bundle, release_coin.second_run
    assert bundle is not None
    asked = measuring.measure(bundle, btc, actor=scenarios.LAUNCHER, again=True)
    assert asked.second_run == second
    with pytest.raises(DatabaseError, match="second_run_id"), transaction.atomic():
        Measurement.objects.filter(pk=asked.pk).update(second_run=None)
