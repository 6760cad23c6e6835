"""Web processes as `make demo` starts them, on the test's own state."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import processes
from tests.loopback import answers, free_port
from tests.processes import Process, wait_until


@dataclass(frozen=True)
class Web:
    """One that answers."""

    port: int
    process: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def web(log: Path, redis_url: str, *, grace_seconds: int = 1) -> Iterator[Web]:
    """A web process; told to end, it gives those who wait for an answer so long."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "crpbot.asgi:application", "--port", str(port)]
    options = [
        "--loop",
        "uvloop",
        "--http",
        "crpbot.web.connections:BoundedConnection",
        "--timeout-graceful-shutdown",
        str(grace_seconds),
    ]
    process = processes.start(*command, *options, log=log, CRPBOT_REDIS_URL=redis_url)
    found = Web(port, process)
    try:
        wait_until(lambda: answers(f"{found.url}/healthz"), what=f"the web process: {log}")
        yield found
    finally:
        process.stop()
