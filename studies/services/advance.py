"""Advancing a study: start the trials that are due, end it once it is over.

`advance` reads the database and acts on it. It is called when a trial's run has ended, and again by reconcile every few
seconds, so that nothing depends on a message or on a process that may have died.
"""

import logging
from collections.abc import Sequence

from django.db import models
from django.utils import timezone

from accounts.roles import GATE, Actor, Role
from audit import services as audit
from common import correlation
from common.errors import Conflict, DomainError
from mlcore.errors import MlcoreError
from studies import sampling
from studies.models import Study, Trial
from studies.rules import End, Objective, Sampler, StudyState, TrialState, count_due, find_end
from studies.search_space import Range, Value, read_ranges
from training.models import TrainingRun
from training.rules import JobState
from training.services import candle_checks, lines, runs

logger = logging.getLogger(__name__)

SPENT = "the spending limit is reached"
TIMED_OUT = "the time limit is reached"


def advance_studies() -> None:
    """A step of reconcile: every study at work, and the runs that a study left behind when it ended."""
    for key in Study.objects.filter(state=StudyState.RUNNING).values_list("pk", flat=True):
        advance_quietly(key)
    left = TrainingRun.objects.filter(
        trial__isnull=False, state__in=[JobState.QUEUED, JobState.RUNNING], cancel_requested_at=None
    ).exclude(trial__study__state=StudyState.RUNNING)
    for run in left:
        runs.cancel_unneeded(run, "its study has ended")


def advance_for(obj: models.Model) -> None:
    """Advance the study of a run that has just ended."""
    if isinstance(obj, TrainingRun) and obj.has_ended:
        for key in Trial.objects.filter(run=obj).values_list("study_id", flat=True):
            advance_quietly(key)


def advance_quietly(study_id: int) -> None:
    """A failure is logged, and reconcile tries again within seconds."""
    try:
        advance(study_id)
    except Exception:
        logger.exception("study %s could not be advanced; reconcile will try again", study_id)


def advance(study_id: int) -> None:
    """Start what is due in this study, and end it once it is over."""
    while True:
        study = Study.objects.select_related("dataset__coin", "budget").get(pk=study_id)
        if study.has_ended:
            return
        with correlation.resume(study.origin):
            if not _take_step(study):
                return


def _take_step(study: Study) -> bool:
    """End the study, or start one trial. Whether another step may follow."""
    trials = list_trials(study)
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.run.best_validation_loss is None:
            runs.fill_best_figures(trial.run)  # a worker of an older version trained it
    states = [trial.state for trial in trials]
    obstacle = _find_obstacle(study, trials)
    end = find_end(states, max_trials=study.max_trials, obstacle=obstacle)
    if end is not None:
        _end(study, end, trials)
        return False
    if obstacle is not None or not count_due(states, max_trials=study.max_trials, parallel=study.parallel):
        return False
    values = sampling.suggest(
        load_ranges(study),
        [build_past_trial(trial, Objective(study.objective)) for trial in trials],
        objective=Objective(study.objective),
        sampler=Sampler(study.sampler),
        seed=study.seed,
    )
    _start_trial(study, values, after=trials)
    return True


def list_trials(study: Study) -> list[Trial]:
    """Its trials in order, each with its run."""
    return list(study.trials.select_related("run").defer("stop_blocks").order_by("number"))


def build_past_trial(trial: Trial, objective: Objective) -> sampling.PastTrial:
    figure = getattr(trial.run, objective.column) if trial.state == TrialState.COMPLETE else None
    return sampling.PastTrial(trial.parameters, trial.state, objective=figure)


def load_ranges(study: Study) -> list[Range]:
    """Raises InvalidInput or InvalidParameter where the line's recipe is not what it was, or not installed here."""
    recipe = lines.build_recipe(lines.find_line(study.line), study.parameters)
    return read_ranges(recipe, study.ranges, Objective(study.objective))


def _find_obstacle(study: Study, trials: Sequence[Trial]) -> str | None:
    """Why no further trial can start, or None."""
    committed = sum(trial.run.committed_usd for trial in trials)
    if committed >= study.budget.spending_limit_usd and committed > 0:
        return SPENT
    if sum(trial.run.billed_seconds for trial in trials) >= study.budget.time_limit_seconds:
        return TIMED_OUT
    try:
        candle_checks.require_passed(study.dataset)
        load_ranges(study)
    except (DomainError, MlcoreError) as refused:
        return str(refused)
    return None


def _start_trial(study: Study, values: dict[str, Value], *, after: Sequence[Trial]) -> None:
    """Launch the next trial, unless another process did, or the study ended, since these trials were read."""
    with audit.locked():
        study = Study.objects.select_related("dataset__coin", "budget").get(pk=study.pk)
        if study.has_ended or study.trials.count() != len(after):
            return
        run = runs.launch_run(
            coin=study.dataset.coin,
            dataset=study.dataset,
            line=study.line,
            parameters=lines.merge_settings(study.parameters, values),
            seed=study.seed,
            budget=study.budget,
            actor=Actor(study.launched_by, frozenset({Role.OPERATOR})),  # checked at the launch
        )
        Trial.objects.create(study=study, number=len(after) + 1, parameters=values, run=run)


def _end(study: Study, end: End, trials: Sequence[Trial]) -> None:
    detail = {"trials": len(trials)}
    try:
        audit.transition(
            study, end.state, actor=GATE, reason=end.reason, detail=detail, finished_at=timezone.now()
        )
    except Conflict:
        return  # another process was first
