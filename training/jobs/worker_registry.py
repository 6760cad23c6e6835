"""The list of worker processes: each one updates its row every few seconds.

The parent process of a worker never imports torch, because a fork after CUDA has started breaks the children. A short
process asks torch for the device instead, where torch was built for one.
"""

import json
import logging
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
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


def probe_device() -> dict[str, Any]:
    """The device of this machine; CPU where torch cannot say. Returns columns of the worker's row."""
    columns = {"device": "CPU"}
    try:
        if is_built_for_gpus():
            answer = subprocess.run(
                [sys.executable, "-c", PROBE], capture_output=True, timeout=PROBE_TIMEOUT_SECONDS, check=True
            )
            columns = json.loads(answer.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        logger.warning("torch did not report a device (%s); using the CPU", error)
    machine_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"memory_bytes": machine_memory, "cuda_version": "", **columns}


def is_built_for_gpus() -> bool:
    """Whether the installed torch can use a GPU at all, as its file of versions says: to import it takes seconds."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        return False
    built = runpy.run_path(str(Path(torch.origin).with_name("version.py")))
    return any(built.get(kind) for kind in ("cuda", "hip"))


class WorkerRegistration(threading.Thread):
    """Updates the row of this worker every few seconds, and deletes it at the end."""

    def __init__(self, *, name: str, queues: str, slots: int) -> None:
        super().__init__(name=f"registration of {name}", daemon=True)
        self.worker_name, self.queues, self.slots = name, queues, slots
        self.started_at = timezone.now()
        self._stopped = threading.Event()

    def run(self) -> None:
        device = probe_device()
        self._write_row(device)
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            self._write_row(device)
        with self._changing_row("deleted"):
            Worker.objects.filter(name=self.worker_name, started_at=self.started_at).delete()

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=5)

    def _write_row(self, device: Mapping[str, Any]) -> None:
        with self._changing_row("written"):
            columns = {
                "queues": self.queues,
                "slots": self.slots,
                "torch_version": version("torch"),
                "code_version": settings.CODE_VERSION,
                "rate_usd_per_hour": Decimal(settings.WORKER_RATE_USD_PER_HOUR),
                "started_at": self.started_at,
                "last_heard_at": timezone.now(),
                **device,
            }
            Worker.objects.update_or_create(name=self.worker_name, defaults=columns)

    @contextmanager
    def _changing_row(self, change: str) -> Iterator[None]:
        with registration_lock:
            try:
                yield
            except DatabaseError as error:
                logger.warning("the row of worker %s was not %s: %s", self.worker_name, change, error)
            finally:
                # The pool forks children at any time, and they must not inherit an open connection.
                connection.close()


def compute_alive_since() -> datetime:
    """The earliest last heartbeat of a worker that counts as alive."""
    return timezone.now() - timedelta(seconds=ALIVE_SECONDS)


def list_alive_workers(queue: str | None = None) -> list[Worker]:
    """The workers with a recent heartbeat; only those of a queue when one is given."""
    workers = Worker.objects.filter(last_heard_at__gte=compute_alive_since())
    return [worker for worker in workers if queue is None or queue in worker.queues.split(",")]
