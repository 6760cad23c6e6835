"""Leases of jobs: a worker claims a job, renews its lease while it works, and names its attempt in every write.

A message that is delivered twice finds the job held. The lease of a killed worker runs out, and the next claim resumes the
job. A worker that returns after that still names the old attempt, so its writes match no row.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from audit import services as audit
from common.correlation import resume, span
from common.errors import Conflict
from training.models import Job
from training.rules import JobState

logger = logging.getLogger(__name__)
JobType = TypeVar("JobType", bound=Job)
_ID_NAMES = {"training.train": "run_id", "gates.measure": "measurement_id"}
TAKEOVER = "the previous worker stopped renewing its lease; resuming from its checkpoint"


class ClaimLost(Exception):
    """This worker no longer holds the job: another worker took it over, or the job ended."""


def compute_lease_end() -> Any:
    return timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)


def is_free(job: Job) -> bool:
    """Whether the job can be claimed: it is queued, or its lease ran out."""
    if job.state == JobState.RUNNING:
        return job.lease_until is None or job.lease_until < timezone.now()
    return job.state == JobState.QUEUED


@audit.locked()
def claim(model: type[JobType], pk: int, *, worker_name: str, **updates: Any) -> JobType | None:
    """Claim a free job; None when another worker holds it or it has ended."""
    job = model._base_manager.filter(pk=pk).first()
    if job is None or not is_free(job):
        return None
    try:
        audit.transition(
            job,
            JobState.RUNNING,
            actor=worker_name,
            reason=TAKEOVER if job.state == JobState.RUNNING else "",
            detail={"attempt": job.attempt + 1},
            where={"attempt": job.attempt},
            attempt=job.attempt + 1,
            lease_until=compute_lease_end(),
            worker_name=worker_name,
            started_at=job.started_at or timezone.now(),
            **updates,
        )
    except Conflict:
        return None
    return job


def write(job: Job, **updates: Any) -> None:
    """Change columns of a job that this worker holds. Raises ClaimLost."""
    held = type(job)._base_manager.filter(pk=job.pk, state=JobState.RUNNING, attempt=job.attempt)
    if held.update(**updates) != 1:
        raise ClaimLost(f"{job} is no longer held by attempt {job.attempt}")
    for name, value in updates.items():
        setattr(job, name, value)


def finish(
    job: Job, to: JobState, *, failure: str = "", detail: dict[str, Any] | None = None, **updates: Any
) -> None:
    """End a job that this worker holds. Raises ClaimLost."""
    try:
        end(job, to, actor=job.worker_name, reason=failure, failure=failure, detail=detail, **updates)
    except Conflict as lost:
        raise ClaimLost(str(lost)) from lost


def end(job: Job, to: JobState, *, actor: object, reason: str, failure: str, **updates: Any) -> None:
    """Move a job to a final state, unless its attempt has changed. Raises Conflict."""
    audit.transition(
        job,
        to,
        actor=actor,
        reason=reason,
        where={"attempt": job.attempt},
        finished_at=timezone.now(),
        lease_until=None,
        failure=failure,
        **updates,
    )


def give_back(job: Job) -> None:
    """Release an unfinished job for the next worker; a job that is no longer held stays unchanged."""
    with suppress(ClaimLost):
        write(job, lease_until=timezone.now(), enqueued_at=None)


@contextmanager
def work_on(job: Job, columns: Callable[[], Mapping[str, Any]] = dict) -> Iterator[None]:
    """The work of an attempt: its log lines and spans, and a thread that renews its lease and writes `columns()`."""
    kind = job._meta.model_name
    with (
        resume(job.origin, **{_ID_NAMES[type(job).TASK]: job.pk}),
        span(f"{kind}.attempt", attempt=job.attempt),
    ):
        logger.info("%s: attempt %d on %s", job, job.attempt, job.worker_name)
        with _renew_in_background(job, columns):
            yield
        logger.info("%s: attempt %d over, %s", job, job.attempt, job.state)


@contextmanager
def _renew_in_background(job: Job, columns: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(settings.LEASE_SECONDS / 4):
            try:
                write(job, lease_until=compute_lease_end(), **columns())
            except ClaimLost:
                break
            except DatabaseError as error:  # the lease is long enough for three failed renewals
                logger.warning("the lease of %s was not renewed: %s", job, error)
                connection.close()
        connection.close()

    run = partial(copy_context().run, renew)
    thread = threading.Thread(target=run, name=f"lease of {job}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
