"""Studies with real training in this process: launched, advanced, pruned, ended, cancelled, released."""

from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from audit.models import AuditEvent
from audit.services import verify
from common.errors import Conflict, InvalidInput, NotAllowed, NotFound
from deploy.models import Release
from deploy.releases.launch import launch as launch_release
from deploy.releases.withdraw_dataset import withdraw_dataset
from gates.models import Measurement
from studies.models import Study, Trial
from studies.rules import StudyState, TrialState
from studies.services import advance, launch, results
from studies.services.advance import advance_studies
from tests import factories
from tests.scenarios import LAUNCHER
from training import worker
from training.jobs import leases
from training.models import Coin, Dataset, Epoch, TrainingRun
from training.rules import JobState

pytestmark = pytest.mark.django_db

RANGES: dict[str, Any] = {
    "learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-2},
    "batch_size": {"kind": "choice", "choices": [128, 256]},
}


@pytest.fixture
def dataset() -> Dataset:
    return factories.market(bars=1600)


def study(dataset: Dataset, **changes: Any) -> Study:
    asked: dict[str, Any] = {
        "dataset": dataset,
        "line": "v7_fixed",
        "ranges": RANGES,
        "parameters": {"epochs": 2, "hidden_widths": "16-16-8"},
        "max_trials": 4,
        "actor": factories.OPERATOR,
    }
    launched = launch.launch(**{**asked, **changes})
    advance.advance(launched.pk)  # as after the commit
    return launched


def trials(of: Study) -> list[Trial]:
    return advance.list_trials(of)


def queued(of: Study) -> list[TrainingRun]:
    return [trial.run for trial in trials(of) if trial.state == TrialState.QUEUED]


def work(of: Study, limit: int = 50) -> Study:
    """Train what is queued, as a worker would, until the study is over."""
    for _ in range(limit):
        of.refresh_from_db()
        if of.has_ended:
            return of
        for run in queued(of):
            worker.train(run.pk, worker_name="w1", device="cpu")
            advance_studies()
    raise AssertionError("the study does not end")


def end(run: TrainingRun, state: JobState, **columns: Any) -> None:
    held = leases.claim(TrainingRun, run.pk, worker_name="w1")
    assert held is not None
    leases.finish(held, state, failure="for the test", **columns)


