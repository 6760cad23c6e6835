"""Who holds a job: claimed by lease, renewed by heartbeat, fenced by attempt.

A second delivery of a message finds the job held and returns. A worker killed in the middle lets its lease run out, and
the next claim goes on. A worker thought dead that comes back holds an old attempt, and its writes find no row.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from audit import services as audit
from common.errors import Conflict
from training.models import Job
from training.rules import JobState

logger = logging.getLogger(__name__)
JobType = TypeVar("JobType", bound=Job)


class ClaimLost(Exception):
    """This worker no longer holds the job: its lease ran out and another took it, or the job was ended."""


def lease_end() -> Any:
    return timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)


def is_free(job: Job) -> bool:
    """Whether nobody works on it: it waits, or its worker fell silent."""
    if job.state == JobState.RUNNING:
        return job.lease_until is None or job.lease_until < timezone.now()
    return job.state == JobState.QUEUED


@transaction.atomic
def claim(model: type[JobType], pk: int, *, worker_name: str, **updates: Any) -> JobType | None:
    """Take the job if it is free; None when somebody holds it or it has ended."""
    audit.lock_head()
    job = model._base_manager.filter(pk=pk).first()
    if job is None or not is_free(job):
        return None
    takeover = job.state == JobState.RUNNING
    try:
        audit.transition(
            job,
            JobState.RUNNING,
            actor=worker_name,
            reason="the worker before fell silent; going on from its checkpoint" if takeover else "",
            detail={"attempt": job.attempt + 1},
            where={"attempt": job.attempt},
            attempt=job.attempt + 1,
            lease_until=lease_end(),
            worker_name=worker_name,
            started_at=job.started_at or timezone.now(),
            **updates,
        )
    except Conflict:
        return None
    return job


def write(job: Job, **updates: Any) -> None:
    """Change columns of a job this worker holds. Raises ClaimLost when it does not any more."""
    held = type(job)._base_manager.filter(pk=job.pk, state=JobState.RUNNING, attempt=job.attempt)
    if held.update(**updates) != 1:
        raise ClaimLost(f"{job} is no longer held by attempt {job.attempt}")
    for name, value in updates.items():
        setattr(job, name, value)


def finish(
    job: Job, to: JobState, *, failure: str = "", detail: dict[str, Any] | None = None, **updates: Any
) -> None:
    """End a job this worker holds. Raises ClaimLost when it does not any more."""
    try:
        audit.transition(
            job,
            to,
            actor=job.worker_name,
            reason=failure,
            detail=detail,
            where={"attempt": job.attempt},
            finished_at=timezone.now(),
            lease_until=None,
            failure=failure,
            **updates,
        )
    except Conflict as lost:
        raise ClaimLost(str(lost)) from lost


def give_back(job: Job) -> None:
    """Let go of a job that is not finished, for the next worker to claim. One that is no longer held is let be."""
    try:
        write(job, lease_until=timezone.now(), enqueued_at=None)
    except ClaimLost:
        return


@contextmanager
def heartbeat(job: Job, columns: Callable[[], Mapping[str, Any]] = dict) -> Iterator[None]:
    """Renew the lease from a thread while the work goes on; `columns()` are written along with each renewal."""
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(settings.LEASE_SECONDS / 4):
            try:
                write(job, lease_until=lease_end(), **columns())
            except ClaimLost:
                break
            except (
                DatabaseError
            ) as error:  # a hiccup must not end the heartbeat: the lease has slack for three
                logger.warning("the heartbeat of %s missed a beat: %s", job, error)
                connection.close()
        connection.close()

    thread = threading.Thread(target=renew, name=f"heartbeat of {job}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
