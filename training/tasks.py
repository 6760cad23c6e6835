"""What arrives at a worker: a primary key. The runner is imported by the child that works, not by its parent."""

from typing import Any

from celery import shared_task


@shared_task(name="training.train", bind=True)
def train(self: Any, run_id: int) -> None:
    from training import worker

    worker.train(run_id, worker_name=self.request.hostname)
