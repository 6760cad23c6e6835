"""The list of worker processes: each one updates its row every few seconds.

The parent process of a worker never imports torch, because a fork after CUDA has started breaks the children. A short
process asks torch for the device instead.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from importlib.metadata import version
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from training.models import Worker

logger = logging.getLogger(__name__)

# The pool forks children at any time. A child that is forked while the registration thread is inside SQLite or a socket
# would inherit locks that are never released, and hang at its first query. So a fork waits until that thread is idle.
registration_lock = threading.Lock()
os.register_at_fork(
    before=registration_lock.acquire,
    after_in_parent=registration_lock.release,
    after_in_child=registration_lock.release,
)

HEARTBEAT_SECONDS = 3.0
ALIVE_SECONDS = 4 * HEARTBEAT_SECONDS
PROBE_TIMEOUT_SECONDS = 120

PROBE = """
import json, torch
if torch.cuda.is_available():
    properties = torch.cuda.get_device_properties(0)
    device = {"device": properties.name, "memory_bytes": properties.total_memory, "cuda_version": torch.version.cuda}
else:
    device = {"device": "CPU"}
print(json.dumps(device))
"""


@dataclass(frozen=True)
class Device:
    """What a worker trains on."""

    device: str
    """The GPU's name, or CPU."""
    memory_bytes: int | None
    cuda_version: str = ""


def probe_device() -> Device:
    """Ask torch for the device, in another process; CPU when that fails."""
    columns: dict[str, Any] = {"device": "CPU"}
    try:
        answer = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, timeout=PROBE_TIMEOUT_SECONDS, check=True
        )
        columns = json.loads(answer.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        logger.warning("torch did not report a device (%s); using the CPU", error)
    return Device(**{"memory_bytes": _read_machine_memory(), **columns})


def _read_machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class WorkerRegistration(threading.Thread):
    """Updates the row of this worker every few seconds, and deletes it at the end."""

    def __init__(self, *, name: str, queues: str, slots: int) -> None:
        super().__init__(name=f"registration of {name}", daemon=True)
        self.worker_name, self.queues, self.slots = name, queues, slots
        self.started_at = timezone.now()
        self._stopped = threading.Event()

    def run(self) -> None:
        device = probe_device()
        while True:
            with registration_lock:
                self._write_row(device)
            if self._stopped.wait(HEARTBEAT_SECONDS):
                break
        with registration_lock:
            self._delete_row()

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=5)

    def _write_row(self, device: Device) -> None:
        columns = {
            "queues": self.queues,
            "slots": self.slots,
            "torch_version": version("torch"),
            "code_version": settings.CODE_VERSION,
            "rate_usd_per_hour": Decimal(settings.WORKER_RATE_USD_PER_HOUR),
            "started_at": self.started_at,
            "last_heard_at": timezone.now(),
            **asdict(device),
        }
        try:
            Worker.objects.update_or_create(name=self.worker_name, defaults=columns)
        except DatabaseError as error:
            logger.warning("the row of worker %s was not written: %s", self.worker_name, error)
        finally:
            # The pool forks children at any time, and they must not inherit an open connection.
            connection.close()

    def _delete_row(self) -> None:
        try:
            Worker.objects.filter(name=self.worker_name, started_at=self.started_at).delete()
        except DatabaseError as error:
            logger.warning("the row of worker %s was not deleted: %s", self.worker_name, error)
        finally:
            connection.close()


def compute_alive_since() -> datetime:
    """The earliest last heartbeat of a worker that counts as alive."""
    return timezone.now() - timedelta(seconds=ALIVE_SECONDS)


def list_alive_workers(queue: str | None = None) -> list[Worker]:
    """The workers with a recent heartbeat; only those of a queue when one is given."""
    workers = Worker.objects.filter(last_heard_at__gte=compute_alive_since())
    return [worker for worker in workers if queue is None or queue in worker.queues.split(",")]
