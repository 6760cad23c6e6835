"""Gate work as it arrives by message. The worker is imported only by the child process that runs it."""

from typing import Any

from celery import shared_task


@shared_task(name="gates.measure", bind=True)
def measure(self: Any, measurement_id: int) -> None:
    from gates import worker

    worker.run(measurement_id, worker_name=self.request.hostname)
