"""Telling the workers that a row waits. A message is only a hint: `reconcile` sends what was lost again."""

import logging
from time import monotonic

from celery import current_app
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from training.models import Job

logger = logging.getLogger(__name__)

QUIET_SECONDS = 5.0
"""How long a process leaves a broker alone that did not answer, so that requests do not queue up behind it."""

_quiet_until = 0.0


def enqueue(job: Job) -> None:
    """Once the transaction commits, send the job to its queue. A broker that is away is logged, never raised."""
    transaction.on_commit(lambda: _send(job), robust=True)


def _send(job: Job) -> None:
    global _quiet_until
    if monotonic() < _quiet_until:
        return
    try:
        current_app.send_task(job.TASK, args=[job.pk], retry=False)
    except (OperationalError, OSError) as error:
        _quiet_until = monotonic() + QUIET_SECONDS
        logger.warning("the broker is away (%s); reconcile will send %s again", error, job)
        return
    # Narrow, and after the sending: a crash in between costs a second message, which the claim refuses.
    type(job)._base_manager.filter(pk=job.pk).update(enqueued_at=timezone.now())
