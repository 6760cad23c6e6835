"""The watchdog of an instance: the real script, in a process, with a stand-in for the metadata and for `shutdown`."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.processes import wait_until
from training.jobs.confinement import die_with_parent

SCRIPT = Path(settings.BASE_DIR) / "machines" / "cloud" / "watchdog.sh"
NEEDS = [name for name in ("curl", "sed", "cut", "date") if shutil.which(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(NEEDS), reason=f"no {', '.join(NEEDS)} here"),
]


@dataclass
class Metadata:
    """What the instance is told about itself. It refuses a reader that has not asked for a key first, as EC2 does."""

    server: ThreadingHTTPServer
    tags: dict[str, str] = field(default_factory=dict)
    pending_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    is_silent: bool = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/latest"

    def answer(self, path: str) -> str | None:
        if path == "/latest/dynamic/instance-identity/document":
            return f'{{\n  "instanceType" : "g5.xlarge",\n  "pendingTime" : "{self.pending_at:%Y-%m-%dT%H:%M:%SZ}"\n}}'
        return self.tags.get(path.removeprefix("/latest/meta-data/tags/instance/"))


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._send("the-key" if "X-aws-ec2-metadata-token-ttl-seconds" in self.headers else None)

        def do_GET(self) -> None:
            allowed = self.headers.get("X-aws-ec2-metadata-token") == "the-key" and not built.is_silent
            self._send(built.answer(self.path) if allowed else None)

        def _send(self, text: str | None) -> None:
            self.send_response(200 if text is not None else 404)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    built = Metadata(server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield built
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Watchdog:
    process: "subprocess.Popen[str]"
    ended: Path

    @property
    def has_ended_the_instance(self) -> bool:
        return self.ended.exists()

    def read(self) -> str:
        self.process.kill()
        return self.process.communicate(timeout=10)[0]


@pytest.fixture
def start(metadata: Metadata, tmp_path: Path) -> Iterator[Any]:
    """Starts the watchdog with seconds instead of minutes."""
    started: list[Watchdog] = []

    def start_one(*, silent: int = 4, longest: int = 3600) -> Watchdog:
        ended = tmp_path / "ended"
        environment = {
            "PATH": "/usr/bin:/bin",
            "CRPBOT_METADATA": metadata.address,
            "CRPBOT_END_COMMAND": f"touch {ended}",
            "CRPBOT_SILENT_SECONDS": str(silent),
            "CRPBOT_LONGEST_SECONDS": str(longest),
            "CRPBOT_EVERY_SECONDS": "1",
        }
        process = subprocess.Popen(
            ["/bin/sh", str(SCRIPT)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=die_with_parent,
        )
        started.append(Watchdog(process, ended))
        return started[-1]

    yield start_one
    for each in started:
        if each.process.poll() is None:
            each.read()


def test_it_ends_the_instance_once_nothing_is_heard(metadata: Metadata, start: Any) -> None:
    watchdog = start(silent=4)
    for number in range(6):
        metadata.tags["crpbot-heard"] = str(number)
        time.sleep(1)
    assert not watchdog.has_ended_the_instance, "the tag changed all the time"
    wait_until(lambda: watchdog.has_ended_the_instance, what="the end after the silence", seconds=20)
    assert "nothing heard from the service" in watchdog.read()


@pytest.mark.parametrize("silence", ["no tag", "no metadata"])
def test_it_ends_an_instance_of_which_nobody_knows(metadata: Metadata, start: Any, silence: str) -> None:
    metadata.is_silent = silence == "no metadata"
    watchdog = start(silent=2, longest=10**9)
    wait_until(lambda: watchdog.has_ended_the_instance, what="the end", seconds=20)


def test_it_ends_the_instance_at_the_time_in_its_tag(metadata: Metadata, start: Any) -> None:
    metadata.tags |= {"crpbot-seconds": "5", "crpbot-heard": "1"}
    watchdog = start(silent=3600)
    time.sleep(2)
    assert not watchdog.has_ended_the_instance
    wait_until(lambda: watchdog.has_ended_the_instance, what="the end of its time", seconds=20)
    assert "its time of 5 seconds is over" in watchdog.read()


def test_the_time_before_the_system_started_counts(metadata: Metadata, start: Any) -> None:
    metadata.pending_at -= timedelta(seconds=300)
    metadata.tags |= {"crpbot-seconds": "240", "crpbot-heard": "1"}
    watchdog = start(silent=3600)
    wait_until(lambda: watchdog.has_ended_the_instance, what="the end", seconds=20)


@pytest.mark.parametrize("tag", ["", "soon", "99999999", "-1", "1; touch /tmp/x"])
def test_a_tag_that_is_no_shorter_time_changes_nothing(metadata: Metadata, start: Any, tag: str) -> None:
    metadata.tags |= {"crpbot-seconds": tag, "crpbot-heard": "1"}
    watchdog = start(silent=3600, longest=3600)
    time.sleep(2.5)
    assert not watchdog.has_ended_the_instance
    assert watchdog.read() == ""


def test_an_end_that_fails_is_tried_again(metadata: Metadata, start: Any, tmp_path: Path) -> None:
    metadata.tags["crpbot-seconds"] = "1"
    watchdog = start(silent=3600)
    wait_until(lambda: watchdog.has_ended_the_instance, what="the first try", seconds=20)
    watchdog.ended.unlink()
    wait_until(lambda: watchdog.has_ended_the_instance, what="the second try", seconds=20)
