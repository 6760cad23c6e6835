"""Celery for workers and web processes. A message is only a hint; the state is in the row that it names."""

import logging
import os
from typing import Any

from celery import Celery
from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)
from django.core.exceptions import ImproperlyConfigured

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crpbot.settings")
# A worker would run the system checks, which load every view, and discard what they say.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")


def build_broker_url(redis_url: str) -> str:
    """kombu has its own scheme for Redis on a Unix socket."""
    return redis_url.replace("unix://", "redis+socket://", 1)


app = Celery("crpbot")


def build_configuration() -> dict[str, Any]:
    from django.conf import settings

    try:
        timeout = settings.BROKER_TIMEOUT_SECONDS
    except ImproperlyConfigured as error:  # one sentence, as manage.py prints it
        raise SystemExit(str(error)) from None
    return {
        "broker_url": build_broker_url(settings.REDIS_URL),
        "broker_connection_retry_on_startup": True,
        "broker_connection_timeout": timeout,
        # Short: a web request that queues a job must not wait for an unavailable broker.
        "broker_transport_options": {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "max_retries": 1,
        },
        "task_ignore_result": True,
        "task_acks_late": False,  # acknowledged early: leases recover lost jobs, not the broker
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": 20,  # returns the memory of tasks to the machine
        "worker_hijack_root_logger": False,
        "task_routes": {"training.*": {"queue": "training"}, "gates.*": {"queue": "gates"}},
        "task_default_queue": "gates",
        "timezone": "UTC",
    }


# Called when the first message is sent: earlier, the settings cannot be read.
app.add_defaults(build_configuration)
app.autodiscover_tasks()


@setup_logging.connect
def keep_logging(loglevel: int = logging.INFO, **kwargs: object) -> None:
    """Log as the settings say. With a receiver of this signal Celery configures nothing itself."""
    logging.getLogger("celery").setLevel(loglevel)


@celeryd_after_setup.connect
def hide_banner(instance: Any, **kwargs: object) -> None:
    """The banner is no JSON."""
    from django.conf import settings

    instance.quiet = instance.quiet or settings.LOG_FORMAT == "json"


@worker_init.connect
def check_database_role(**kwargs: object) -> None:
    from audit.database_roles import DatabaseRole, require_least_privilege

    try:
        require_least_privilege(DatabaseRole.WORKER)
    except ImproperlyConfigured as refusal:
        raise SystemExit(str(refusal)) from None  # Celery only logs what else a receiver raises


@worker_ready.connect
def register_worker(sender: Any, **kwargs: object) -> None:
    from training.jobs.worker_registry import WorkerRegistration

    queues = ",".join(sorted(sender.app.amqp.queues.consume_from))
    sender.controller.registration = WorkerRegistration(
        name=sender.hostname, queues=queues, slots=sender.controller.concurrency or 1
    )
    sender.controller.registration.start()


@worker_shutdown.connect
def unregister_worker(sender: Any, **kwargs: object) -> None:
    if registration := getattr(sender, "registration", None):
        registration.stop()


@worker_process_init.connect
def prepare_child(**kwargs: object) -> None:
    """Before the first task of a forked child: close inherited connections, and end with the parent."""
    from django.db import connections

    from training.jobs.confinement import die_with_parent

    die_with_parent()
    connections.close_all()


@worker_process_shutdown.connect
def send_last_spans(**kwargs: object) -> None:
    """A child ends without its exit handlers."""
    from common import correlation

    correlation.flush()
