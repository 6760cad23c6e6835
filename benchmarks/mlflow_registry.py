"""The peer of push and snapshots: MLflow's registry over HTTP with its own authentication, three coins by an alias.

`python -m benchmarks.mlflow_registry` makes its environment under build/, which a test uses too. It runs with its defaults
but for what holds it back here: no telemetry (nothing outside can be reached), no workers for its jobs, no log line a
request, and a worker process for each core.
"""

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks.environments import python_of
from tests.loopback import answers, free_port

PINS = ("mlflow[auth]==3.17.2",)
COINS = ("BTC", "ETH", "SOL")
ALIAS = "production"
USER, PASSWORD = "admin", "a long password of the benchmark"
START_SECONDS = 180


@dataclass(frozen=True)
class Registry:
    """A running server."""

    port: int
    has_authentication: bool

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        if not self.has_authentication:
            return {"Content-Type": "application/json"}
        word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return {"Authorization": f"Basic {word}", "Content-Type": "application/json"}

    def path(self, coin: str) -> str:
        return f"/api/2.0/mlflow/registered-models/alias?name={coin}&alias={ALIAS}"

    def move(self, version: int) -> None:
        """Let every coin's alias name this version."""
        for coin in COINS:
            self.post("registered-models/alias", name=coin, alias=ALIAS, version=str(version))

    def post(self, what: str, **body: str) -> None:
        address = f"{self.url}/api/2.0/mlflow/{what}"
        with urlopen(Request(address, json.dumps(body).encode(), self.headers), timeout=60) as answer:
            answer.read()


@contextmanager
def registry(folder: Path, *, has_authentication: bool = True) -> Iterator[Registry]:
    """MLflow's server, in which each coin has versions 1 and 2."""
    workers = os.cpu_count() or 1
    with serve(
        python_of("mlflow", PINS), folder, has_authentication=has_authentication, workers=workers
    ) as found:
        for coin in COINS:
            found.post("registered-models/create", name=coin)
            for version in (1, 2):
                found.post("model-versions/create", name=coin, source=f"s3://models/{coin}/{version}")
        found.move(1)
        yield found


@contextmanager
def serve(python: Path, folder: Path, *, has_authentication: bool, workers: int) -> Iterator[Registry]:
    """MLflow's server of this environment, with its state below this folder."""
    folder.mkdir()
    auth = folder / "auth.ini"
    auth.write_text(
        f"[mlflow]\ndefault_permission = READ\nadmin_username = {USER}\n"
        f"admin_password = {PASSWORD}\ndatabase_uri = sqlite:///{folder / 'auth.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    found = Registry(free_port(), has_authentication)
    command = [str(python.parent / "mlflow"), "server", "--host", "127.0.0.1"]
    command += ["--app-name", "basic-auth"] if has_authentication else []
    command += ["--port", str(found.port), "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--workers", str(workers), "--uvicorn-opts", "--no-access-log --log-level warning"]
    settings = {
        "MLFLOW_AUTH_CONFIG_PATH": str(auth),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the benchmark",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (folder / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log, cwd=folder)
    try:
        _wait(found, server, folder / "mlflow.log")
        yield found
    finally:
        server.terminate()
        server.wait()


def _wait(found: Registry, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if answers(f"{found.url}/health"):
            return
        time.sleep(0.5)
    raise RuntimeError(f"MLflow did not start: {log.read_text()[-2000:]}")


if __name__ == "__main__":
    python_of("mlflow", PINS)
