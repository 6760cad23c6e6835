"""Killed workers lose no trial of a study: with real workers, one of which is killed again and again."""

import time

import pytest
from django.db import close_old_connections

from audit import services as audit
from deploy.reconcile import reconcile_once, resend_messages
from gates.models import Measurement
from studies.models import Study
from studies.rules import StudyState, TrialState
from studies.services import advance, launch
from tests import factories
from tests.processes import Process, StartWorker
from training.rules import JobState

TRIALS = 8
KILLS = 3
WITHIN_SECONDS = 150


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.long
def test_killed_workers_lose_no_trial(start_worker: StartWorker) -> None:
    study = launch.launch(
        dataset=factories.market(bars=6_000),
        line="v7_fixed",
        ranges={"learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-2}},
        parameters={"epochs": 6, "batch_size": 32},
        max_trials=TRIALS,
        parallel=2,
        prunes=False,
        actor=factories.OPERATOR,
    )
    killed = run_with_kills(study, start_worker)
    trials = advance.list_trials(study)
    assert study.state == StudyState.FINISHED, study.reason
    assert killed == KILLS
    assert [trial.number for trial in trials] == list(range(1, TRIALS + 1))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert any(trial.run.attempt > 1 for trial in trials), "no kill met a trial at work"
    for trial in trials:
        numbers = [epoch.number for epoch in trial.run.epoch_rows.all()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert trial.run.bundle is not None
    assert not Measurement.objects.exists(), "a trial costs no attempt"
    assert audit.verify() == []


def run_with_kills(study: Study, start_worker: StartWorker) -> int:
    """Two workers until the study has ended; one is killed whenever two more trials have ended. How many were killed."""
    workers: list[Process] = []
    started = killed = 0
    ends_by = time.monotonic() + WITHIN_SECONDS
    while time.monotonic() < ends_by:
        workers = [worker for worker in workers if worker.popen.poll() is None]
        while len(workers) < 2:
            started += 1
            workers.append(start_worker("training", name=f"training{started}"))
        close_old_connections()
        reconcile_once((resend_messages, advance.advance_studies))
        study.refresh_from_db()
        if study.has_ended:
            return killed
        states = [trial.state for trial in advance.list_trials(study)]
        at_work = study.trials.filter(run__state=JobState.RUNNING, run__epoch_rows__isnull=False).exists()
        if killed < KILLS and at_work and sum(state.has_ended for state in states) >= 2 * killed:
            workers[killed % 2].kill()
            killed += 1
        time.sleep(0.2)
    raise AssertionError(f"{study} is not over: {[str(trial.state) for trial in advance.list_trials(study)]}")
