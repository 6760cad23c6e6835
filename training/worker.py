"""What a worker does with a training run: claim, train in fenced steps, keep the bundle."""

import logging
import math
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
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
from mlcore.fitting.checkpoint import EpochReport
from mlcore.fitting.recipes import RECIPES
from training import artifact_store
from training.jobs import leases, queue
from training.jobs.cost_limits import Bill, Interruption
from training.models import Epoch, RunLine, TrainingRun
from training.rules import (
    ATTEMPTS_WITHOUT_PROGRESS,
    CANCELLED_BY_REQUEST,
    JobState,
    Reservation,
    reason_to_stop,
    reserve,
)

logger = logging.getLogger(__name__)

OnEpoch = Callable[[EpochReport], None]


class Stopped(Exception):
    """The run must end before it is finished; the message says why."""


def train(
    run_id: int, *, worker_name: str, device: str = "auto", on_epoch: OnEpoch | None = None
) -> TrainingRun | None:
    """Train a run that is free, to its end; None when another holds it, it has ended, or must wait for its budget.

    Raises what the next attempt may get past (a database or a store that is away): the lease runs out, and a worker
    goes on from the checkpoint. `on_epoch` is called after each epoch that was written.
    """
    run = _take(run_id, worker_name)
    if run is None:
        return None
    try:
        bill = Bill.of(run)
        with leases.heartbeat(run, bill.columns):
            _Attempt(run, bill, device, on_epoch).work()
    except leases.ClaimLost as lost:
        logger.warning("%s stops working on it and writes nothing: %s", worker_name, lost)
        return None
    _send_those_that_wait(run)
    return run


def _take(run_id: int, worker_name: str) -> TrainingRun | None:
    """Claim the run with its worst case reserved. Under the audit head's lock: three claims at once see each other."""
    with transaction.atomic():
        audit.lock_head()
        run = TrainingRun.objects.select_related("budget").filter(pk=run_id).first()
        if run is None or not leases.is_free(run):
            return None
        rate = Decimal(settings.WORKER_RATE_USD_PER_HOUR)
        reservation = _reservation(run, rate)
        if why := _hopeless(run) or (None if reservation else _nothing_left(run)):
            _fail_unclaimed(run, worker_name, why)
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


def _nothing_left(run: TrainingRun) -> str | None:
    """Why a run without a reservation has none to hope for; None while others may yet give back what they do not use."""
    if run.budget.runs.exclude(pk=run.pk).filter(state=JobState.RUNNING).exists():
        return None
    limit = format_exact_usd(run.budget.spending_limit_usd)
    return f"spending limit: the {limit} of this launch are spent; nothing is left for this run"


def _reservation(run: TrainingRun, rate: Decimal) -> Reservation | None:
    """What this run may take in all: what its earlier attempts took, and the worst case of this one."""
    budget = run.budget
    committed_by_others = budget.committed_usd - run.committed_usd
    left = reserve(
        remaining_usd=budget.spending_limit_usd - committed_by_others - run.spent_usd,
        share_of_time_seconds=max(0.0, budget.share_of_time_seconds - run.billed_seconds),
        rate_per_hour=rate,
    )
    return left and replace(left, usd=left.usd + run.spent_usd, seconds=left.seconds + run.billed_seconds)


def _hopeless(run: TrainingRun) -> str | None:
    """Why no attempt will get further than those before, or None."""
    last = run.epoch_rows.last()
    idle = run.attempt - (last.attempt if last else 0)
    if idle < ATTEMPTS_WITHOUT_PROGRESS:
        return None
    return f"{idle} attempts in a row ended without a finished epoch; the log says what each was doing"


def _fail_unclaimed(run: TrainingRun, worker_name: str, why: str) -> None:
    audit.transition(
        run,
        JobState.FAILED,
        actor=worker_name,
        reason=why,
        where={"attempt": run.attempt},
        finished_at=timezone.now(),
        lease_until=None,
        failure=why,
    )


def _send_those_that_wait(run: TrainingRun) -> None:
    """Runs of the same launch that found nothing left to reserve: what this one did not use is free now."""
    for waiting in run.budget.runs.filter(state=JobState.QUEUED):
        queue.enqueue(waiting)


