"""Launching, cancelling, launching again: what is asked of a run, by whom, and in which state."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.utils import timezone

from audit.models import AuditEvent
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed, NotFound
from tests import factories
from training.jobs import leases
from training.models import Dataset, TrainingRun, Worker
from training.rules import JobState
from training.services import coins, datasets, estimates, runs

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


@pytest.fixture
def dataset() -> Dataset:
    return factories.market(bars=1100)


def launch(dataset: Dataset, **changes: Any) -> TrainingRun:
    asked: dict[str, Any] = {
        "coin": dataset.coin,
        "dataset": dataset,
        "line": "v7_fixed",
        "parameters": {"epochs": 7},
        "seed": 3,
        "actor": factories.OPERATOR,
    }
    return runs.launch_run(**{**asked, "budget": runs.open_budget(), **changes})


def events(kind: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(kind=kind))


def claimed(run: TrainingRun) -> TrainingRun:
    held = leases.claim(TrainingRun, run.pk, worker_name="w1")
    assert held is not None
    return held


def let_lease_run_out(run: TrainingRun) -> None:
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


class TestLaunching:
    def test_queues_a_run_with_what_was_asked_and_its_event(self, dataset: Dataset) -> None:
        run = launch(dataset)
        assert (run.state, run.epochs, run.seed, run.launched_by) == ("queued", 7, 3, "olivia")
        assert run.parameters == {"epochs": 7}
        [event] = events("trainingrun.queued")
        assert (event.actor, event.object_id) == ("olivia", str(run.pk))

    def test_takes_the_recipes_own_epochs_where_none_are_asked(self, dataset: Dataset) -> None:
        assert launch(dataset, parameters={}).epochs == 50
        assert launch(dataset, line="v6_enhanced", parameters={}).epochs == 10
        assert launch(dataset, line="v5", parameters={}).epochs == 1

    def test_takes_an_operator(self, dataset: Dataset) -> None:
        with pytest.raises(NotAllowed, match="victor may not launch"):
            launch(dataset, actor=factories.VIEWER)
        assert not TrainingRun.objects.exists()

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"line": "v8"}, "line"),
            ({"parameters": {"epochs": 0}}, "epochs"),
            ({"parameters": {"epochs": 51}}, "epochs"),
            ({"parameters": {"batch_size": 15}}, "batch_size"),
            ({"parameters": {"batch_size": 4097}}, "batch_size"),
            ({"parameters": {"batch_size": 64.5}}, "batch_size"),
            ({"parameters": {"batch_size": "64"}}, "batch_size"),
            ({"parameters": {"batch_size": True}}, "batch_size"),
            ({"parameters": {"learning_rate": float("nan")}}, "learning_rate"),
            ({"parameters": {"epochs": float("inf")}}, "epochs"),
            ({"parameters": {"epochs": float("nan")}}, "epochs"),
            ({"parameters": {"dropout": 0.5}}, "dropout"),
            ({"parameters": {"self": 1}}, "self"),
            ({"line": "v5", "parameters": {"epochs": 5}}, "epochs"),
            ({"seed": -1}, "seed"),
            ({"seed": 2**31}, "seed"),
            ({"seed": 1.5}, "seed"),
            ({"seed": True}, "seed"),
        ],
        ids=str,
    )
    def test_refuses_what_is_out_of_bounds_and_names_it(
        self, dataset: Dataset, changes: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(InvalidInput, match=field) as refusal:
            launch(dataset, **changes)
        assert refusal.value.field == field
        assert not TrainingRun.objects.exists()
        assert not events("trainingrun.queued")

    def test_says_which_bounds_there_are(self, dataset: Dataset) -> None:
        with pytest.raises(InvalidInput, match="16 to 4096"):
            launch(dataset, parameters={"batch_size": 5000})

    def test_refuses_another_coins_dataset(self, dataset: Dataset) -> None:
        with pytest.raises(InvalidInput, match="is BTC's, not ETH's"):
            launch(dataset, coin=coins.find_coin("ETH"))
        assert not TrainingRun.objects.exists()

    def test_refuses_a_history_too_short_to_train_on(self) -> None:
        with pytest.raises(InvalidInput, match="needs at least 1,000"):
            launch(factories.market(bars=999))

    def test_twice_makes_two_runs(self, dataset: Dataset) -> None:
        assert launch(dataset).pk != launch(dataset).pk


class TestCancelling:
    def test_a_queued_run_ends_it_at_once(self, dataset: Dataset) -> None:
        run = launch(dataset)
        runs.cancel_run(run, actor=factories.OPERATOR, reason="wrong seed")
        run.refresh_from_db()
        assert run.state == JobState.CANCELLED
        assert run.failure == "cancelled by olivia: wrong seed"
        assert run.finished_at is not None
        [event] = events("trainingrun.cancelled")
        assert (event.actor, event.reason) == ("olivia", "wrong seed")

    def test_a_run_at_work_asks_it_to_stop_after_its_epoch(self, dataset: Dataset) -> None:
        run = claimed(launch(dataset))
        runs.cancel_run(run, actor=factories.OPERATOR, reason="wrong seed")
        run.refresh_from_db()
        assert run.state == JobState.RUNNING
        assert run.cancel_requested_at is not None
        assert len(events("trainingrun.cancel_requested")) == 1

    def test_asking_a_run_at_work_twice_changes_nothing(self, dataset: Dataset) -> None:
        run = claimed(launch(dataset))
        runs.cancel_run(run, actor=factories.OPERATOR, reason="one")
        first = run.cancel_requested_at
        runs.cancel_run(run, actor=factories.OPERATOR, reason="two")
        assert run.cancel_requested_at == first
        assert len(events("trainingrun.cancel_requested")) == 1

    def test_a_run_whose_worker_fell_silent_ends_it_at_once(self, dataset: Dataset) -> None:
        run = claimed(launch(dataset))
        let_lease_run_out(run)
        runs.cancel_run(run, actor=factories.OPERATOR, reason="not needed")
        assert run.state == JobState.CANCELLED
        with pytest.raises(leases.ClaimLost):
            leases.write(run, device="CPU")

    def test_a_run_that_has_ended_is_refused(self, dataset: Dataset) -> None:
        run = launch(dataset)
        runs.cancel_run(run, actor=factories.OPERATOR, reason="not needed")
        with pytest.raises(Conflict, match="has already ended: it was cancelled"):
            runs.cancel_run(run, actor=factories.OPERATOR, reason="not needed")
        assert len(events("trainingrun.cancelled")) == 1
        (refused,) = events("trainingrun.cancel.refused")
        assert "has already ended" in refused.body

    def test_takes_an_operator(self, dataset: Dataset) -> None:
        run = launch(dataset)
        with pytest.raises(NotAllowed):
            runs.cancel_run(run, actor=factories.VIEWER, reason="not needed")
        (refused,) = events("trainingrun.cancel.refused")
        assert (refused.actor, refused.reason) == (str(factories.VIEWER), "not needed")
        run.refresh_from_db()
        assert run.state == JobState.QUEUED


class TestLaunchingAgain:
    def failed(self, dataset: Dataset) -> TrainingRun:
        run = claimed(launch(dataset, parameters={"epochs": 7, "batch_size": 32}))
        leases.finish(run, JobState.FAILED, failure="for the test")
        return run

    def test_repeats_a_failed_run_with_changes_as_a_run_of_its_own(self, dataset: Dataset) -> None:
        first = self.failed(dataset)
        again = runs.relaunch(first, changes={"batch_size": 64, "seed": 9}, actor=factories.OPERATOR)
        assert again.pk != first.pk
        assert (again.dataset, again.line, again.seed) == (first.dataset, first.line, 9)
        assert again.parameters == {"epochs": 7, "batch_size": 64}
        assert again.budget != first.budget
        assert again.state == JobState.QUEUED
        first.refresh_from_db()
        assert first.state == JobState.FAILED

    def test_a_cancelled_run_may_be_launched_again(self, dataset: Dataset) -> None:
        run = launch(dataset)
        runs.cancel_run(run, actor=factories.OPERATOR, reason="not needed")
        assert runs.relaunch(run, changes={}, actor=factories.OPERATOR).seed == run.seed

    @pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
    def test_any_other_is_refused(self, dataset: Dataset, state: str) -> None:
        run = launch(dataset)
        if state != "queued":
            run = claimed(run)
        if state == "succeeded":
            leases.finish(run, JobState.SUCCEEDED)
        with pytest.raises(Conflict, match=f"is {state}"):
            runs.relaunch(run, changes={}, actor=factories.OPERATOR)
        assert TrainingRun.objects.count() == 1

    def test_changes_out_of_bounds_are_refused(self, dataset: Dataset) -> None:
        run = self.failed(dataset)
        with pytest.raises(InvalidInput, match="epochs"):
            runs.relaunch(run, changes={"epochs": 1000}, actor=factories.OPERATOR)
        assert TrainingRun.objects.count() == 1

    def test_takes_an_operator(self, dataset: Dataset) -> None:
        with pytest.raises(NotAllowed):
            runs.relaunch(self.failed(dataset), changes={}, actor=factories.VIEWER)


@pytest.mark.parametrize("find", [runs.find_run, datasets.find_dataset])
def test_an_unknown_number_is_not_found(find: Callable[[int], object]) -> None:
    with pytest.raises(NotFound, match="4711"):
        find(4711)


def test_a_run_keeps_its_bundle_for_good(dataset: Dataset) -> None:
    """The database refuses another bundle for a run."""
    run = launch(dataset)
    rows = [factories.bundle(dataset, name) for name in ("one", "other")]
    TrainingRun.objects.filter(pk=run.pk).update(bundle=rows[0])
    with pytest.raises(DatabaseError), transaction.atomic():
        TrainingRun.objects.filter(pk=run.pk).update(bundle=rows[1])


class TestAnEstimate:
    def worker(self, name: str, slots: int, *, queues: str = "training", rate: str = "2") -> Worker:
        now = timezone.now()
        return Worker.objects.create(
            name=name,
            queues=queues,
            slots=slots,
            device="CPU",
            torch_version="2",
            code_version="1",
            rate_usd_per_hour=Decimal(rate),
            started_at=now,
            last_heard_at=now,
        )

    def measured(self, dataset: Dataset, *, rows_per_second: float, batch_size: int | None = None) -> None:
        run = launch(dataset, parameters={"batch_size": batch_size} if batch_size else {})
        run.epoch_rows.create(
            number=1, attempt=1, seconds=1, rows_per_second=rows_per_second, is_best=True, train_loss=1
        )

    def test_follows_what_earlier_runs_of_that_batch_size_took(self, dataset: Dataset) -> None:
        self.measured(dataset, rows_per_second=770)
        self.measured(dataset, rows_per_second=1, batch_size=4096)
        found = estimates.estimate("v7_fixed", [dataset], {"epochs": 10})
        assert found.seconds == pytest.approx(3 + 0.7 * 1100 * 10 / 770)

    def test_assumes_a_small_server_where_nothing_was_measured(self, dataset: Dataset) -> None:
        one = estimates.estimate("v7_fixed", [dataset], {"epochs": 10})
        larger = estimates.estimate("v7_fixed", [dataset], {"epochs": 10, "batch_size": 1024})
        assert 3 < larger.seconds < one.seconds < 60

    def test_counts_on_the_workers_that_are_alive(self, dataset: Dataset) -> None:
        alone = estimates.estimate("v7_fixed", [dataset] * 3, {})
        self.worker("training@a", 2)
        self.worker("gates@a", 5, queues="gates")
        silent = self.worker("training@gone", 9)
        Worker.objects.filter(pk=silent.pk).update(last_heard_at=timezone.now() - timedelta(minutes=5))
        shared = estimates.estimate("v7_fixed", [dataset] * 3, {})
        assert shared.seconds == pytest.approx(alone.seconds * 2 / 3)

    def test_costs_the_machine_time_of_all_runs_at_the_workers_rate(self, dataset: Dataset) -> None:
        self.worker("training@a", 3)
        found = estimates.estimate("v7_fixed", [dataset] * 3, {})
        assert float(found.usd) == pytest.approx(3 * found.seconds * 2 / 3600, abs=1e-5)

    def test_refuses_what_cannot_be_launched(self, dataset: Dataset) -> None:
        with pytest.raises(DomainError, match="epochs"):
            estimates.estimate("v7_fixed", [dataset], {"epochs": 0})
