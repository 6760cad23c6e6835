"""Launching and cancelling studies."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from accounts.decisions import decision
from accounts.roles import Actor, Role
from audit import services as audit
from common import correlation
from common.errors import Conflict, InvalidInput, NotFound
from common.formatting import format_duration, format_exact_usd
from mlcore.errors import InvalidParameter
from studies.models import Study
from studies.rules import MAX_PARALLEL, MAX_TRIALS, MIN_TRIALS, Objective, Sampler, StudyState
from studies.search_space import read_ranges
from studies.services import advance
from training.models import Budget, Dataset
from training.rules import JobState, require_seed
from training.services import candle_checks, lines, runs

DEFAULT_TRIALS = 40
DEFAULT_PARALLEL = 2
DEFAULT_SEED = 1


def launch(
    *,
    dataset: Dataset,
    line: str,
    ranges: Mapping[str, Any],
    actor: Actor,
    parameters: Mapping[str, Any] | None = None,
    objective: str = Objective.LOSS,
    sampler: str = Sampler.TPE,
    prunes: bool = True,
    seed: int = DEFAULT_SEED,
    max_trials: int = DEFAULT_TRIALS,
    parallel: int = DEFAULT_PARALLEL,
    time_limit_seconds: int | None = None,
    spending_limit_usd: Decimal | None = None,
) -> Study:
    """Launch a study: trials of one line on one dataset, within the limits of runs, time and money.

    Limits that are not given are those of the settings. Each trial may take the time limit divided by the number of trials.
    Raises NotAllowed without the operator role, InvalidInput for a line, range, limit or dataset that cannot be, Conflict
    for candles that did not pass their checks.
    """
    study = Study(dataset=dataset, line=line[:32], launched_by=actor.name)
    with audit.record_refusals("study.launch", study, actor=actor):
        actor.require(Role.OPERATOR, "launch a study")
        chosen = lines.find_line(line)
        recipe = lines.build_recipe(chosen, parameters or {})
        if recipe.reports > 1 and not recipe.restores_best:
            raise InvalidInput(
                f"{line} ships its last epoch, not its best one: its figures on the stop window are not those of the model.",
                field="line",
            )
        study.objective = _choose(Objective, objective, "objective")
        study.sampler = _choose(Sampler, sampler, "sampler")
        try:
            read = read_ranges(recipe, ranges, Objective(study.objective))
        except InvalidParameter as refused:
            raise InvalidInput(str(refused), field=refused.name) from refused
        study.parameters = {name: v for name, v in (parameters or {}).items() if v is not None}
        if both := sorted({chosen.name for chosen in read} & study.parameters.keys()):
            raise InvalidInput(f"{both[0]} is fixed and has a range: give one of them.", field=both[0])
        study.ranges = {chosen.name: chosen.document for chosen in read}
        study.prunes = prunes
        study.seed = require_seed(seed)
        study.max_trials = _check_whole("max_trials", max_trials, MIN_TRIALS, MAX_TRIALS)
        study.parallel = _check_whole("parallel", parallel, 1, MAX_PARALLEL)
        budget = _build_budget(study.max_trials, time_limit_seconds, spending_limit_usd)
        runs.require_trainable(dataset.coin, dataset)
        candle_checks.require_passed(dataset)
        with audit.locked():
            budget.save()
            study.budget = budget
            study.origin = correlation.capture()
            study.save(force_insert=True)
            audit.record("study.launched", study, actor=actor, detail=_build_detail(study))
            transaction.on_commit(lambda: advance.advance_quietly(study.pk))
    return study


def cancel(study: Study, *, actor: Actor, reason: str) -> None:
    """Cancel a study: its queued runs at once, those at work after their epoch. What they found stays.

    Raises NotAllowed without the operator role, Conflict for a study that has ended.
    """
    with decision(
        "study.cancel", study, actor=actor, role=Role.OPERATOR, to="cancel a study", reason=reason
    ) as checked:
        with audit.locked():
            study.refresh_from_db()
            if study.has_ended:
                raise Conflict(f"{study} has already ended: it is {study.state}.")
            audit.transition(
                study, StudyState.CANCELLED, actor=actor, reason=checked, finished_at=timezone.now()
            )
        for trial in study.trials.filter(run__state__in=[JobState.QUEUED, JobState.RUNNING]).select_related(
            "run__coin"
        ):
            runs.cancel_unneeded(trial.run, f"its study was cancelled by {actor}: {checked}")


def find_study(pk: int) -> Study:
    """Raises NotFound."""
    study = Study.objects.select_related("dataset__coin", "budget").filter(pk=pk).first()
    if study is None:
        raise NotFound(f"There is no study {pk}.")
    return study


def get_limits() -> tuple[int, Decimal]:
    """The most seconds of machine time and US dollars that a study may be given."""
    return settings.STUDY_TIME_LIMIT_SECONDS, Decimal(settings.STUDY_SPENDING_LIMIT_USD)


def _build_budget(max_trials: int, seconds: int | None, usd: Decimal | None) -> Budget:
    most_seconds, most_usd = get_limits()
    seconds, usd = most_seconds if seconds is None else seconds, most_usd if usd is None else usd
    if not max_trials <= seconds <= most_seconds:
        raise InvalidInput(
            f"Give at least a second for each trial, and at most {format_duration(most_seconds)} of machine time.",
            field="time_limit_seconds",
        )
    if not 0 < usd <= most_usd:
        raise InvalidInput(
            f"Give a spending limit above 0, and at most {format_exact_usd(most_usd)}.",
            field="spending_limit_usd",
        )
    return Budget(spending_limit_usd=usd, time_limit_seconds=seconds, runs_expected=max_trials)


def _build_detail(study: Study) -> dict[str, Any]:
    names = "line", "parameters", "ranges", "objective", "sampler", "prunes", "seed", "max_trials", "parallel"
    return {
        "dataset": study.dataset.digest,
        "time_limit_seconds": study.budget.time_limit_seconds,
        "spending_limit_usd": str(study.budget.spending_limit_usd),
        **{name: getattr(study, name) for name in names},
    }


def _choose(words: type[Objective] | type[Sampler], asked: str, field: str) -> str:
    if asked not in set(words):
        raise InvalidInput(f"{str(asked)[:40]!r} is none of {', '.join(words)}.", field=field)
    return str(asked)


def _check_whole(field: str, value: object, least: int, greatest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= greatest:
        raise InvalidInput(f"{field}: choose a whole number from {least} to {greatest:,}.", field=field)
    return value
