"""Training runs: launch, cancel, launch again."""

from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from accounts.decisions import decision
from accounts.roles import GATE, Actor, Role
from audit import services as audit
from audit.models import AuditEvent
from common import correlation
from common.errors import Conflict, InvalidInput, NotFound
from common.reasons import REASON_LIMIT
from mlcore.features.splits import MIN_ROWS
from mlcore.verdict import Verdict
from training.jobs import leases, queue
from training.models import Budget, Bundle, Coin, Dataset, RunLine, TrainingRun
from training.rules import JobState, require_seed
from training.services import candle_checks, lines


def open_budget(runs_expected: int = 1) -> Budget:
    """Create the budget that the runs of one launch share, from the current settings."""
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
    reproduces: TrainingRun | None = None,
) -> TrainingRun:
    """Create a queued run and send its message on commit; without `is_sent` the caller trains it in its own process.

    With `reproduces` it is the second training of that run's model, for another worker. Raises InvalidInput for a dataset of
    another coin, a parameter out of bounds or an invalid seed.
    """
    actor.require(Role.OPERATOR, "launch a training run")
    chosen = lines.find_line(line)
    recipe = lines.build_recipe(chosen, parameters)
    require_trainable(coin, dataset)
    require_seed(seed)
    with audit.locked():
        run = TrainingRun.objects.create(
            coin=coin,
            dataset=dataset,
            line=line,
            recipe=chosen.recipe,
            package=lines.get_package(recipe),
            parameters=lines.merge_settings(chosen.defaults, parameters),
            seed=seed,
            epochs=recipe.reports,
            budget=budget,
            reproduces=reproduces,
            launched_by=str(actor),
            origin=correlation.capture(),
            # A run that the caller trains is marked as sent, so that reconcile does not send it to a worker.
            enqueued_at=None if is_sent else timezone.now(),
        )
        audit.record("trainingrun.queued", run, actor=actor, detail=describe_launch(run))
        if dataset.is_withdrawn or dataset.verdict != Verdict.PASSED:
            warning = f"Warning: {candle_checks.format_verdict(dataset)} A release must not train on them."
            RunLine.objects.create(run=run, attempt=0, text=warning)
        if is_sent:
            queue.enqueue(run)
    return run


def find_second_run(bundle: Bundle) -> TrainingRun | None:
    """The second training of the bundle's model that ended: the last that succeeded, else the last of all."""
    ended = TrainingRun.objects.filter(reproduces__bundle=bundle).exclude(finished_at=None).order_by("-id")
    return ended.filter(state=JobState.SUCCEEDED).first() or ended.first()


def list_workers(run: TrainingRun) -> list[str]:
    """Every worker that ever held it, by name, as the audit chain says: one may resume what another began."""
    events = AuditEvent.objects.filter(
        object_type="trainingrun", object_id=str(run.pk), kind=f"trainingrun.{JobState.RUNNING}"
    )
    return sorted(set(events.values_list("actor", flat=True)))


def describe_launch(run: TrainingRun) -> dict[str, Any]:
    """What a run was launched with, as its event in the audit chain says it too."""
    return {
        "dataset": run.dataset.digest,
        "seed": run.seed,
        "recipe": run.recipe,
        "package": run.package,
        "parameters": run.parameters,
        **({"reproduces": run.reproduces_id} if run.reproduces_id else {}),
    }


def require_trainable(coin: Coin, dataset: Dataset) -> None:
    """Raise InvalidInput for candles of another coin, or for too few."""
    if dataset.coin_id != coin.pk:
        raise InvalidInput(f"Dataset {dataset.pk} is {dataset.coin}'s, not {coin}'s.", field="dataset")
    if dataset.rows < MIN_ROWS:
        raise InvalidInput(
            f"Dataset {dataset.pk} has {dataset.rows:,} bars; training needs at least {MIN_ROWS:,}:"
            " import a longer history.",
            field="dataset",
        )


def find_run(pk: int) -> TrainingRun:
    """Raises NotFound."""
    rows = TrainingRun.objects.select_related("coin", "dataset", "budget")
    run: TrainingRun | None = rows.filter(pk=pk).first()
    if run is None:
        raise NotFound(f"There is no run {pk}.")
    return run


def fill_best_figures(run: TrainingRun) -> None:
    """Store the figures of its best epoch on the run, as workers do since they have these columns."""
    best = run.epoch_rows.filter(is_best=True).order_by("number").last()
    if best is not None:
        run.best_validation_loss, run.best_validation_accuracy = (
            best.validation_loss,
            best.validation_accuracy,
        )
        run.save(update_fields=["best_validation_loss", "best_validation_accuracy"])


def cancel_run(run: TrainingRun, *, actor: Actor, reason: str) -> None:
    """Cancel a queued run at once, and a running one after its epoch. Repeating this changes nothing.

    Raises Conflict for a run that has ended.
    """
    to = "cancel a training run"
    with (
        decision("trainingrun.cancel", run, actor=actor, role=Role.OPERATOR, to=to, reason=reason) as checked,
        audit.locked(),
    ):
        run.refresh_from_db()
        if run.has_ended:
            end = "was cancelled" if run.state == JobState.CANCELLED else run.state
            raise Conflict(f"{run} has already ended: it {end}.")
        if leases.is_free(run):
            failure = f"cancelled by {actor}: {checked}"
            leases.end(run, JobState.CANCELLED, actor=actor, reason=checked, failure=failure)
        elif run.cancel_requested_at is None:
            run.cancel_requested_at = timezone.now()
            run.save(update_fields=["cancel_requested_at"])
            audit.record("trainingrun.cancel_requested", run, actor=actor, reason=checked)


def cancel_unneeded(run: TrainingRun, reason: str) -> None:
    """Cancel a run of a release or study that has ended. One that has just ended itself stays as it is."""
    with suppress(Conflict):
        cancel_run(run, actor=GATE, reason=reason[:REASON_LIMIT])


def relaunch(run: TrainingRun, *, changes: Mapping[str, Any], actor: Actor) -> TrainingRun:
    """Launch a run that failed or was cancelled again, with changed parameters or seed.

    It is a new run with a new budget. Raises Conflict for a run in another state.
    """
    actor.require(Role.OPERATOR, "launch a run again")
    if run.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict(f"{run} is {run.state}: only a run that failed or was cancelled is launched again.")
    return repeat(run, changes=changes, actor=actor)


@transaction.atomic
def repeat(
    run: TrainingRun, *, changes: Mapping[str, Any], actor: Actor, is_sent: bool = True
) -> TrainingRun:
    """Launch another run with the same dataset, seed and parameters except `changes`, whatever the state of the first."""
    parameters = lines.merge_settings(run.parameters, changes)
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
