"""Runs: planned, launched, cancelled, launched again."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from accounts.rules import Actor, Role
from audit import services as audit
from common.errors import Conflict, InvalidInput, NotFound
from mlcore.errors import InvalidParameter
from mlcore.features.splits import MIN_ROWS
from mlcore.fitting.recipes import RECIPES, Recipe
from mlcore.verdict import Verdict
from training.jobs import leases, queue
from training.models import Budget, Coin, Dataset, RunLine, TrainingRun
from training.rules import GREATEST_SEED, JobState
from training.services import candle_checks


def plan(line: str, parameters: Mapping[str, Any]) -> Recipe:
    """The line's recipe with these parameters. Raises InvalidInput naming the parameter and its bounds."""
    recipe = RECIPES.get(line)
    if recipe is None:
        raise InvalidInput(f"There is no line {line!r}; choose {', '.join(RECIPES)}.", field="line")
    for name in parameters:
        if name not in recipe.adjustable:
            has = ", ".join(recipe.adjustable) or "none"
            raise InvalidInput(f"{line} has no setting {name!r}; it has {has}.", field=name)
    try:
        return recipe.with_parameters(**parameters)
    except InvalidParameter as refused:
        raise InvalidInput(str(refused), field=refused.name) from refused


def open_budget(runs_expected: int = 1) -> Budget:
    """What the runs of one launch may take together, by the settings of today."""
    return Budget.objects.create(
        spending_limit_usd=Decimal(settings.RELEASE_SPENDING_LIMIT_USD),
        time_limit_seconds=settings.RELEASE_TIME_LIMIT_SECONDS,
        runs_expected=runs_expected,
    )


def launch_run(
    *,
    coin: Coin,
    dataset: Dataset,
    line: str,
    parameters: Mapping[str, Any],
    seed: int,
    budget: Budget,
    actor: Actor,
    is_sent: bool = True,
) -> TrainingRun:
    """A queued run, its message sent on commit; not `is_sent` when the caller trains it here and now.

    Raises InvalidInput for a dataset of another coin, a parameter out of bounds or an unusable seed.
    """
    actor.require(Role.OPERATOR, "launch a training run")
    recipe = plan(line, parameters)
    require_trainable(coin, dataset)
    dataset = candle_checks.judged(dataset)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= GREATEST_SEED:
        raise InvalidInput(f"seed: choose a whole number from 0 to {GREATEST_SEED}.", field="seed")
    with transaction.atomic():
        audit.lock_head()
        run = TrainingRun.objects.create(
            coin=coin,
            dataset=dataset,
            line=line,
            parameters={name: value for name, value in parameters.items() if value is not None},
            seed=seed,
            epochs=recipe.epochs or 1,
            budget=budget,
            launched_by=str(actor),
            # Stamped as if sent, so that reconcile does not give it to a worker meanwhile.
            enqueued_at=None if is_sent else timezone.now(),
        )
        detail = {"dataset": dataset.digest, "seed": seed, "parameters": run.parameters}
        audit.record("trainingrun.queued", run, actor=actor, detail=detail)
        if dataset.is_withdrawn or dataset.verdict != Verdict.PASSED:
            warning = f"Warning: {candle_checks.verdict_sentence(dataset)} No release trains on them."
            RunLine.objects.create(run=run, attempt=0, text=warning)
        if is_sent:
            queue.enqueue(run)
    return run


def require_trainable(coin: Coin, dataset: Dataset) -> None:
    """Raise InvalidInput for candles of another coin, or too few to train on."""
    if dataset.coin_id != coin.pk:
        raise InvalidInput(f"Dataset {dataset.pk} is {dataset.coin}'s, not {coin}'s.", field="dataset")
    if dataset.rows < MIN_ROWS:
        raise InvalidInput(
            f"Dataset {dataset.pk} has {dataset.rows:,} bars; training needs {MIN_ROWS:,} at the least:"
            " import a longer history.",
            field="dataset",
        )


def find_run(pk: int) -> TrainingRun:
    """Raises NotFound."""
    run = TrainingRun.objects.select_related("coin", "dataset", "budget").filter(pk=pk).first()
    if run is None:
        raise NotFound(f"There is no run {pk}.")
    return run


def cancel_run(run: TrainingRun, *, actor: Actor, reason: str) -> None:
    """End a run that nobody works on at once, and one that is worked on after its epoch. Asking twice changes nothing.

    Raises Conflict for a run that has ended.
    """
    with audit.record_refusals("trainingrun.cancel", run, actor=actor, reason=reason):
        actor.require(Role.OPERATOR, "cancel a training run")
        with transaction.atomic():
            audit.lock_head()
            run.refresh_from_db()
            if run.has_ended:
                raise Conflict(f"{run} has ended already: it {_ended_as(run)}.")
            if leases.is_free(run):
                _cancel_at_once(run, actor, reason)
            elif run.cancel_requested_at is None:
                run.cancel_requested_at = timezone.now()
                run.save(update_fields=["cancel_requested_at"])
                audit.record("trainingrun.cancel_requested", run, actor=actor, reason=reason)


def _cancel_at_once(run: TrainingRun, actor: Actor, reason: str) -> None:
    audit.transition(
        run,
        JobState.CANCELLED,
        actor=actor,
        reason=reason,
        where={"attempt": run.attempt},
        finished_at=timezone.now(),
        lease_until=None,
        failure=f"cancelled by {actor}" + (f": {reason}" if reason else ""),
    )


def _ended_as(run: TrainingRun) -> str:
    return {JobState.SUCCEEDED: "succeeded", JobState.FAILED: "failed"}.get(
        JobState(run.state), "was cancelled"
    )


def relaunch(
    run: TrainingRun, *, changes: Mapping[str, Any], actor: Actor, is_sent: bool = True
) -> TrainingRun:
    """A run that failed or was cancelled, launched again with some parameters, or the seed, changed.

    It is a run of its own with a budget of its own. Raises Conflict for a run in another state.
    """
    actor.require(Role.OPERATOR, "launch a run again")
    if run.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict(f"{run} is {run.state}: only a run that failed or was cancelled is launched again.")
    return repeat(run, changes=changes, actor=actor, is_sent=is_sent)


@transaction.atomic
def repeat(
    run: TrainingRun, *, changes: Mapping[str, Any], actor: Actor, is_sent: bool = True
) -> TrainingRun:
    """Another run on the same data, with the same seed and parameters but for `changes`, however the first one ended."""
    parameters = {**run.parameters, **changes}
    return launch_run(
        coin=run.coin,
        dataset=run.dataset,
        line=run.line,
        seed=parameters.pop("seed", run.seed),
        parameters=parameters,
        budget=open_budget(),
        actor=actor,
        is_sent=is_sent,
    )
