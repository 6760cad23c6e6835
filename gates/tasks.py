"""Gate work as it arrives by message: an id in, a runner called, which is imported by the child that works."""

from typing import Any

from celery import shared_task


@shared_task(name="gates.measure", bind=True)
def measure(self: Any, measurement_id: int) -> None:
    from gates import worker

    worker.run(measurement_id, worker_name=self.request.hostname)
