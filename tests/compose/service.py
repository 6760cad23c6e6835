"""The running service as people, programs and bots reach it: through the proxy, over TLS."""

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.compose.engine import Engine
from tests.compose.errors import TrialFailed

Json = dict[str, Any]
AUTHORITY = "/data/caddy/pki/authorities/local/root.crt"
SERVICES = ("postgresql", "redis", "storage", "web", "cpu-worker", "reconcile", "proxy")


class Service:
    """docker-compose.yml, running."""

    def __init__(self, engine: Engine, folder: Path, port: int) -> None:
        self.engine, self.url = engine, f"https://localhost:{port}"
        self.certificate = folder / "authority.crt"
        self.tokens: dict[str, str] = {}
        """By the person's name."""
        self.public_key = ""

    def trust_the_proxy(self) -> None:
        """Take the certificate of the proxy's own authority, as a site of a real name would not need."""
        self.certificate.write_text(self.engine.compose("exec", "-T", "proxy", "cat", AUTHORITY) + "\n")

    def manage(self, *words: str, token: str = "", typed: str = "") -> Json:
        """The answer of `manage.py … --json` in a web container."""
        options = ["-e", "CRPBOT_TOKEN"] if token else []
        command = ["exec", "-T", *options, "web", "python", "manage.py", *words, "--json"]
        answer: Json = json.loads(self.engine.compose(*command, typed=typed, CRPBOT_TOKEN=token))
        return answer

    @contextmanager
    def client(self, name: str = "") -> Iterator[httpx.Client]:
        headers = {"Authorization": f"Bearer {self.tokens[name]}"} if name else {}
        trusted = ssl.create_default_context(cafile=str(self.certificate))
        with httpx.Client(
            base_url=self.url, verify=trusted, headers=headers, timeout=30, trust_env=False
        ) as client:
            yield client

    def ask(self, name: str, method: str, path: str, **options: Any) -> Any:
        """The API's answer to this person. Raises TrialFailed for any other than a success."""
        with self.client(name) as client:
            answer = client.request(method, f"/api/v1/{path}", **options)
        if not answer.is_success:
            raise TrialFailed(f"{method} {path} as {name}: {answer.status_code} {answer.text}")
        return answer.json()

    def get_status(self, path: str, name: str = "") -> int:
        """The status of one request; 0 where the connection failed."""
        try:
            with self.client(name) as client:
                return client.get(path).status_code
        except httpx.TransportError:
            return 0

    def list_containers(self, *services: str) -> dict[str, Json]:
        """Their containers by id, also those that ended."""
        ids = self.engine.compose("ps", "--all", "--quiet", *services).split()
        found = json.loads(self.engine.docker("inspect", *ids)) if ids else []
        return {each["Id"]: each for each in found}

    def is_healthy(self, *services: str) -> bool:
        return all(map(_is_healthy, self.list_containers(*(services or SERVICES)).values()))


def _is_healthy(container: Mapping[str, Any]) -> bool:
    state = container["State"]
    return bool(state["Running"]) and state.get("Health", {"Status": "healthy"})["Status"] == "healthy"


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> float:
    """The seconds that it took. Raises TrialFailed when it took longer than allowed."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise TrialFailed(f"After {seconds:.0f} s: {what} is not so.")
        time.sleep(0.3)
    return time.monotonic() - start