class _Attempt:
    """One worker's go at a run it holds. Everything it writes is fenced by the attempt's number."""

    def __init__(self, run: TrainingRun, bill: Bill, device: str, on_epoch: OnEpoch | None) -> None:
        self.run, self.bill, self.device, self.on_epoch = run, bill, device, on_epoch
        self.interruption = Interruption(Stopped)

    def work(self) -> None:
        """Raises ClaimLost, and what the next attempt may get past; everything else ends the run."""
        try:
            self._check_limits()
            with self.interruption.after(self.bill.seconds_left):
                trained = self._fitted()
            self._keep_bundle(trained)
        except Stopped as stop:
            self._stop(str(stop) or self._reason_to_stop() or "stopped")
        except KeyboardInterrupt:
            self._end(JobState.CANCELLED, "interrupted at the terminal")
            raise
        except (leases.ClaimLost, DatabaseError):
            raise
        except artifact_store.StoreUnavailable as away:
            self._log(f"{away} Another attempt goes on from the last checkpoint.")
            raise
        except (MlcoreError, DomainError) as refused:
            self._end(JobState.FAILED, str(refused))
        except Exception as error:  # whatever it was, the run says so instead of being tried for ever
            logger.exception("%s failed", self.run)
            self._log(traceback.format_exc())
            self._end(
                JobState.FAILED,
                f"{type(error).__name__}: {error}. Unexpected; the log has where it happened.",
            )

    def _fitted(self) -> fit.Trained:
        chosen = fit.resolve_device(self.device)
        device_name = _device_name(chosen)
        self._log(f"attempt {self.run.attempt} on {self.run.worker_name} ({device_name})", device=device_name)
        recipe = RECIPES[self.run.line].with_parameters(**self.run.parameters)
        prepared = fit.prepare(artifact_store.read_candles(self.run.dataset), recipe)
        rows = len(prepared.fit[1])
        self._log(f"{rows:,} rows to fit on, of {self.run.dataset.rows:,} bars")
        self._check_limits()

        def fitted(checkpoint: bytes | None) -> fit.Trained:
            return fit.fit(
                prepared,
                recipe,
                seed=self.run.seed,
                device=chosen,
                on_epoch=self._epoch_done,
                resume_from=checkpoint,
            )

        try:
            return fitted(self._checkpoint())
        except ResumeRefused as refused:
            self._log(f"{refused}")
            return fitted(None)

    def _checkpoint(self) -> bytes | None:
        if not self.run.checkpoint:
            return None
        try:
            data = artifact_store.read_checkpoint(self.run.checkpoint)
        except artifact_store.FileLost as lost:
            self._log(f"{lost} Starting from the first epoch.")
            return None
        self._log(f"going on from epoch {self.run.epoch_rows.count()}")
        return data

    def _epoch_done(self, report: EpochReport, state: bytes) -> None:
        with self.interruption.held_off():
            self._keep_epoch(report, state)
            if self.on_epoch is not None:
                self.on_epoch(report)
            self._check_limits()

    def _keep_epoch(self, report: EpochReport, state: bytes) -> None:
        """The checkpoint's file first, then row and key in one transaction, then the file before it goes."""
        run, before = self.run, self.run.checkpoint
        key = artifact_store.store_checkpoint(run.pk, run.attempt, report.number, state)
        try:
            with transaction.atomic():
                leases.write(run, checkpoint=key, lease_until=leases.lease_end(), **self.bill.columns())
                # A fit that had to start anew comes past epochs that were reported before; the first report stands.
                _, is_new = Epoch.objects.get_or_create(
                    run=run, number=report.number, defaults={"attempt": run.attempt, **_figures(report)}
                )
                if is_new:
                    RunLine.objects.create(run=run, attempt=run.attempt, text=epoch_line(report))
        except leases.ClaimLost:
            artifact_store.delete_checkpoint(key)
            raise
        artifact_store.delete_checkpoint(before)

    def _check_limits(self) -> None:
        if reason := self._reason_to_stop():
            raise Stopped(reason)

    def _reason_to_stop(self) -> str | None:
        asked = TrainingRun.objects.filter(pk=self.run.pk, cancel_requested_at__isnull=False).exists()
        return reason_to_stop(
            is_cancelled=asked,
            billed_seconds=self.bill.seconds + self.bill.headroom,
            share_of_time_seconds=self.run.budget.share_of_time_seconds,
            reservation=Reservation(self.run.reserved_usd, self.run.allowed_seconds),
        )

    def _stop(self, reason: str) -> None:
        self._end(JobState.CANCELLED if reason == CANCELLED_BY_REQUEST else JobState.FAILED, reason)

    def _end(self, state: JobState, failure: str) -> None:
        self._log(failure)
        leases.finish(self.run, state, failure=failure, **self.bill.columns())
        artifact_store.delete_checkpoint(self.run.checkpoint)

    def _keep_bundle(self, trained: fit.Trained) -> None:
        """The files first, then bundle, artifacts and the run's end in one transaction."""
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
            artifacts = artifact_store.store_files(
                {path.name: path.read_bytes() for path in written.folder.iterdir()}
            )
            manifest = (written.folder / MANIFEST_FILE).read_text()
        self._log(f"best epoch {trained.best_epoch}; bundle {written.digest}")
        with transaction.atomic():
            audit.lock_head()
            # An equal run may have made the same bytes before: then both name one bundle.
            bundle, _ = artifact_store.create_bundle(
                written.digest,
                artifacts,
                coin=run.coin,
                line=run.line,
                dataset=run.dataset,
                manifest=manifest,
                is_simulated=run.dataset.is_simulated,
            )
            detail = {"bundle": bundle.digest, "best_epoch": trained.best_epoch}
            leases.finish(run, JobState.SUCCEEDED, detail=detail, bundle=bundle, **self.bill.columns())
        artifact_store.delete_checkpoint(run.checkpoint)

    def _log(self, text: str, **updates: Any) -> None:
        with self.interruption.held_off(), transaction.atomic():
            leases.write(self.run, lease_until=leases.lease_end(), **self.bill.columns(), **updates)
            RunLine.objects.create(run=self.run, attempt=self.run.attempt, text=text)


def _figures(report: EpochReport) -> dict[str, Any]:
    return {
        "train_loss": _finite(report.train_loss),
        "validation_loss": _finite(report.validation_loss),
        "validation_accuracy": _finite(report.validation_accuracy),
        "seconds": report.seconds,
        "rows_per_second": report.rows_per_second,
        "is_best": report.is_best,
    }


def _finite(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None


def epoch_line(report: EpochReport) -> str:
    """One epoch as a line of a log."""
    best = "  best so far" if report.is_best else ""
    return (
        f"epoch {report.number}/{report.epochs}  loss {report.train_loss:.4f}"
        f"  validation {report.validation_loss:.4f}  accuracy {report.validation_accuracy:.4f}"
        f"  {report.seconds:.1f} s  {report.rows_per_second:,.0f} rows/s{best}"
    )


def _device_name(chosen: str) -> str:
    if chosen == "cpu":
        return "CPU"
    import torch

    return torch.cuda.get_device_name()
