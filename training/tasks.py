"""Celery tasks: a message has the primary key of a job. Only the child that trains imports the worker module."""

from typing import Any

from celery import shared_task


@shared_task(name="training.train", bind=True)
def train(self: Any, run_id: int) -> None:
    from training import worker

    worker.train(run_id, worker_name=self.request.hostname)
