"""Celery, as workers and web processes share it. Messages are hints; the rows they name hold the truth."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crpbot.settings")


def broker_url(redis_url: str) -> str:
    """kombu spells a Redis on a Unix socket in its own way."""
    return redis_url.replace("unix://", "redis+socket://", 1)


app = Celery("crpbot")


@app.on_configure.connect  # type: ignore[untyped-decorator]
def configure(sender: Celery, **kwargs: object) -> None:
    from django.conf import settings

    sender.conf.update(
        broker_url=broker_url(settings.REDIS_URL),
        broker_connection_retry_on_startup=True,
        broker_transport_options={"socket_timeout": 5, "socket_connect_timeout": 2, "max_retries": 1},
        task_ignore_result=True,
        task_acks_late=False,  # acknowledged early: recovery is the lease's work, not the broker's
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_max_tasks_per_child=20,  # a task's memory goes back to the machine
        worker_hijack_root_logger=False,
        task_routes={"training.*": {"queue": "training"}, "gates.*": {"queue": "gates"}},
        task_default_queue="gates",
        timezone="UTC",
    )


app.autodiscover_tasks()
