"""What a web process counts and times itself, for Prometheus. What the state is comes from the database (deploy.metrics).

All web processes that share METRICS_DIR keep their figures in files there, so that any of them answers for all. Every other
process, and one that cannot write there, keeps its figures in its own memory.
"""

import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from prometheus_client import CollectorRegistry, Counter, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector

FILE_BYTES = 1 << 18
"""Of each file, allocated at the start: on a full disk, a page of a sparse file would end the process."""
FAST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FLIP_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0)

_HOST = socket.gethostname().replace("_", "-")

logger = logging.getLogger(__name__)


def _get_process_name() -> str:
    """Distinct also for processes of containers, which have the same few process ids. Asked at every count."""
    return f"{_HOST}-{os.getpid()}"


def _share_files(folder: Path) -> int | None:
    """Allocate the files of this process; None, and nothing shared, where that fails. Returns the lock of the folder.

    The first process that comes to a folder that nobody uses empties it: all its counters begin at zero again together,
    which Prometheus takes for the restart that it is.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in folder.glob("*.db"):
                path.unlink()
        except BlockingIOError:
            pass
        fcntl.flock(lock, fcntl.LOCK_SH)
        for kind in ("counter", "histogram"):
            # A restarted container has the same name and number, and continues its counters.
            with (folder / f"{kind}_{_get_process_name()}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
    except OSError as error:
        logger.warning(
            "this process keeps its metrics to itself, because of the folder %s: %s", folder, error
        )
        return None
    return lock


_folder: Path | None = settings.METRICS_DIR
_lock = _share_files(_folder) if _folder else None
if _folder is not None and _lock is not None:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_folder)
    values.ValueClass = values.MultiProcessValue(_get_process_name)  # type: ignore[no-untyped-call]

OWN = CollectorRegistry()
"""The figures of this process alone."""

REQUESTS = Counter(
    "crpbot_http_requests",
    "Answered requests: of the edge by operation, others by area.",
    ["part", "status"],
    registry=OWN,
)
REQUEST_SECONDS = Histogram(
    "crpbot_http_request_seconds",
    "From a request to the end of its answer; streams, which never end, are left out.",
    ["part"],
    buckets=FAST_BUCKETS,
    registry=OWN,
)
QUERY_SECONDS = Histogram(
    "crpbot_database_query_seconds",
    "How long a query waited for the database.",
    buckets=FAST_BUCKETS,
    registry=OWN,
)
QUERY_ERRORS = Counter(
    "crpbot_database_errors", "Queries that ended with an error of the database.", registry=OWN
)
TURN_SECONDS = Histogram(
    "crpbot_database_turn_seconds",
    "How long a request waited until it was let in to the database.",
    buckets=FAST_BUCKETS,
    registry=OWN,
)
REDIS_SECONDS = Histogram(
    "crpbot_redis_call_seconds",
    "How long a call waited for Redis.",
    ["call"],
    buckets=FAST_BUCKETS,
    registry=OWN,
)
REDIS_ERRORS = Counter("crpbot_redis_errors", "Calls that Redis did not answer.", ["call"], registry=OWN)
FLIP_SECONDS = Histogram(
    "crpbot_flip_seconds",
    "From a move of the pointer to the heartbeat by which a bot that was there before acknowledges it.",
    buckets=FLIP_BUCKETS,
    registry=OWN,
)


def build_registry() -> CollectorRegistry:
    """The figures of all web processes that share the folder; else those of this process."""
    if _folder is None or _lock is None:
        return OWN
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(_folder))  # type: ignore[no-untyped-call]
    return registry


def time_queries(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Time every query of this connection. A receiver of `connection_created`, which comes at each reconnection."""
    if _time_query not in connection.execute_wrappers:
        connection.execute_wrappers.append(_time_query)


def _time_query(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
    began_at = time.perf_counter()
    try:
        return execute(sql, params, many, context)
    except DatabaseError:
        QUERY_ERRORS.inc()
        raise
    finally:
        QUERY_SECONDS.observe(time.perf_counter() - began_at)


@contextmanager
def time_redis(call: str) -> Iterator[None]:
    """Time a call of Redis, and count it if it fails."""
    began_at = time.perf_counter()
    try:
        yield
    except Exception:
        REDIS_ERRORS.labels(call).inc()
        raise
    finally:
        REDIS_SECONDS.labels(call).observe(time.perf_counter() - began_at)
