"""What is old and named by nothing is deleted, from the database and from the file store; all else stays."""

import hashlib
import os
import time
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import boto3
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.utils import timezone
from moto.server import ThreadedMotoServer

from accounts.models import Session
from crpbot import celery
from deploy import prune
from deploy.models import LiveWindow
from tests import factories, scenarios
from tests.api.callers import with_token
from training import artifact_store
from training.artifact_store import StoreUnavailable
from training.models import Artifact, RunLine, TrainingRun
from training.rules import JobState

pytestmark = pytest.mark.django_db
OLD_SECONDS = 8 * 86_400


@pytest.fixture(autouse=True)
def own_store(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {**settings.STORAGES["default"], "OPTIONS": {"location": tmp_path / "files"}},
    }
    monkeypatch.setattr(prune, "_last_share", -1)
    return tmp_path / "files"


def make_old(name: str) -> None:
    then = time.time() - OLD_SECONDS
    os.utime(default_storage.path(name), (then, then))


def put(content: bytes, *, is_old: bool = True) -> str:
    """A stored file that no row names."""
    name = artifact_store.key(hashlib.sha256(content).hexdigest())
    default_storage.save(name, ContentFile(content))
    if is_old:
        make_old(name)
    return name


def run_command() -> str:
    out = StringIO()
    call_command("prune", stdout=out)
    return out.getvalue()


def test_a_file_that_no_row_names_is_deleted_after_a_week() -> None:
    dataset = factories.market()
    bundle = factories.bundle(dataset)
    named = put(b"of a bundle")
    Artifact.objects.create(bundle=bundle, name="model.onnx", sha256=named[-64:], size=11)
    of_dataset = artifact_store.key(dataset.digest.removeprefix("sha256:"))
    make_old(of_dataset)
    orphan, young = put(b"of nobody"), put(b"of an upload", is_old=False)
    baseline = "baselines/of-a-candidate"
    default_storage.save(baseline, ContentFile(b"v5"))
    make_old(baseline)
    assert "files: 1 deleted" in run_command()
    assert not default_storage.exists(orphan)
    assert all(default_storage.exists(name) for name in (named, of_dataset, young, baseline))


def test_storing_an_old_file_again_keeps_it_from_being_deleted() -> None:
    """Its row is written after it: nothing may delete it between."""
    name = put(b"candles")
    artifact_store.store(b"candles")
    assert "files: 0 deleted" in run_command()
    assert default_storage.exists(name)


@pytest.mark.parametrize(
    ("state", "is_current", "stays"),
    [
        (JobState.RUNNING, True, True),
        (JobState.QUEUED, True, True),
        (JobState.RUNNING, False, False),
        (JobState.FAILED, True, False),
        (JobState.SUCCEEDED, True, False),
    ],
    ids=["of a run", "of a run that waits", "of a killed attempt", "of a failed run", "of a run that ended"],
)
def test_a_checkpoint_stays_as_long_as_its_run_needs_it(state: str, is_current: bool, stays: bool) -> None:
    run = factories.run(factories.market())
    name = artifact_store.store_checkpoint(run.pk, 1, 3, b"state")
    make_old(name)
    TrainingRun.objects.filter(pk=run.pk).update(state=state, checkpoint=name if is_current else "another")
    run_command()
    assert default_storage.exists(name) == stays


def test_a_checkpoint_of_no_run_is_deleted_and_a_young_one_stays() -> None:
    gone, young = (artifact_store.store_checkpoint(999, 1, epoch, b"state") for epoch in (1, 2))
    make_old(gone)
    run_command()
    assert not default_storage.exists(gone)
    assert default_storage.exists(young)


def test_reconcile_looks_at_one_share_of_the_store_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    monkeypatch.setattr(prune, "_prune_files", lambda share: looked_at.append(share) or 0)  # type: ignore[func-returns-value]
    now = 1_000 * 86_400.0
    for later in (0.0, 2.0, 100.0, prune.SHARE_SECONDS, 2 * prune.SHARE_SECONDS):
        monkeypatch.setattr("deploy.prune.time.time", lambda later=later: now + later)
        prune.prune()
    first = looked_at[0]
    assert looked_at == [first, first + 1, first + 2]
    assert prune.SHARES * prune.SHARE_SECONDS == 86_400


def test_a_store_that_is_away_stops_no_pass_and_fails_the_command(settings: Any, tmp_path: Path) -> None:
    Session.objects.create(session_key="old", session_data="", expire_date=timezone.now() - timedelta(days=1))
    nowhere = tmp_path / "nowhere"
    nowhere.write_text("no folder")
    options = {**settings.STORAGES["default"], "OPTIONS": {"location": nowhere}}
    settings.STORAGES = {**settings.STORAGES, "default": options}
    assert prune.prune() == 1
    with pytest.raises(SystemExit):
        call_command("prune", stderr=StringIO())


@pytest.mark.slow
@pytest.mark.long
def test_an_s3_store_is_pruned_as_a_folder_is(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {
            "endpoint_url": f"http://{host}:{port}",
            "region_name": "us-east-1",
            "bucket_name": "files",
        }
        options |= {"access_key": "access", "secret_key": "secret"}
        settings.STORAGES = {
            **settings.STORAGES,
            "default": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options},
        }
        with pytest.raises(StoreUnavailable):
            prune.prune_all()
        session = boto3.session.Session("access", "secret", region_name="us-east-1")
        session.resource("s3", endpoint_url=options["endpoint_url"]).create_bucket(Bucket="files")
        name = artifact_store.key(artifact_store.store(b"of nobody"))
        artifact_store.store_checkpoint(7, 1, 1, b"state")
        assert prune.prune_all()["files"] == 0
        monkeypatch.setattr(prune, "UNNAMED_FOR", timedelta(seconds=-60))
        assert prune.prune_all()["files"] == 2
        assert not default_storage.exists(name)
    finally:
        server.stop()


def test_the_command_deletes_all_that_is_old_however_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "MAX_ROWS", 2)
    run = factories.run(factories.market())
    old = timezone.now() - timedelta(days=400)
    TrainingRun.objects.filter(pk=run.pk).update(finished_at=old)
    RunLine.objects.bulk_create(RunLine(run=run, attempt=1, text=f"epoch {epoch}") for epoch in range(5))
    RunLine.objects.update(at=old)
    assert "log lines: 5 deleted" in run_command()
    assert not RunLine.objects.exists()


def test_old_live_windows_are_deleted_with_the_rest(settings: Any) -> None:
    move = scenarios.service_in_use()
    bot = with_token(factories.person("desk"), "bot")
    assert bot.post("bots/heartbeat/", scenarios.heartbeat_fields(move)).status_code == 200
    assert bot.post("bots/windows/", scenarios.live_window(move)).status_code == 201
    assert prune.prune_rows()["live windows"] == 0
    settings.BOT_KEPT_SECONDS = -60
    assert prune.prune_rows()["live windows"] == 1
    assert not LiveWindow.objects.exists()


def test_celery_keeps_no_results_that_could_grow_old() -> None:
    """The state of a job is its row; a message is only a hint (rule 19, docs/rules.md#19)."""
    configuration = celery.build_configuration()
    assert configuration["task_ignore_result"] is True
    assert "result_backend" not in configuration