class TestLaunching:
    def test_starts_as_many_trials_as_run_at_a_time(self, dataset: Dataset) -> None:
        launched = study(dataset, parallel=3)
        assert [trial.number for trial in trials(launched)] == [1, 2, 3]
        for trial in trials(launched):
            assert trial.run.parameters == {"epochs": 2, "hidden_widths": "16-16-8", **trial.parameters}
            assert trial.run.seed == launched.seed
            assert trial.run.budget == launched.budget
        [event] = AuditEvent.objects.filter(kind="study.launched")
        assert (event.actor, event.object_id) == ("olivia", str(launched.pk))

    def test_takes_an_operator(self, dataset: Dataset) -> None:
        with pytest.raises(NotAllowed):
            study(dataset, actor=factories.VIEWER)
        assert not Study.objects.exists()
        assert AuditEvent.objects.filter(kind="study.launch.refused").count() == 1

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"line": "v8"}, "line"),
            ({"line": "v6_enhanced", "parameters": {}}, "line"),
            ({"line": "v5", "parameters": {}}, "learning_rate"),
            ({"ranges": {}}, "ranges"),
            ({"ranges": {"horizon": {"kind": "int", "low": 4, "high": 8}}}, "horizon"),
            ({"parameters": {"batch_size": 64}}, "batch_size"),
            ({"parameters": {"epochs": 0}}, "epochs"),
            ({"objective": "profit"}, "objective"),
            ({"sampler": "grid"}, "sampler"),
            ({"seed": -1}, "seed"),
            ({"max_trials": 1}, "max_trials"),
            ({"max_trials": 201}, "max_trials"),
            ({"parallel": 9}, "parallel"),
            ({"parallel": True}, "parallel"),
            ({"time_limit_seconds": 3}, "time_limit_seconds"),
            ({"time_limit_seconds": 10**7}, "time_limit_seconds"),
            ({"spending_limit_usd": Decimal(0)}, "spending_limit_usd"),
            ({"spending_limit_usd": Decimal(99)}, "spending_limit_usd"),
        ],
        ids=str,
    )
    def test_refuses_what_cannot_be_and_names_it(
        self, dataset: Dataset, changes: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(InvalidInput) as refusal:
            study(dataset, **changes)
        assert refusal.value.field == field
        assert not Study.objects.exists() and not TrainingRun.objects.exists()

    def test_refuses_candles_that_did_not_pass(self, dataset: Dataset) -> None:
        withdraw_dataset(dataset, actor=factories.OPERATOR, reason="of another coin")
        dataset.refresh_from_db()
        with pytest.raises(Conflict, match="withdrawn"):
            study(dataset)
        assert not Study.objects.exists()

    def test_of_an_unknown_number_is_not_found(self) -> None:
        with pytest.raises(NotFound, match="4711"):
            launch.find_study(4711)


class TestRunning:
    def test_ends_with_the_best_trial_and_measures_nothing(self, dataset: Dataset) -> None:
        done = work(study(dataset))
        found = results.summarize(done)
        assert (done.state, len(found.trials)) == (StudyState.FINISHED, 4)
        assert found.best is not None
        losses = [trial.run.best_validation_loss for trial in found.trials if trial.state == "complete"]
        assert found.best.run.best_validation_loss == min(loss for loss in losses if loss is not None)
        assert not Measurement.objects.exists(), "a trial costs no attempt"
        assert found.spent_usd > 0 and found.billed_seconds > 0
        assert verify() == []

    def test_estimates_how_optimistic_the_best_figure_is(self, dataset: Dataset) -> None:
        done = work(study(dataset, objective="accuracy", prunes=False))
        bias = results.estimate_bias(done)
        best = results.require_best(done)
        assert bias is not None and bias.trials == 4 and bias.blocks >= 8
        assert bias.best == pytest.approx(best.run.best_validation_accuracy, abs=1e-6)
        assert bias.corrected <= bias.best

    def test_stops_what_is_worse_than_the_others(self, dataset: Dataset) -> None:
        launched = study(dataset, parameters={"epochs": 6}, max_trials=10, parallel=1)
        for _ in range(5):
            (run,) = queued(launched)
            end(run, JobState.SUCCEEDED, best_validation_loss=0.1)
            for number in range(1, 7):
                Epoch.objects.create(
                    run=run, number=number, attempt=1, train_loss=0.1, validation_loss=0.1,
                    validation_accuracy=0.9, seconds=1, rows_per_second=1, is_best=True,
                )  # fmt: skip
            advance_studies()
        (run,) = queued(launched)
        worker.train(run.pk, worker_name="w1", device="cpu")
        run.refresh_from_db()
        assert run.state == JobState.CANCELLED
        assert run.failure.startswith("pruned after epoch 3"), run.failure
        assert trials(launched)[5].state == TrialState.PRUNED

    def test_takes_the_figures_of_a_worker_that_does_not_store_them(self, dataset: Dataset) -> None:
        launched = study(dataset, parallel=1)
        (run,) = queued(launched)
        worker.train(run.pk, worker_name="w1", device="cpu")
        run.refresh_from_db()
        loss = run.best_validation_loss
        TrainingRun.objects.filter(pk=run.pk).update(best_validation_loss=None, best_validation_accuracy=None)
        advance_studies()
        assert loss is not None
        assert results.require_best(launched).run.best_validation_loss == loss

    def test_starts_a_trial_once_however_often_it_is_advanced(self, dataset: Dataset) -> None:
        launched = study(dataset)
        for _ in range(3):
            advance_studies()
        assert len(trials(launched)) == 2
        before = trials(launched)[:1]
        advance._start_trial(launched, {"learning_rate": 1e-3, "batch_size": 128}, after=before)
        assert len(trials(launched)) == 2, "somebody else had started the second trial"

    def test_ends_when_its_first_trials_all_fail(self, dataset: Dataset) -> None:
        launched = study(dataset, max_trials=20)
        for _ in range(10):
            for run in queued(launched):
                end(run, JobState.FAILED)
            advance_studies()
        launched.refresh_from_db()
        assert launched.state == StudyState.FAILED and "first" in launched.reason
        assert len(trials(launched)) in (5, 6)

    @pytest.mark.parametrize(
        "columns", [{"spent_usd": Decimal("0.5")}, {"billed_seconds": 60.0}], ids=["money", "time"]
    )
    def test_ends_when_its_limit_is_reached(self, dataset: Dataset, columns: dict[str, Any]) -> None:
        launched = study(
            dataset, max_trials=20, parallel=1, spending_limit_usd=Decimal("0.5"), time_limit_seconds=60
        )
        (run,) = queued(launched)
        end(run, JobState.SUCCEEDED, best_validation_loss=0.9, **columns)
        advance_studies()
        launched.refresh_from_db()
        assert launched.state == StudyState.FINISHED and "limit is reached" in launched.reason
        assert len(trials(launched)) == 1

    def test_ends_when_its_candles_are_withdrawn(self, dataset: Dataset) -> None:
        launched = study(dataset, parallel=1)
        (run,) = queued(launched)
        end(run, JobState.SUCCEEDED, best_validation_loss=0.9)
        withdraw_dataset(dataset, actor=factories.OPERATOR, reason="of another coin")
        advance_studies()
        launched.refresh_from_db()
        assert launched.state == StudyState.FINISHED and "withdrawn" in launched.reason


class TestCancelling:
    def test_stops_its_trials_and_starts_no_more(self, dataset: Dataset) -> None:
        launched = study(dataset)
        launch.cancel(launched, actor=factories.OPERATOR, reason="wrong ranges")
        advance_studies()
        assert [trial.state for trial in trials(launched)] == [TrialState.CANCELLED] * 2
        launched.refresh_from_db()
        assert (launched.state, launched.reason) == (StudyState.CANCELLED, "wrong ranges")
        with pytest.raises(Conflict, match="already ended"):
            launch.cancel(launched, actor=factories.OPERATOR, reason="again")

    def test_takes_an_operator_and_a_reason(self, dataset: Dataset) -> None:
        launched = study(dataset)
        with pytest.raises(NotAllowed):
            launch.cancel(launched, actor=factories.VIEWER, reason="why not")
        with pytest.raises(InvalidInput):
            launch.cancel(launched, actor=factories.OPERATOR, reason=" ")
        launched.refresh_from_db()
        assert launched.state == StudyState.RUNNING

    def test_by_a_process_that_died_is_made_good_by_reconcile(self, dataset: Dataset) -> None:
        launched = study(dataset)
        Study.objects.filter(pk=launched.pk).update(state=StudyState.CANCELLED)
        advance_studies()
        assert [trial.state for trial in trials(launched)] == [TrialState.CANCELLED] * 2


class TestReleasing:
    @pytest.fixture
    def done(self, dataset: Dataset) -> Study:
        for coin in Coin.objects.exclude(pk=dataset.coin_id):
            factories.market(coin.symbol, bars=1600)
        return work(study(dataset, max_trials=2))

    def test_trains_the_best_trial_again_and_says_of_how_many(self, done: Study) -> None:
        release = launch_release("v7_fixed", actor=LAUNCHER, study=done)
        best = results.require_best(done)
        assert release.parameters == {"epochs": 2, "hidden_widths": "16-16-8", **best.parameters}
        assert (release.seed, release.study, release.best_of) == (done.seed, done, 2)
        assert str(release) == f"release {release.pk} (v7_fixed, best of 2 trials of study {done.pk})"
        [event] = AuditEvent.objects.filter(kind="release.launched")
        assert '"best_of":2' in event.body and "best of 2 trials" in event.object_name

    @pytest.mark.parametrize(
        ("line", "asked", "field"),
        [
            ("v5", {}, "line"),
            ("v7_fixed", {"parameters": {"epochs": 3}}, "study"),
            ("v7_fixed", {"seed": 4}, "study"),
        ],
    )
    def test_refuses_other_parameters_under_that_name(
        self, done: Study, line: str, asked: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(InvalidInput) as refusal:
            launch_release(line, actor=LAUNCHER, study=done, **asked)
        assert refusal.value.field == field
        assert not Release.objects.exists()

    def test_needs_a_complete_trial(self, dataset: Dataset) -> None:
        with pytest.raises(Conflict, match="no complete trial"):
            launch_release("v7_fixed", actor=LAUNCHER, study=study(dataset))

    def test_from_the_page_of_the_study(self, done: Study, operator: Any, client: Client) -> None:
        client.force_login(operator)
        answer = client.post(f"/studies/{done.pk}/release/")
        release = Release.objects.get()
        assert (answer.status_code, answer["Location"]) == (302, f"/releases/{release.pk}/")
        assert "best of 2 trials of study" in client.get(answer["Location"]).content.decode()


class TestThePages:
    def test_launch_a_study_and_show_it(self, dataset: Dataset, operator: Any, client: Client) -> None:
        client.force_login(operator)
        form = {
            "line": "v7_fixed", "dataset": dataset.pk, "objective": "loss", "sampler": "tpe", "prunes": "on",
            "max_trials": 5, "parallel": 2, "time_limit_seconds": 600, "spending_limit_usd": "1.00", "seed": 3,
            "range_learning_rate": "log 1e-4 1e-2", "epochs": 2, "label": "terciles", "class_weights": "balanced",
            "input": "relative72",
        }  # fmt: skip
        answer = client.post("/studies/launch/", form)
        assert answer.status_code == 302, answer.content.decode()
        launched = Study.objects.get()
        assert (launched.parameters, list(launched.ranges), launched.max_trials) == (
            {"epochs": 2},
            ["learning_rate"],
            5,
        )
        page = client.get(answer["Location"]).content.decode()
        assert "0 of at most 5" in page and "0.0001 to 0.01, logarithmic" in page
        listed = client.get("/studies/?state=running").content.decode()
        assert f'href="/studies/{launched.pk}/"' in listed and "0 / 5" in listed
        assert client.post(f"/studies/{launched.pk}/cancel/", {"reason": "enough"}).status_code == 302

    def test_show_a_refusal_at_the_range(self, dataset: Dataset, operator: Any, client: Client) -> None:
        client.force_login(operator)
        form = {
            "line": "v7_fixed", "dataset": dataset.pk, "objective": "loss", "sampler": "tpe", "max_trials": 5,
            "parallel": 2, "time_limit_seconds": 600, "spending_limit_usd": "1.00", "seed": 3, "label": "terciles",
            "class_weights": "balanced", "input": "relative72",
        }  # fmt: skip
        for written, says in (("log 1", "write"), ("log 1 2", "choose a value from 1e-05 to 0.01")):
            answer = client.post("/studies/launch/", {**form, "range_learning_rate": written})
            assert answer.status_code == 400
            assert says in answer.context["form"].errors["range_learning_rate"][0]
        assert not Study.objects.exists()


def test_a_command_launches_shows_and_lists(dataset: Dataset, operator: Any, capsys: Any) -> None:
    call_command(
        "studies", "launch", "--dataset", str(dataset.pk), "--range", "learning_rate=log 1e-4 1e-2",
        "--trials", "3", "--epochs", "2", "--as", "olivia",
    )  # fmt: skip
    launched = Study.objects.get()
    assert launched.parameters == {"epochs": 2}
    call_command("studies", "show", str(launched.pk))
    call_command("studies")
    said = capsys.readouterr().out
    assert f"study {launched.pk} is running" in said and "BTC v7_fixed, running" in said
    with pytest.raises(SystemExit):
        call_command("studies", "launch", "--range", "learning_rate=normal", "--as", "olivia")
