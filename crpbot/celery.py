"""Celery, as workers and web processes share it. Messages are hints; the rows they name hold the truth."""

import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_ready, worker_shutdown

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crpbot.settings")


def broker_url(redis_url: str) -> str:
    """kombu spells a Redis on a Unix socket in its own way."""
    return redis_url.replace("unix://", "redis+socket://", 1)


app = Celery("crpbot")


def configuration() -> dict[str, Any]:
    from django.conf import settings

    return {
        "broker_url": broker_url(settings.REDIS_URL),
        "broker_connection_retry_on_startup": True,
        "broker_connection_timeout": 2,
        # Short: a request of the web that announces a job must not wait long for a broker that is away.
        "broker_transport_options": {"socket_timeout": 2, "socket_connect_timeout": 2, "max_retries": 1},
        "task_ignore_result": True,
        "task_acks_late": False,  # acknowledged early: recovery is the lease's work, not the broker's
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": 20,  # a task's memory goes back to the machine
        "worker_hijack_root_logger": False,
        "task_routes": {"training.*": {"queue": "training"}, "gates.*": {"queue": "gates"}},
        "task_default_queue": "gates",
        "timezone": "UTC",
    }


# Asked for when the first message is sent: by then, and not before, the settings can be read.
app.add_defaults(configuration)
app.autodiscover_tasks()


@worker_ready.connect
def describe_this_worker(sender: Any, **kwargs: object) -> None:
    from training.jobs.worker_registry import Description

    queues = ",".join(sorted(sender.app.amqp.queues.consume_from))
    sender.controller.description = Description(
        name=sender.hostname, queues=queues, slots=sender.controller.concurrency or 1
    )
    sender.controller.description.start()


@worker_shutdown.connect
def sign_this_worker_off(sender: Any, **kwargs: object) -> None:
    if description := getattr(sender, "description", None):
        description.stop()


@worker_process_init.connect
def start_a_child(**kwargs: object) -> None:
    """In each forked child, before its first task: nothing of the parent's database, and no life without the parent."""
    from django.db import connections

    from training.jobs.worker_registry import die_with_parent

    die_with_parent()
    connections.close_all()
