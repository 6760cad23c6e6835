"""The disk of a web process is full: what it still does, and that nothing which it acknowledged is lost."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from django.db import connection

from accounts.models import User
from audit import services as audit
from deploy.models import PointerMove
from tests import factories, scenarios
from tests.loopback import free_port, wait_until_it_answers
from tests.processes import REPOSITORY, Process, start, wait_until
from tests.small_disk import small_disk

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.usefixtures("committed", "broker"),
]


@dataclass
class Web:
    """A web process whose files cannot grow while its disk is full: each write fails, as root or not."""

    log: Path
    approver: str
    bot: str
    url: str = ""
    process: Process | None = None

    def start(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "uvicorn", "crpbot.asgi:application", "--port", str(port)]
        self.process = start(*command, log=self.log)
        wait_until_it_answers(f"{self.url}/healthz")

    def fill_disk(self, is_full: bool) -> None:
        assert self.process is not None
        limits = (0 if is_full else resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(self.process.popen.pid, resource.RLIMIT_FSIZE, limits)

    def pin(self) -> int:
        headers = {"Authorization": f"Bearer {self.approver}"}
        return httpx.post(
            f"{self.url}/api/v1/pointer/pin/", json={"reason": "it trades oddly"}, headers=headers, timeout=60
        ).status_code

    def ask(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.bot}"}, timeout=60)

    def read_signed_status(self) -> int:
        return self.ask("/api/v1/active/signed/").status_code

    def wait_until_it_serves(self, revision: int) -> None:
        """The answer from memory may be half a second old."""

        def serves() -> bool:
            return bool(self.ask("/api/v1/active/").json()["revision"] == revision)

        wait_until(serves, what=f"revision {revision} to be served")


@pytest.fixture
def web(tmp_path: Path, approver: User) -> Iterator[Web]:
    scenarios.service_in_use()
    tokens = factories.token(approver, "approver"), factories.token(factories.person("trader"), "bot")
    web = Web(tmp_path / "web.log", *tokens)
    web.start()
    assert web.read_signed_status() == 200
    web.fill_disk(True)
    yield web
    if web.process is not None:
        web.process.stop()


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="PostgreSQL has a disk of its own")
def test_a_pin_that_cannot_be_stored_is_refused_until_there_is_room(web: Web) -> None:
    assert web.pin() == 503
    assert web.ask("/healthz/live").status_code == 200
    assert web.read_signed_status() == 200, "from memory, or from the database, which can be read"
    assert list(PointerMove.objects.values_list("revision", flat=True)) == [1]
    web.fill_disk(False)
    assert web.pin() == 200
    web.wait_until_it_serves(2)
    assert audit.verify() == []


def test_a_pin_that_cannot_be_signed_is_signed_once_there_is_room(web: Web) -> None:
    """On PostgreSQL only the folder of the keys is full. Bots hear of the pin once there is room; until then, an alarm."""
    status = web.pin()
    assert status == (200 if connection.vendor == "postgresql" else 503)
    if status == 200:
        wait_until(lambda: web.read_signed_status() == 503, what="the revision to be refused")
        wait_until(lambda: web.ask("/healthz").json()["alarms"] == ["revision_log"], what="the alarm")
    web.fill_disk(False)
    wait_until(lambda: web.read_signed_status() == 200, what="room to help")
    if status == 200:
        web.wait_until_it_serves(2)
        wait_until(lambda: web.ask("/healthz").json()["alarms"] == [], what="the alarm to end")


@pytest.mark.long
def test_a_process_that_dies_on_a_full_disk_recovers(web: Web) -> None:
    status = web.pin()
    assert web.process is not None
    web.process.kill()
    web.start()
    made = [1, 2] if status == 200 else [1]
    assert sorted(PointerMove.objects.values_list("revision", flat=True)) == made, "what was acknowledged"
    assert web.pin() == (409 if status == 200 else 200)
    web.wait_until_it_serves(2)
    wait_until(lambda: web.read_signed_status() == 200, what="a signed snapshot")
    assert audit.verify() == []


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="PostgreSQL has a disk of its own")
@pytest.mark.long
def test_commands_on_a_file_system_without_room_say_so_and_lose_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", megabytes=24) as disk:

        def manage(*words: str) -> subprocess.CompletedProcess[str]:
            outer = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("CRPBOT_", "DJANGO_"))
            }
            environment = outer | {"CRPBOT_STATE_DIR": str(disk.folder)}
            command = [sys.executable, "manage.py", *words]
            return subprocess.run(
                command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
            )

        assert manage("migrate", "--noinput").returncode == 0
        assert manage("people", "--add", "olga", "--role", "operator", "--no-password").returncode == 0
        disk.fill()
        refused = manage("simulate_candles", "--coin", "BTC", "--bars", "300", "--as", "olga")
        assert refused.returncode != 0
        assert "disk is full or broken. Make room beside" in refused.stderr
        assert refused.stderr.count("\n") == 1
        disk.make_room()
        assert manage("simulate_candles", "--coin", "BTC", "--bars", "300", "--as", "olga").returncode in (
            0,
            1,
        )
        assert manage("verify_audit").returncode == 0
