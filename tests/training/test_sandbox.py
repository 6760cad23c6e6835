"""The sandbox: code in it reaches no secret, no other process and no network, and it ends when nobody waits for it."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings as django_settings

from common import deadlines
from crpbot.checks import check_sandbox
from tests.processes import wait_until
from tests.training import sandbox_probe
from training.jobs import sandbox
from training.jobs.confinement import Layer

pytestmark = pytest.mark.slow

PROBE = Path(sandbox_probe.__file__)
ENDLESS = "while True: pass"
IS_ROOT = os.geteuid() == 0
USERS = ("another", "same") if IS_ROOT else ("same",)
REFUSED = ("PermissionError", "BlockingIOError", "FileNotFoundError", "OSError", "ValueError")


def start_parent(
    folder: Path, script: str, *, user: str = USERS[0], seconds: float = 60
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.sandbox_parent", str(folder), script, user, str(seconds)],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "CRPBOT_S3_SECRET_KEY": "hush"},
        cwd=django_settings.BASE_DIR,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module", params=USERS)
def outcome(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What the probe found, run by a process of the service with secrets around it."""
    base = tmp_path_factory.mktemp("sandbox")
    folder, state = base / "folder", base / "state"
    folder.mkdir()
    state.mkdir()
    names = {"secret_key": "secret_key", "signing_key": "key.pem", "database": "gate.sqlite3"}
    for name in names.values():
        (state / name).write_text("hush")
    with socket.socket(socket.AF_UNIX) as redis, socket.create_server(("127.0.0.1", 0)) as server:
        redis.bind(str(state / "redis.sock"))
        redis.listen()
        targets = {
            **{key: str(state / name) for key, name in names.items()},
            "redis": str(state / "redis.sock"),
            "port": server.getsockname()[1],
            "outside": str(base),
            "settings": str(Path(django_settings.BASE_DIR) / "crpbot" / "settings.py"),
        }
        (folder / "targets.json").write_text(json.dumps(targets))
        shutil.copy(PROBE, folder)
        with start_parent(folder, PROBE.name, user=request.param) as parent:
            _, errors = parent.communicate(timeout=120)
        assert parent.returncode == 0, errors
    found = json.loads((folder / "outcome.json").read_text())
    assert all((state / name).read_text() == "hush" for name in names.values())
    yield {**found, "as": request.param, "owner": (folder / "outcome.json").stat().st_uid}


@pytest.mark.parametrize("attempt", sandbox_probe.ATTEMPTS)
def test_code_in_the_sandbox_is_refused(outcome: dict[str, Any], attempt: str) -> None:
    assert outcome["attempts"][attempt].startswith(REFUSED), outcome["attempts"][attempt]


def test_the_sandbox_inherits_no_file_and_no_secret(outcome: dict[str, Any]) -> None:
    # Standard input and output, the script, and what the profiler itself has opened.
    assert [number for number in outcome["open files"] if number > 4] == []
    assert "hush" not in json.dumps(outcome["environment"])
    assert not [name for name in outcome["environment"] if name.startswith(("CRPBOT", "DJANGO"))]
    assert (outcome["owner"] != os.geteuid()) is (outcome["as"] == "another")


def test_this_machine_has_every_layer_that_the_documents_promise() -> None:
    """Fails where a layer is missing, so that nobody takes the tests above for more than they show."""
    layers = sandbox.find_layers()
    assert layers >= {Layer.CAPABILITIES, Layer.FILES, Layer.SYSTEM_CALLS}
    assert (Layer.USER in layers) is IS_ROOT


@pytest.mark.parametrize("missing", sorted(sandbox.ESSENTIAL))
def test_production_reads_nothing_without_an_essential_layer(missing: Layer, settings: Any) -> None:
    weak = frozenset(Layer) - {missing}
    settings.ALLOW_WEAK_SANDBOX = False
    with pytest.raises(sandbox.SandboxTooWeak, match=f"lacks {missing} on this machine"):
        sandbox.require_strong(weak)
    settings.ALLOW_WEAK_SANDBOX = True
    sandbox.require_strong(weak)


@pytest.mark.parametrize(("is_allowed", "level"), [(False, "E003"), (True, "W003")])
def test_the_check_at_the_start_names_a_missing_layer(
    settings: Any, monkeypatch: pytest.MonkeyPatch, is_allowed: bool, level: str
) -> None:
    settings.ALLOW_WEAK_SANDBOX = is_allowed
    assert check_sandbox() == []
    monkeypatch.setattr(sandbox, "find_layers", lambda: frozenset({Layer.USER}))  # another machine
    (message,) = check_sandbox()
    assert message.id == f"crpbot.{level}"
    assert message.msg == "The sandbox lacks files and system calls on this machine."


def sandboxes(of: int | None = None) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(of).children() if "cProfile" in _command(child)]
    return []


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.cmdline()
    return []


