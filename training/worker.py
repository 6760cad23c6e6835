"""How a worker trains a run: claim it, train epoch by epoch, store the bundle."""

import logging
import math
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from audit import services as audit
from common.errors import DomainError
from common.formatting import format_exact_usd
from mlcore.bundle import writer
from mlcore.bundle.format import MANIFEST_FILE
from mlcore.errors import MlcoreError, ResumeRefused
from mlcore.fitting import fit
from mlcore.fitting.checkpoint import EpochReport, Progress, pack
from mlcore.fitting.installed import InstalledRecipe
from mlcore.fitting.recipes import RECIPES, Recipe
from training import artifact_store
from training.jobs import installed_recipes, leases, observers, queue, sandbox, worker_registry
from training.jobs.cost_limits import CostMeter, TimeLimitAlarm
from training.models import Epoch, RunLine, TrainingRun
from training.rules import (
    ATTEMPTS_WITHOUT_PROGRESS,
    CANCELLED_BY_REQUEST,
    JobState,
    Reservation,
    find_stop_reason,
    reserve,
)

logger = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 1.0

OnEpoch = Callable[[EpochReport], None]


class RunStopped(Exception):
    """The run must end early; the message says why."""


class RunNotWorthwhile(RunStopped):
    """An observer sees no use in the rest of the run: it ends as cancelled, not as failed."""


def train(
    run_id: int, *, worker_name: str, device: str = "auto", on_epoch: OnEpoch | None = None
) -> TrainingRun | None:
    """Train a free run to its end; None when another worker holds it, it has ended, or it must wait for its budget.

    Raises errors that the next attempt may not see, such as an unavailable database or store: the lease runs out, and a
    worker resumes from the checkpoint. `on_epoch` is called after each stored epoch.
    """
    run = _claim_run(run_id, worker_name)
    if run is None:
        return None
    try:
        meter = CostMeter(run)
        with leases.work_on(run, meter.build_columns):
            _Attempt(run, meter, device, on_epoch).execute()
    except leases.ClaimLost as lost:
        logger.warning("%s stops without writing anything: %s", worker_name, lost)
        return None
    for waiting in run.budget.runs.filter(state=JobState.QUEUED):
        queue.enqueue(waiting)  # it may use what this run left
    return run


def _claim_run(run_id: int, worker_name: str) -> TrainingRun | None:
    """Claim the run and reserve its maximum cost, under the audit head's lock: parallel claims see each other's."""
    with audit.locked():
        run = TrainingRun.objects.select_related("budget").filter(pk=run_id).first()
        if run is None or not leases.is_free(run) or _is_for_another_worker(run, worker_name):
            return None
        rate = Decimal(settings.WORKER_RATE_USD_PER_HOUR)
        reservation = _compute_reservation(run, rate)
        if failure := _find_progress_failure(run) or (None if reservation else _find_budget_failure(run)):
            leases.end(run, JobState.FAILED, actor=worker_name, reason=failure, failure=failure)
            return None
        if reservation is None:
            return None
        return leases.claim(
            TrainingRun,
            run.pk,
            worker_name=worker_name,
            rate_usd_per_hour=rate,
            reserved_usd=reservation.usd,
            allowed_seconds=reservation.seconds,
            code_version=settings.CODE_VERSION,
        )


def _is_for_another_worker(run: TrainingRun, worker_name: str) -> bool:
    """Whether this worker trained the same model already, and another one is there to train it the other time.

    The other has as long to take it as one training may last: it may be busy, and the release must not expire. A run that
    has begun may be resumed by any worker. One that is left to another is sent again by `reconcile`.
    """
    twin = run.reproduces or run.reproductions.first()
    if run.attempt or twin is None or twin.worker_name != worker_name:
        return False
    waited = (timezone.now() - twin.finished_at).total_seconds() if twin.finished_at else 0.0
    if waited > run.budget.share_of_time_seconds:
        return False
    if {worker.name for worker in worker_registry.list_alive_workers("training")} <= {worker_name}:
        return False
    TrainingRun.objects.filter(pk=run.pk).update(enqueued_at=None)
    return True


def _find_budget_failure(run: TrainingRun) -> str | None:
    """Why nothing can be reserved for the run; None while other runs may still return unused money."""
    if run.budget.runs.exclude(pk=run.pk).filter(state=JobState.RUNNING).exists():
        return None
    limit = format_exact_usd(run.budget.spending_limit_usd)
    return f"spending limit: the {limit} of this launch are spent; nothing is left for this run"


def _compute_reservation(run: TrainingRun, rate: Decimal) -> Reservation | None:
    """The limits of the run: the cost of its earlier attempts plus the maximum cost of this one."""
    budget = run.budget
    committed_by_others = budget.committed_usd - run.committed_usd
    left = reserve(
        remaining_usd=budget.spending_limit_usd - committed_by_others - run.spent_usd,
        share_of_time_seconds=max(0.0, budget.share_of_time_seconds - run.billed_seconds),
        rate_per_hour=rate,
    )
    return left and replace(left, usd=left.usd + run.spent_usd, seconds=left.seconds + run.billed_seconds)


