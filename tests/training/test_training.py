"""What a worker does with a run: train it to its end, within its limits, so that a kill costs an epoch at the most."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone

from audit import services as audit
from audit.models import AuditEvent
from mlcore.bundle import format as bundles
from mlcore.bundle.predictor import Predictor
from mlcore.constants import CLASSES
from mlcore.fitting.checkpoint import EpochReport
from tests import factories
from training import artifact_store as files
from training import worker
from training.artifact_store import StoreUnavailable
from training.jobs import leases
from training.jobs.cost_limits import TimeLimitAlarm
from training.models import Budget, Bundle, Dataset, Epoch, TrainingRun
from training.rules import JobState
from training.services.runs import cancel_run, open_budget

pytestmark = [pytest.mark.usefixtures("committed"), pytest.mark.slow]


class Killed(BaseException):
    """Ends an attempt as SIGKILL does: nothing is written after it."""


def train(run: TrainingRun, **more: Any) -> TrainingRun:
    """Work on the run as a worker does, and look at what became of it."""
    worker.train(run.pk, **{"worker_name": "first@test", "device": "cpu", **more})
    run.refresh_from_db()
    return run


def train_and_be_killed(run: TrainingRun, *, after_epoch: int) -> None:
    def die(report: EpochReport) -> None:
        if report.number == after_epoch:
            raise Killed

    with pytest.raises(Killed):
        train(run, on_epoch=die)
    run.refresh_from_db()


def let_lease_run_out(run: TrainingRun) -> None:
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def log_of(run: TrainingRun) -> str:
    return "\n".join(run.log.values_list("text", flat=True))


def checkpoints(store: Path) -> list[Path]:
    return [path for path in store.glob("checkpoints/*/*") if path.is_file()]


@pytest.fixture
def dataset() -> Dataset:
    return factories.market()


class TestARun:
    @pytest.mark.postgresql
    def test_ends_with_a_bundle_that_predicts(self, dataset: Dataset, store: Path, tmp_path: Path) -> None:
        run = train(factories.run(dataset, epochs=3))
        assert (run.state, run.failure) == (JobState.SUCCEEDED, "")
        assert run.bundle is not None
        assert (run.bundle.coin, run.bundle.line, run.bundle.dataset) == (dataset.coin, "v7_fixed", dataset)
        assert run.bundle.is_simulated
        factories.bundle_folder(run.bundle, tmp_path)
        verified = bundles.verify(tmp_path, run.bundle.digest)
        assert verified.manifest.coin == "BTC"
        assert verified.manifest.dataset_digest == dataset.digest
        assert {a.name for a in run.bundle.artifacts.all()} == {"manifest.json", *verified.manifest.files}
        long_enough = factories.market(bars=2100, seed=5)
        assert Predictor(tmp_path).predict(files.read_candles(long_enough)).direction in CLASSES
        assert checkpoints(store) == []

    def test_reports_every_epoch_with_its_figures(self, dataset: Dataset) -> None:
        run = train(factories.run(dataset, epochs=3))
        epochs = list(run.epoch_rows.all())
        assert [epoch.number for epoch in epochs] == [1, 2, 3]
        for epoch in epochs:
            assert epoch.train_loss is not None
            assert epoch.validation_loss is not None
            assert 0 < (epoch.validation_accuracy or 0) < 1
            assert epoch.seconds > 0
            assert epoch.rows_per_second > 100
        assert epochs[0].is_best
        assert "epoch 3/3" in log_of(run)

    def test_says_where_it_ran_what_it_took_and_by_which_code(self, dataset: Dataset, settings: Any) -> None:
        settings.CODE_VERSION = "1.2.3"
        run = train(factories.run(dataset))
        assert (run.device, run.worker_name, run.code_version) == ("CPU", "first@test", "1.2.3")
        assert 0 < run.billed_seconds < 60
        assert float(run.spent_usd) == pytest.approx(run.billed_seconds * 1.006 / 3600, abs=2e-6)

    def test_leaves_its_events(self, dataset: Dataset) -> None:
        run = train(factories.run(dataset))
        kinds = AuditEvent.objects.filter(object_type="trainingrun", object_id=str(run.pk)).order_by("seq")
        assert [event.kind.partition(".")[2] for event in kinds] == ["queued", "running", "succeeded"]
        assert audit.verify() == []

    @pytest.mark.parametrize("line", ["v5", "v6_enhanced"])
    def test_trains_the_other_lines_too(self, dataset: Dataset, line: str) -> None:
        run = train(factories.run(dataset, line=line))
        assert (run.state, run.failure) == (JobState.SUCCEEDED, "")
        assert run.bundle is not None
        assert run.bundle.line == line

    def test_made_twice_names_the_same_bundle(self, dataset: Dataset) -> None:
        first, second = (train(factories.run(dataset, seed=4)) for _ in range(2))
        assert first.bundle == second.bundle
        assert Bundle.objects.count() == 1
        assert train(factories.run(dataset, seed=5)).bundle != first.bundle

    @pytest.mark.postgresql
    def test_delivered_a_second_time_stays_as_it_is(self, dataset: Dataset) -> None:
        run = train(factories.run(dataset))
        events = AuditEvent.objects.count()
        assert worker.train(run.pk, worker_name="second@test") is None
        assert worker.train(4711, worker_name="second@test") is None
        assert AuditEvent.objects.count() == events
        assert train(run).attempt == 1

    @pytest.mark.postgresql
    def test_held_by_one_worker_is_not_taken_by_another(self, dataset: Dataset) -> None:
        run = factories.run(dataset)
        taken: list[object] = []
        train(run, on_epoch=lambda report: taken.append(worker.train(run.pk, worker_name="second@test")))
        assert taken == [None, None]
        assert run.attempt == 1
        assert run.state == JobState.SUCCEEDED

    @pytest.mark.postgresql
    def test_renews_its_lease_and_shows_its_cost_while_it_works(
        self, dataset: Dataset, settings: Any
    ) -> None:
        settings.LEASE_SECONDS = 0.4
        run = factories.run(dataset, epochs=1)
        seen: list[TrainingRun] = []

        def watch(report: EpochReport) -> None:
            before = TrainingRun.objects.get(pk=run.pk)
            time.sleep(0.8)
            seen.extend([before, TrainingRun.objects.get(pk=run.pk)])

        train(run, on_epoch=watch)
        before, after = seen
        assert run.attempt == 1
        assert before.lease_until is not None
        assert after.lease_until is not None
        assert after.lease_until > before.lease_until
        assert after.billed_seconds > before.billed_seconds + 0.2
        assert after.spent_usd > before.spent_usd


@pytest.mark.postgresql
class TestAKilledRun:
    def test_goes_on_from_its_checkpoint_and_makes_the_same_bundle(self, dataset: Dataset) -> None:
        undisturbed = train(factories.run(dataset, epochs=4)).bundle
        run = factories.run(dataset, epochs=4)
        train_and_be_killed(run, after_epoch=2)
        assert run.state == JobState.RUNNING
        let_lease_run_out(run)
        train(run, worker_name="second@test")
        assert (run.state, run.worker_name, run.attempt) == (JobState.SUCCEEDED, "second@test", 2)
        assert run.bundle == undisturbed
        epochs = run.epoch_rows.values_list("number", "attempt")
        assert list(epochs) == [(1, 1), (2, 1), (3, 2), (4, 2)]
        assert "resuming after epoch 2" in log_of(run)
        takeover = AuditEvent.objects.filter(kind="trainingrun.running", object_id=str(run.pk)).first()
        assert takeover is not None
        assert "stopped renewing its lease" in takeover.reason

    def test_is_not_taken_over_before_its_lease_runs_out(self, dataset: Dataset) -> None:
        run = factories.run(dataset)
        train_and_be_killed(run, after_epoch=1)
        assert worker.train(run.pk, worker_name="second@test") is None
        assert TrainingRun.objects.get(pk=run.pk).attempt == 1

    def test_is_billed_for_all_its_attempts(self, dataset: Dataset) -> None:
        run = factories.run(dataset)
        train_and_be_killed(run, after_epoch=1)
        TrainingRun.objects.filter(pk=run.pk).update(billed_seconds=100, spent_usd=Decimal("0.02"))
        let_lease_run_out(run)
        train(run)
        assert 100 < run.billed_seconds < 160
        assert run.spent_usd > Decimal("0.02")

    @pytest.mark.parametrize("damage", ["gone", "cut off"])
    def test_a_bad_checkpoint_restarts_without_reporting_an_epoch_twice(
        self, dataset: Dataset, damage: str
    ) -> None:
        undisturbed = train(factories.run(dataset, epochs=3)).bundle
        run = factories.run(dataset, epochs=3)
        train_and_be_killed(run, after_epoch=2)
        if damage == "gone":
            default_storage.delete(run.checkpoint)
        else:
            default_storage.save(run.checkpoint, ContentFile(files.read_checkpoint(run.checkpoint)[:-20]))
        let_lease_run_out(run)
        train(run)
        assert run.state == JobState.SUCCEEDED
        assert run.bundle == undisturbed
        assert list(run.epoch_rows.values_list("number", "attempt")) == [(1, 1), (2, 1), (3, 2)]
        assert "checkpoint" in log_of(run)

    def test_that_never_finishes_an_epoch_is_given_up(self, dataset: Dataset) -> None:
        run = factories.run(dataset)
        for _ in range(5):
            assert leases.claim(TrainingRun, run.pk, worker_name="doomed@test") is not None
            let_lease_run_out(run)
        assert worker.train(run.pk, worker_name="second@test") is None
        run.refresh_from_db()
        assert run.state == JobState.FAILED
        assert "5 attempts in a row ended without a finished epoch" in run.failure

    def test_that_is_cancelled_meanwhile_ends_without_another_epoch(self, dataset: Dataset) -> None:
        run = factories.run(dataset)
        train_and_be_killed(run, after_epoch=1)
        cancel_run(run, actor=factories.OPERATOR, reason="enough")
        let_lease_run_out(run)
        train(run)
        assert run.state == JobState.CANCELLED
        assert run.epoch_rows.count() == 1


@pytest.mark.postgresql
class TestAWorkerThoughtDead:
    """It comes back while another has taken its run over, or the run was ended: it writes nothing."""

    @dataclass
    class Witness:
        epochs: list[tuple[int, int]]
        lines: int
        files: list[Path]

    def witness(self, run: TrainingRun, store: Path) -> "TestAWorkerThoughtDead.Witness":
        rows = list(run.epoch_rows.values_list("number", "attempt"))
        return self.Witness(rows, run.log.count(), sorted(p for p in store.rglob("*") if p.is_file()))

    def test_writes_nothing_after_a_takeover(self, dataset: Dataset, store: Path) -> None:
        run = factories.run(dataset, epochs=3)
        seen: list[TestAWorkerThoughtDead.Witness] = []

        def be_taken_over(report: EpochReport) -> None:
            let_lease_run_out(run)
            assert leases.claim(TrainingRun, run.pk, worker_name="second@test") is not None
            seen.append(self.witness(run, store))

        assert worker.train(run.pk, worker_name="zombie@test", device="cpu", on_epoch=be_taken_over) is None
        assert self.witness(run, store) == seen[0]
        run.refresh_from_db()
        assert (run.state, run.attempt, run.worker_name) == (JobState.RUNNING, 2, "second@test")
        assert not Bundle.objects.exists()

    def test_writes_nothing_after_the_run_was_ended(self, dataset: Dataset, store: Path) -> None:
        run = factories.run(dataset, epochs=1)

        def be_ended(report: EpochReport) -> None:
            let_lease_run_out(run)
            cancel_run(run, actor=factories.OPERATOR, reason="enough")

        assert worker.train(run.pk, worker_name="zombie@test", device="cpu", on_epoch=be_ended) is None
        run.refresh_from_db()
        assert run.state == JobState.CANCELLED
        assert not Bundle.objects.exists()


# pytest tells of what Python drops.
IN_A_FINALIZER = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class TestLimits:
    @pytest.mark.postgresql
    def test_a_cancelled_run_stops_between_epochs(self, dataset: Dataset, store: Path) -> None:
        run = factories.run(dataset, epochs=50)

        def cancel(report: EpochReport) -> None:
            if report.number == 2:
                cancel_run(run, actor=factories.OPERATOR, reason="enough")

        train(run, on_epoch=cancel)
        assert (run.state, run.failure) == (JobState.CANCELLED, "cancelled by request")
        assert run.epoch_rows.count() == 2
        assert run.bundle is None
        assert checkpoints(store) == []

    def test_a_run_past_its_share_of_the_time_stops_and_says_so(
        self, dataset: Dataset, settings: Any
    ) -> None:
        settings.RELEASE_TIME_LIMIT_SECONDS = 3
        budget = open_budget(runs_expected=2)
        run = train(factories.run(dataset, epochs=50, patience=50, budget=budget), on_epoch=slowly)
        assert run.state == JobState.FAILED
        assert run.failure.startswith("time limit:")
        assert 1 < run.billed_seconds < 3

    def test_a_run_that_has_spent_what_was_left_stops_and_says_so(
        self, dataset: Dataset, settings: Any
    ) -> None:
        settings.RELEASE_SPENDING_LIMIT_USD = "0.0005"
        run = train(factories.run(dataset, epochs=50, patience=50), on_epoch=slowly)
        assert run.state == JobState.FAILED
        assert run.failure.startswith("spending limit: $0.0005")
        assert Decimal(0) < run.spent_usd <= Decimal("0.0005")

    @IN_A_FINALIZER
    def test_a_limit_holds_in_mid_epoch_too(self, settings: Any) -> None:
        """An epoch of this takes twice the three seconds that the money lasts."""
        settings.RELEASE_SPENDING_LIMIT_USD = "0.0009"
        started = time.monotonic()
        run = train(factories.run(factories.market(bars=300_000), epochs=50, batch_size=16))
        assert time.monotonic() - started < 30
        assert run.failure.startswith("spending limit")
        assert run.spent_usd <= Decimal("0.0009")
        assert run.epoch_rows.count() == 0

    @IN_A_FINALIZER
    def test_an_alarm_that_falls_into_a_finalizer_rings_again(self) -> None:
        class Departing:
            def __del__(self) -> None:
                time.sleep(0.3)

        with pytest.raises(worker.RunStopped), TimeLimitAlarm(worker.RunStopped).raise_after(0.1):
            Departing()
            time.sleep(30)

    @pytest.mark.postgresql
    def test_three_at_once_cannot_overspend(self, dataset: Dataset, settings: Any) -> None:
        """The first reserves its worst case, $0.503; the second what is left of $0.60; for the third there is nothing."""
        settings.RELEASE_SPENDING_LIMIT_USD = "0.60"
        budget = open_budget(runs_expected=3)
        runs = [factories.run(dataset, seed=n, budget=budget) for n in range(3)]
        turned_away = threading.Event()
        committed: list[Decimal] = []

        def watch(report: EpochReport) -> None:
            assert turned_away.wait(30)
            committed.append(Budget.objects.get(pk=budget.pk).committed_usd)

        def work(run: TrainingRun) -> None:
            if train(run, on_epoch=watch).state == JobState.QUEUED:
                turned_away.set()

        at_once([partial(work, run) for run in runs])
        assert sorted(run.state for run in runs) == ["queued", "succeeded", "succeeded"]
        assert committed[0] == Decimal("0.60")
        assert max(committed) <= Decimal("0.60")

    @pytest.mark.postgresql
    def test_a_run_without_budget_waits_until_other_runs_end(
        self, dataset: Dataset, settings: Any, broker: Any
    ) -> None:
        settings.RELEASE_SPENDING_LIMIT_USD = "0.01"
        budget = open_budget(runs_expected=2)
        first, second = (factories.run(dataset, seed=n, budget=budget) for n in range(2))
        waited: list[str] = []

        def meanwhile(report: EpochReport) -> None:
            assert worker.train(second.pk, worker_name="second@test") is None
            waited.append(TrainingRun.objects.get(pk=second.pk).state)
            broker.flushall()

        train(first, on_epoch=meanwhile)
        assert waited == [JobState.QUEUED] * 2
        assert first.state == JobState.SUCCEEDED
        assert broker.llen("training") == 1
        assert train(second).state == JobState.SUCCEEDED

    def test_a_run_for_which_nothing_is_left_fails_and_says_so(self, dataset: Dataset) -> None:
        budget = open_budget(runs_expected=2)
        spent = factories.run(dataset, budget=budget)
        TrainingRun.objects.filter(pk=spent.pk).update(state=JobState.FAILED, spent_usd=Decimal("1.50"))
        run = train(factories.run(dataset, budget=budget))
        assert run.state == JobState.FAILED
        assert run.failure.startswith("spending limit: the $1.50 of this launch are spent")
        assert run.attempt == 0


def slowly(report: EpochReport) -> None:
    time.sleep(0.15)


def at_once(jobs: list[Callable[[], object]]) -> None:
    """All in threads of their own, started together."""
    gate = threading.Barrier(len(jobs))

    def work(job: Callable[[], object]) -> None:
        gate.wait()
        job()
        connection.close()

    threads = [threading.Thread(target=work, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class TestAFailure:
    def test_says_why_in_words_a_person_understands(self, dataset: Dataset) -> None:
        run = factories.run(dataset)
        default_storage.delete(files.key(dataset.digest.removeprefix("sha256:")))
        train(run)
        assert run.state == JobState.FAILED
        assert "is missing from the store" in run.failure
        assert AuditEvent.objects.filter(kind="trainingrun.failed", reason=run.failure).exists()

    def test_of_too_short_a_history_says_how_much_it_needs(self) -> None:
        run = train(factories.run(factories.market(bars=1000)))
        assert run.state == JobState.FAILED
        assert "usable rows" in run.failure

    def test_nobody_expected_leaves_its_traceback_in_the_log(self, dataset: Dataset) -> None:
        def break_down(report: EpochReport) -> None:
            raise ZeroDivisionError("a fault of ours")

        run = train(factories.run(dataset), on_epoch=break_down)
        assert run.state == JobState.FAILED
        assert run.failure.startswith("ZeroDivisionError: a fault of ours")
        assert "Traceback" in log_of(run)

    def test_ctrl_c_at_a_terminal_ends_the_run(self, dataset: Dataset) -> None:
        def interrupt(report: EpochReport) -> None:
            raise KeyboardInterrupt

        run = factories.run(dataset)
        with pytest.raises(KeyboardInterrupt):
            train(run, on_epoch=interrupt)
        run.refresh_from_db()
        assert (run.state, run.failure) == (JobState.CANCELLED, "interrupted at the terminal")

    def test_of_the_store_leaves_the_run_to_the_next_attempt(
        self, dataset: Dataset, store: Path, settings: Any
    ) -> None:
        run = factories.run(dataset)
        moved = store.rename(store.with_name("elsewhere"))
        store.write_text("a file where the folder should be")
        with pytest.raises(StoreUnavailable):
            train(run)
        store.unlink()
        moved.rename(store)
        run.refresh_from_db()
        assert run.state == JobState.RUNNING
        assert "does not answer" in log_of(run)
        let_lease_run_out(run)
        assert train(run).state == JobState.SUCCEEDED


@pytest.mark.postgresql
def test_an_epoch_once_written_is_never_changed(dataset: Dataset) -> None:
    """The refusal is the database's own."""
    from django.db import DatabaseError

    train(factories.run(dataset, epochs=1))
    with pytest.raises(DatabaseError):
        Epoch.objects.update(validation_accuracy=0.99)