def run_script(folder: Path, source: str, **bounds: Any) -> None:
    (folder / "script.py").write_text(source)
    sandbox.run_module("cProfile", ["-o", "profile", "script.py"], folder=folder, **{"seconds": 60, **bounds})


def test_a_module_that_does_not_end_is_stopped_at_its_deadline(tmp_path: Path) -> None:
    with pytest.raises(sandbox.ProcessTimedOut, match="longer than 1 s"):
        run_script(tmp_path, ENDLESS, seconds=1)
    assert sandboxes() == []


def test_it_ends_when_its_client_disconnects(tmp_path: Path) -> None:
    left = threading.Event()
    token = deadlines.client_left.set(left)

    def leave() -> None:
        wait_until(sandboxes, what="the sandbox runs")
        left.set()

    other = threading.Thread(target=leave)
    other.start()
    try:
        with pytest.raises(sandbox.ProcessTimedOut, match="its client waited"):
            run_script(tmp_path, ENDLESS)
    finally:
        other.join()
        deadlines.client_left.reset(token)
    assert sandboxes() == []


@pytest.mark.parametrize("user", USERS)
def test_it_ends_with_the_process_that_started_it(tmp_path: Path, user: str) -> None:
    (tmp_path / "script.py").write_text(ENDLESS)
    with start_parent(tmp_path, "script.py", user=user) as parent:
        (child,) = wait_until(lambda: sandboxes(parent.pid), what="the sandbox runs")
        wait_until(lambda: child.cpu_times().user > 0.2, what="the script runs")
        parent.kill()
    wait_until(lambda: has_ended(child), what="the sandbox ended", seconds=30)


def has_ended(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def test_a_module_that_writes_without_end_is_stopped(tmp_path: Path) -> None:
    source = "n = 0\nwhile True:\n    n += 1\n    open(f'left-{n}', 'wb').write(bytes(2**20))"
    with pytest.raises(sandbox.ProcessFailed, match="wrote more than 8,388,608 bytes"):
        run_script(tmp_path, source, output_bytes=8 * 2**20)


def test_a_module_that_fills_the_disk_with_deleted_files_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in no folder that could be measured."""
    monkeypatch.setattr(sandbox, "SPARE_BYTES", shutil.disk_usage(tmp_path).free - 2**26)
    source = (
        "import os, time\nheld = []\nfor n in range(20):\n    held.append(open(f'left-{n}', 'wb'))\n"
        "    os.unlink(f'left-{n}')\n    held[-1].write(bytes(2**24))\n    held[-1].flush()\ntime.sleep(30)"
    )
    with pytest.raises(sandbox.ProcessFailed, match="of the disk are free"):
        run_script(tmp_path, source, output_bytes=8 * 2**20)


def test_a_module_that_asks_for_too_much_memory_is_refused_it(tmp_path: Path) -> None:
    with pytest.raises(sandbox.ProcessFailed, match="MemoryError"):
        run_script(tmp_path, "bytearray(2**30)", private_bytes=2**29)


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_what_is_no_plain_file_is_not_accepted_from_it(tmp_path: Path, kind: str) -> None:
    """Code in it can make none of them; the check does not depend on that."""
    secret, folder = tmp_path / "secret", tmp_path / "folder"
    secret.write_text("hush")
    folder.mkdir()
    left = folder / "answer.json"
    {
        "link": lambda: left.symlink_to(secret),
        "hard link": lambda: left.hardlink_to(secret),
        "pipe": lambda: os.mkfifo(left),
    }[kind]()
    with pytest.raises(sandbox.ProcessFailed, match=r"'answer.json', which is not a plain file"):
        run_script(folder, "pass")


@pytest.mark.parametrize("kind", ["link", "pipe", "nothing", "too large"])
def test_an_answer_is_read_from_a_plain_file_of_limited_size(tmp_path: Path, kind: str) -> None:
    answer = tmp_path / "answer.json"
    if kind == "link":
        (tmp_path / "secret").write_text("hush")
        answer.symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(answer)
    elif kind == "too large":
        answer.write_bytes(bytes(11))
    with pytest.raises(sandbox.ProcessFailed, match=r"left no usable answer.json"):
        sandbox.read_output(answer, 10)


def test_only_so_many_run_at_a_time_and_the_others_are_told_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "WAIT_SECONDS", 0.2)
    left = threading.Event()

    def occupy(number: int) -> None:
        deadlines.client_left.set(left)
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(sandbox.ProcessTimedOut):
            run_script(folder, ENDLESS)

    threads = [threading.Thread(target=occupy, args=(number,)) for number in range(sandbox.RUNNING_AT_ONCE)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(sandboxes()) == sandbox.RUNNING_AT_ONCE, what="all places are taken")
        with pytest.raises(sandbox.SandboxBusy, match="Try again") as busy:
            run_script(tmp_path, "pass")
        assert busy.value.status == 503
    finally:
        left.set()
        for thread in threads:
            thread.join()
    run_script(tmp_path, "pass")
