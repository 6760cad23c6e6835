"""Messages to the workers about waiting jobs. A message is only a hint: `reconcile` sends lost ones again."""

import logging
from time import monotonic

from celery import current_app
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from training.models import Job

logger = logging.getLogger(__name__)

BROKER_PAUSE_SECONDS = 5.0
"""After a failure a process sends nothing for this long, so that requests do not wait for the broker."""

_paused_until = 0.0


def enqueue(job: Job) -> None:
    """Send the job to its queue when the transaction commits. An unavailable broker is logged, not raised."""
    transaction.on_commit(lambda: _send(job), robust=True)


def _send(job: Job) -> None:
    global _paused_until
    if monotonic() < _paused_until:
        return
    try:
        current_app.send_task(job.TASK, args=[job.pk], retry=False)
    except (OperationalError, OSError) as error:
        _paused_until = monotonic() + BROKER_PAUSE_SECONDS
        logger.warning("the broker does not answer (%s); reconcile will send %s again", error, job)
        return
    # After sending: a crash in between costs a second message, which the claim refuses.
    type(job)._base_manager.filter(pk=job.pk).update(enqueued_at=timezone.now())