def _find_progress_failure(run: TrainingRun) -> str | None:
    """Why another attempt would not get further either, or None."""
    last = run.epoch_rows.last()
    idle = run.attempt - (last.attempt if last else 0)
    if idle < ATTEMPTS_WITHOUT_PROGRESS:
        return None
    return f"{idle} attempts in a row ended without a finished epoch; the log says what each was doing"


class _Attempt:
    """One attempt of a worker at a run. Every write names the attempt."""

    def __init__(self, run: TrainingRun, meter: CostMeter, device: str, on_epoch: OnEpoch | None) -> None:
        self.run, self.meter, self.device, self.on_epoch = run, meter, device, on_epoch
        self.alarm = TimeLimitAlarm(RunStopped)

    def execute(self) -> None:
        """Raises ClaimLost and errors that the next attempt may not see; every other error ends the run."""
        try:
            self._check_limits()
            with self.alarm.raise_after(self.meter.seconds_left):
                trained = self._fit()
            self._store_bundle(trained)
        except RunStopped as stop:
            reason = str(stop) or self._find_stop_reason() or "stopped"
            is_cancelled = reason == CANCELLED_BY_REQUEST or isinstance(stop, RunNotWorthwhile)
            self._finish(JobState.CANCELLED if is_cancelled else JobState.FAILED, reason)
        except KeyboardInterrupt:
            self._finish(JobState.CANCELLED, "interrupted at the terminal")
            raise
        except (leases.ClaimLost, DatabaseError):
            raise
        except artifact_store.StoreUnavailable as error:
            self._log(f"{error} Another attempt resumes from the last checkpoint.")
            raise
        except (MlcoreError, DomainError) as refused:
            self._finish(JobState.FAILED, str(refused))
        except Exception as error:  # unexpected: the run fails with the error instead of being tried forever
            logger.exception("%s failed", self.run)
            self._log(traceback.format_exc())
            failure = f"{type(error).__name__}: {error}. Unexpected; the log has the traceback."
            self._finish(JobState.FAILED, failure)

    def _fit(self) -> fit.Trained:
        device = fit.resolve_device(self.device)
        device_name = _find_device_name(device)
        self._log(f"attempt {self.run.attempt} on {self.run.worker_name} ({device_name})", device=device_name)
        recipe = replace(self._find_recipe(), line=self.run.line).with_parameters(**self.run.parameters)
        prepared = fit.prepare(artifact_store.read_candles(self.run.dataset), recipe)
        rows = len(prepared.fit[1])
        self._log(f"{rows:,} rows to fit on, of {self.run.dataset.rows:,} bars")
        self._check_limits()
        if isinstance(recipe, InstalledRecipe):
            return self._fit_installed(recipe, prepared)

        def fit_from(checkpoint: bytes | None) -> fit.Trained:
            return fit.fit(
                prepared,
                recipe,
                seed=self.run.seed,
                device=device,
                on_epoch=self._on_epoch_end,
                resume_from=checkpoint,
            )

        try:
            return fit_from(self._load_checkpoint())
        except ResumeRefused as refused:
            self._log(f"{refused}")
            return fit_from(None)

    def _find_recipe(self) -> Recipe:
        run = self.run
        return (
            installed_recipes.require_recipe(run.recipe, run.package) if run.package else RECIPES[run.recipe]
        )

    def _fit_installed(self, recipe: InstalledRecipe, prepared: fit.Prepared) -> fit.Trained:
        """In the sandbox, in one piece. Within it the limits are looked at every second, and no alarm is needed."""
        self._log(f"{recipe.name} of {recipe.package} is fitted in the sandbox")
        looked = monotonic()

        def look() -> None:
            nonlocal looked
            if monotonic() - looked >= _LOOK_EVERY_SECONDS:
                looked = monotonic()
                self._check_limits()

        seconds = self.meter.seconds_left
        try:
            with self.alarm.defer():
                trained = installed_recipes.fit(
                    recipe, prepared, seed=self.run.seed, seconds=seconds, on_look=look
                )
        except sandbox.ProcessTimedOut:
            self._check_limits()
            raise RunStopped(
                f"time limit: the recipe took longer than the {seconds:.0f} s that were left"
            ) from None
        (report,) = trained.epochs
        fingerprint = prepared.compute_fingerprint(recipe, self.run.seed)
        self._on_epoch_end(report, pack(fingerprint, Progress([report], best_epoch=1), {}))
        return trained

    def _load_checkpoint(self) -> bytes | None:
        if not self.run.checkpoint:
            return None
        try:
            data = artifact_store.read_checkpoint(self.run.checkpoint)
        except artifact_store.FileLost as lost:
            self._log(f"{lost} Starting with the first epoch.")
            return None
        self._log(f"resuming after epoch {self.run.epoch_rows.count()}")
        return data

    def _on_epoch_end(self, report: EpochReport, state: bytes) -> None:
        with self.alarm.defer():
            self._store_epoch(report, state)
            if self.on_epoch is not None:
                self.on_epoch(report)
            self._check_limits()
            if report.number < report.epochs and (
                reason := observers.find_stop_reason(self.run, report.number)
            ):
                raise RunNotWorthwhile(reason)

    def _store_epoch(self, report: EpochReport, state: bytes) -> None:
        """Store the checkpoint file, then row and key in one transaction, then delete the previous file."""
        run, before = self.run, self.run.checkpoint
        columns = {**self.meter.build_columns(), **(_build_best_columns(report) if report.is_best else {})}
        key = artifact_store.store_checkpoint(run.pk, run.attempt, report.number, state)
        try:
            with transaction.atomic():
                leases.write(run, checkpoint=key, lease_until=leases.compute_lease_end(), **columns)
                # A fit that started again repeats epochs that were stored before; the first report is kept.
                _, is_new = Epoch.objects.get_or_create(
                    run=run,
                    number=report.number,
                    defaults={"attempt": run.attempt, **_build_columns(report)},
                )
                if is_new:
                    RunLine.objects.create(run=run, attempt=run.attempt, text=format_epoch(report))
        except leases.ClaimLost:
            artifact_store.delete_checkpoint(key)
            raise
        artifact_store.delete_checkpoint(before)

    def _check_limits(self) -> None:
        if reason := self._find_stop_reason():
            raise RunStopped(reason)

    def _find_stop_reason(self) -> str | None:
        asked = TrainingRun.objects.filter(pk=self.run.pk, cancel_requested_at__isnull=False).exists()
        return find_stop_reason(
            is_cancelled=asked,
            billed_seconds=self.meter.seconds + self.meter.headroom,
            share_of_time_seconds=self.run.budget.share_of_time_seconds,
            reservation=Reservation(self.run.reserved_usd, self.run.allowed_seconds),
        )

    def _finish(self, state: JobState, failure: str) -> None:
        self._log(failure)
        leases.finish(self.run, state, failure=failure, **self.meter.build_columns())
        artifact_store.delete_checkpoint(self.run.checkpoint)

    def _store_bundle(self, trained: fit.Trained) -> None:
        """Store the files, then bundle, artifacts and the final state of the run in one transaction."""
        run = self.run
        with tempfile.TemporaryDirectory(prefix="crpbot-bundle-") as folder:
            written = writer.write_bundle(
                Path(folder) / "bundle",
                trained,
                coin=run.coin.symbol,
                dataset_digest=run.dataset.digest,
                simulated=run.dataset.is_simulated,
                code_version=settings.CODE_VERSION,
            )
            observers.look_at_bundle(run, written.folder, trained)
            artifacts = artifact_store.store_files(
                {path.name: path.read_bytes() for path in written.folder.iterdir()}
            )
            manifest = (written.folder / MANIFEST_FILE).read_text()
        self._log(f"best epoch {trained.best_epoch}; bundle {written.digest}")
        with audit.locked():
            # An equal run may have made the same bytes before: then both name one bundle.
            bundle, _ = artifact_store.create_bundle(
                written.digest,
                artifacts,
                coin=run.coin,
                line=run.line,
                dataset=run.dataset,
                interval_seconds=written.manifest.interval_seconds,
                manifest=manifest,
                is_simulated=run.dataset.is_simulated,
            )
            detail = {"bundle": bundle.digest, "best_epoch": trained.best_epoch}
            leases.finish(run, JobState.SUCCEEDED, detail=detail, bundle=bundle, **self.meter.build_columns())
        artifact_store.delete_checkpoint(run.checkpoint)

    def _log(self, text: str, **updates: Any) -> None:
        with self.alarm.defer(), transaction.atomic():
            leases.write(
                self.run, lease_until=leases.compute_lease_end(), **self.meter.build_columns(), **updates
            )
            RunLine.objects.create(run=self.run, attempt=self.run.attempt, text=text)


def _build_columns(report: EpochReport) -> dict[str, Any]:
    """The figures of an epoch, without those that are not finite."""
    figures = asdict(report)
    del figures["number"], figures["epochs"]  # the key of the row, and a column of the run
    return {name: figure if math.isfinite(figure) else None for name, figure in figures.items()}


def _build_best_columns(report: EpochReport) -> dict[str, Any]:
    figures = _build_columns(report)
    return {f"best_{name}": figures[name] for name in ("validation_loss", "validation_accuracy")}


def format_epoch(report: EpochReport) -> str:
    """One epoch as a line of the log."""
    best = "  best so far" if report.is_best else ""
    return (
        f"epoch {report.number}/{report.epochs}  loss {report.train_loss:.4f}"
        f"  validation {report.validation_loss:.4f}  accuracy {report.validation_accuracy:.4f}"
        f"  {report.seconds:.1f} s  {report.rows_per_second:,.0f} rows/s{best}"
    )


def _find_device_name(device: str) -> str:
    if device == "cpu":
        return "CPU"
    import torch

    return torch.cuda.get_device_name()
