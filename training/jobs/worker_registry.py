"""Worker processes: each describes itself every few seconds, and anyone may ask which are alive.

The worker's parent process never imports torch: forking after CUDA has started breaks the children, and the device is
asked for in a short process of its own.
"""

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from datetime import timedelta
from decimal import Decimal
from importlib.metadata import version
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from training.models import Worker

logger = logging.getLogger(__name__)

# The pool forks new children at any time. One forked while the description's thread is inside SQLite or a socket would
# inherit locks that nobody will ever release, and hang at its first query: so a fork waits until that thread is idle.
between_writes = threading.Lock()
os.register_at_fork(
    before=between_writes.acquire,
    after_in_parent=between_writes.release,
    after_in_child=between_writes.release,
)

BEAT_SECONDS = 3.0
ALIVE_SECONDS = 4 * BEAT_SECONDS
PROBE_TIMEOUT_SECONDS = 120
PR_SET_PDEATHSIG = 1

PROBE = """
import json, torch
if torch.cuda.is_available():
    properties = torch.cuda.get_device_properties(0)
    found = {"device": properties.name, "memory_bytes": properties.total_memory, "cuda_version": torch.version.cuda}
else:
    found = {"device": "CPU"}
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Device:
    """What a worker trains on."""

    device: str
    """The GPU's name, or CPU."""
    memory_bytes: int | None
    cuda_version: str = ""


def probe_device() -> Device:
    """Ask torch in a process of its own; a machine on which that fails trains on its CPU."""
    found: dict[str, Any] = {"device": "CPU"}
    try:
        answer = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, timeout=PROBE_TIMEOUT_SECONDS, check=True
        )
        found = json.loads(answer.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        logger.warning("torch could not be asked for its device (%s); taken as a CPU", error)
    return Device(**{"memory_bytes": _machine_memory(), **found})


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Description(threading.Thread):
    """Writes this worker's row every few seconds until it is told to stop, and takes it away then."""

    def __init__(self, *, name: str, queues: str, slots: int) -> None:
        super().__init__(name=f"description of {name}", daemon=True)
        self.worker_name, self.queues, self.slots = name, queues, slots
        self.started_at = timezone.now()
        self._stopped = threading.Event()

    def run(self) -> None:
        device = probe_device()
        while True:
            with between_writes:
                self._write(device)
            if self._stopped.wait(BEAT_SECONDS):
                break
        with between_writes:
            self._take_away()

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=5)

    def _write(self, device: Device) -> None:
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
            logger.warning("%s could not describe itself: %s", self.worker_name, error)
        finally:
            # Not kept open: the pool forks new children at any time, and they must not inherit it.
            connection.close()

    def _take_away(self) -> None:
        try:
            Worker.objects.filter(name=self.worker_name, started_at=self.started_at).delete()
        except DatabaseError as error:
            logger.warning("%s could not sign off: %s", self.worker_name, error)
        finally:
            connection.close()


def die_with_parent() -> None:
    """A child of a killed worker must not work on: nobody would hear of it, or could stop it."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request took hold
        os._exit(1)


def list_alive_workers(queue: str | None = None) -> list[Worker]:
    """Workers heard of lately, those of one queue if it is named."""
    since = timezone.now() - timedelta(seconds=ALIVE_SECONDS)
    workers = Worker.objects.filter(last_heard_at__gte=since)
    return [worker for worker in workers if queue is None or queue in worker.queues.split(",")]
