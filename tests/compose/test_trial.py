"""The parts of `make compose-trial` that need no container engine."""

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.compose import next_version
from tests.compose.engine import REPOSITORY
from tests.compose.errors import TrialFailed
from tests.compose.images import object_store
from tests.compose.machine import write_lock_of
from tests.compose.report import Report, Run, keep, write_page
from tests.compose.service import SERVICES
from tests.compose.stand_ins import IMAGES, STAND_INS
from tests.compose.upgrade import SCALED, build_add
from tests.loopback import answers, free_port
from tests.processes import wait_until
from training.jobs.confinement import die_with_parent

COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]


def test_every_container_that_lasts_is_killed() -> None:
    lasting = {
        name
        for name, service in COMPOSE.items()
        if service["restart"] == "unless-stopped" and "gpu" not in service.get("profiles", [])
    }
    assert set(SERVICES) == lasting


def test_every_image_that_would_be_pulled_has_a_stand_in() -> None:
    pulled = {service["image"].split(":")[0] for service in COMPOSE.values() if "build" not in service}
    assert set(STAND_INS) == pulled
    assert all((IMAGES / f"{name}.Dockerfile").is_file() for name in (*STAND_INS.values(), "python"))


def test_the_stand_in_of_the_storage_is_installed_from_the_lock(tmp_path: Path) -> None:
    write_lock_of("moto", "server", tmp_path / "moto.txt")
    entries = re.findall(r"^([\w.-]+)==", (tmp_path / "moto.txt").read_text(), re.MULTILINE)
    assert {"moto", "boto3", "flask", "werkzeug"} <= set(entries)
    assert not {"torch", "django"} & set(entries)
    assert "--hash=sha256:" in (tmp_path / "moto.txt").read_text()


def test_a_failed_step_ends_the_trial_and_is_no_row(tmp_path: Path) -> None:
    report = Report()
    with report.step("one that works") as note:
        note("it answered")
    with pytest.raises(TrialFailed), report.step("one that fails"):
        raise TrialFailed("no answer")
    runs = keep(report.build_run("a machine", "today"), tmp_path / "runs.json")
    write_page(tmp_path / "page.md", "# The trial\n", runs)
    rows = [line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith("| 1 ")]
    assert re.fullmatch(r"\| 1 \| one that works \| \d+\.\d \| it answered \|", rows[0])
    assert "one that fails" not in (tmp_path / "page.md").read_text()


def test_the_page_has_the_times_of_the_last_two_runs_with_the_same_steps(tmp_path: Path) -> None:
    def run(seconds: float, *names: str) -> Run:
        steps = [{"name": name, "seconds": seconds, "seen": f"seen {seconds}"} for name in names]
        return {"began_at": "today", "machine": "a machine", "load": 3, "steps": steps}

    for done in (run(1, "one"), run(2, "one", "two"), run(3, "one", "two")):
        runs = keep(done, tmp_path / "runs.json")
    write_page(tmp_path / "page.md", "# The trial\n", runs)
    assert "| 2 | two | 2.0 | 3.0 | seen 3 |" in (tmp_path / "page.md").read_text()
    write_page(tmp_path / "page.md", "# The trial\n", keep(run(4, "one"), tmp_path / "runs.json"))
    assert "| 1 | one | 4.0 | seen 4 |" in (tmp_path / "page.md").read_text()


def test_the_commands_of_the_upgrade_page_are_those_of_the_trial() -> None:
    page = (REPOSITORY / "docs" / "operations" / "upgrade.md").read_text()
    commands = [shlex.split(line) for line in re.findall(r"^ {4,}docker compose (.+)$", page, re.MULTILINE)]
    counts = {name: COMPOSE[name].get("deploy", {}).get("replicas", 1) for name in SCALED}
    assert counts["web"] == "${CRPBOT_WEB_REPLICAS:-2}"
    assert build_add({**counts, "web": 2}) in commands
    assert ["run", "--rm", "migrate"] in commands
    assert ["ps", "--quiet", *SCALED] in commands
    managed = [words[words.index("manage.py") + 1] for words in commands if "manage.py" in words]
    assert managed == ["bots", "verify_audit"]


@pytest.mark.slow
def test_the_next_version_has_an_expand_migration_of_each_changed_app(tmp_path: Path) -> None:
    next_version.write(tmp_path / "next")
    added = sorted(
        path.relative_to(tmp_path / "next") for path in (tmp_path / "next").glob("*/migrations/0002*")
    )
    assert [str(path) for path in added] == [
        f"{app}/migrations/0002_added.py" for app in next_version.MIGRATED
    ]
    for path in added:
        operations = re.findall(r"migrations\.(\w+)\(", (tmp_path / "next" / path).read_text())
        assert set(operations) == {"AddField"}


@pytest.mark.processes
def test_what_the_stand_in_of_the_storage_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    port = free_port()
    keys = tmp_path / "s3.json"
    keys.write_text(
        json.dumps({"identities": [{"credentials": [{"accessKey": "one", "secretKey": "secret"}]}]})
    )
    with storage(tmp_path, keys, port):
        store = connect(port, "one")
        store.create_bucket(Bucket="crpbot")
        store.put_object(Bucket="crpbot", Key="a/ b", Body=b"\x00first")
        store.put_object(Bucket="crpbot", Key="a/ b", Body=b"\x00second")
        store.put_object(Bucket="crpbot", Key="gone", Body=b"1")
        store.delete_object(Bucket="crpbot", Key="gone")
    with storage(tmp_path, keys, port):
        store = connect(port, "one")
        assert store.get_object(Bucket="crpbot", Key="a/ b")["Body"].read() == b"\x00second"
        assert [each["Key"] for each in store.list_objects_v2(Bucket="crpbot")["Contents"]] == ["a/ b"]
        with pytest.raises(ClientError):
            connect(port, "another").list_objects_v2(Bucket="crpbot")


def connect(port: int, key: str):  # type: ignore[no-untyped-def]
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=key,
        aws_secret_access_key="secret",
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )


@contextmanager
def storage(folder: Path, keys: Path, port: int) -> Iterator[None]:
    """The stand-in with SeaweedFS' options; killed at the end."""
    command = [
        sys.executable,
        str(object_store.__file__),
        "server",
        f"-dir={folder}",
        "-s3",
        f"-s3.config={keys}",
    ]
    command += ["-master.volumeSizeLimitMB=1024", f"-s3.port={port}"]
    with subprocess.Popen(command, preexec_fn=die_with_parent, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), what="the stand-in answers")
            yield
        finally:
            process.send_signal(signal.SIGKILL)
