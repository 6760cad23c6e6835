"""Messages to the workers about waiting jobs. A message is only a hint: `reconcile` sends lost ones again."""

import logging
from time import monotonic
from typing import Any

from celery import current_app
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from common.metrics import time_redis
from training.models import Job
from training.rules import JobState

logger = logging.getLogger(__name__)

BROKER_PAUSE_SECONDS = 5.0
"""After a failure a process sends nothing for this long, so that requests do not wait for the broker."""

_paused_until = 0.0


def enqueue(job: Job) -> None:
    """Send the job to its queue when the transaction commits. An unavailable broker is logged, not raised."""
    transaction.on_commit(lambda: _send(job), robust=True)


def resend(model: type[Job], due: QuerySet[Job]) -> None:
    """Send the messages of these jobs again, unless the queue holds as many messages as jobs wait.

    Then none was lost: without this, a thousand waiting jobs would add a thousand messages every few seconds.
    """
    if not due.exists():
        return
    if _count_messages(model.TASK) >= model._base_manager.filter(state=JobState.QUEUED).count():
        due = due.filter(Q(enqueued_at=None) | Q(state=JobState.RUNNING))  # nobody has been told of these
    for job in due:
        enqueue(job)


def _count_messages(task: str) -> int:
    """The messages that wait in the queue of this task; 0 while the broker does not answer."""
    queue = current_app.amqp.router.route({}, task)["queue"]
    try:
        with current_app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            return int(channel.queue_declare(queue.name).message_count)
    except (OperationalError, RedisError, OSError) as error:
        logger.warning("the broker does not say how many messages wait (%s)", error)
        return 0


def _send(job: Job) -> None:
    global _paused_until
    if monotonic() < _paused_until:
        return
    try:
        with time_redis("send"):
            current_app.send_task(job.TASK, args=[job.pk], retry=False)
    except (OperationalError, OSError) as error:
        _paused_until = monotonic() + BROKER_PAUSE_SECONDS
        logger.warning("the broker does not answer (%s); reconcile will send %s again", error, job)
        return
    # After sending: a crash in between costs a second message, which the claim refuses.
    type(job)._base_manager.filter(pk=job.pk).update(enqueued_at=timezone.now())
