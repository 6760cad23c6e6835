"""Stored bytes are named by their content, appear whole or not at all, and damage shows."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from mlcore.bundle import format as bundles
from tests import factories, processes
from training import artifact_store, worker
from training.artifact_store import FileLost, StoreUnavailable

pytestmark = pytest.mark.slow

DATA = b"some bytes of a bundle"
SHA256 = hashlib.sha256(DATA).hexdigest()


class TestAStore:
    """On a folder and on S3 alike."""

    @pytest.fixture(params=["a folder", "S3"], autouse=True)
    def kind(self, request: pytest.FixtureRequest) -> str:
        if request.param == "S3":
            request.getfixturevalue("bucket")
        return str(request.param)

    def test_gives_back_what_it_was_given_under_its_hash(self) -> None:
        assert artifact_store.store(DATA) == SHA256
        assert artifact_store.read(SHA256) == DATA
        assert artifact_store.is_intact(SHA256, len(DATA))
        with artifact_store.open_stream(SHA256) as stream:
            assert stream.read() == DATA

    def test_keeps_one_copy_of_the_same_bytes(self) -> None:
        assert artifact_store.store(DATA) == artifact_store.store(DATA)
        assert artifact_store.read(SHA256) == DATA

    def test_tells_missing_bytes(self) -> None:
        assert not artifact_store.is_intact(SHA256, len(DATA))
        with pytest.raises(FileLost, match=f"{SHA256} is missing"):
            artifact_store.read(SHA256)
        with pytest.raises(FileLost, match="missing"):
            artifact_store.open_stream(SHA256)

    def test_tells_damaged_bytes_and_is_mended_by_storing_them_again(self) -> None:
        artifact_store.store(DATA)
        overwrite(DATA.replace(b"bundle", b"bungle"))
        assert not artifact_store.is_intact(SHA256, len(DATA))
        with pytest.raises(FileLost, match="damaged"):
            artifact_store.read(SHA256)
        artifact_store.store(DATA)
        assert artifact_store.read(SHA256) == DATA

    def test_is_not_fooled_by_a_wrong_size(self) -> None:
        artifact_store.store(DATA)
        assert not artifact_store.is_intact(SHA256, len(DATA) + 1)

    @pytest.mark.django_db
    def test_holds_datasets(self) -> None:
        dataset = factories.market(bars=200)
        assert artifact_store.read_candles(dataset).height == 200

    def test_holds_checkpoints_until_they_are_dropped(self) -> None:
        checkpoint = artifact_store.store_checkpoint(5, 2, 7, b"state")
        assert checkpoint == "checkpoints/run-5/2-7"
        assert artifact_store.read_checkpoint(checkpoint) == b"state"
        artifact_store.delete_checkpoint(checkpoint)
        artifact_store.delete_checkpoint(checkpoint)
        with pytest.raises(FileLost, match="run-5/2-7"):
            artifact_store.read_checkpoint(checkpoint)


def overwrite(data: bytes) -> None:
    from django.core.files.base import ContentFile
    from django.core.files.storage import default_storage

    default_storage.save(artifact_store.key(SHA256), ContentFile(data))


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str, settings: Any, request: pytest.FixtureRequest) -> Any:
    """The production profile's own store, as crpbot.settings makes it from the environment."""
    name = f"bucket-{abs(hash(request.node.name))}"
    environment = {
        **os.environ,
        "CRPBOT_S3_BUCKET": name,
        "CRPBOT_S3_ACCESS_KEY": "test",
        "CRPBOT_S3_SECRET_KEY": "test",
        "CRPBOT_S3_ENDPOINT": s3_endpoint,
        "CRPBOT_S3_REGION": "us-east-1",
    }
    script = "import json; from crpbot import settings; print(json.dumps(settings.STORAGES['default']))"
    answer = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=processes.REPOSITORY,
        capture_output=True,
        check=True,
    )
    settings.STORAGES = {**settings.STORAGES, "default": json.loads(answer.stdout)}
    session = boto3.session.Session("test", "test", region_name="us-east-1")
    made = session.resource("s3", endpoint_url=s3_endpoint).Bucket(name)
    made.create()
    return made


def test_a_run_trained_on_s3_leaves_its_bundle_there_and_no_checkpoint(
    bucket: Any, committed: None, tmp_path: Path
) -> None:
    run = worker.train(factories.run(factories.market()).pk, worker_name="here@test", device="cpu")
    assert run is not None
    assert run.bundle is not None
    kept = {stored.key for stored in bucket.objects.all()}
    wanted = {artifact_store.key(artifact.sha256) for artifact in run.bundle.artifacts.all()}
    assert kept == wanted | {artifact_store.key(run.dataset.digest.removeprefix("sha256:"))}
    factories.bundle_folder(run.bundle, tmp_path)
    assert bundles.verify(tmp_path, run.bundle.digest)


def test_an_s3_that_is_away_is_said_so_and_not_taken_for_lost_files(bucket: Any, settings: Any) -> None:
    options = {**settings.STORAGES["default"]["OPTIONS"], "endpoint_url": "http://127.0.0.1:9"}
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options},
    }
    with pytest.raises(StoreUnavailable, match="does not answer"):
        artifact_store.read(SHA256)
    with pytest.raises(StoreUnavailable):
        artifact_store.is_intact(SHA256, len(DATA))


def test_an_object_changed_in_s3_is_not_opened(bucket: Any) -> None:
    artifact_store.store(DATA)
    with artifact_store.open_verified(SHA256, len(DATA)) as stream:
        assert stream.read() == DATA
    bucket.Object(artifact_store.key(SHA256)).put(Body=DATA[:-1] + b"?")
    with pytest.raises(FileLost, match="damaged"):
        artifact_store.open_verified(SHA256, len(DATA))


def test_a_folder_without_room_is_said_so(store: Path) -> None:
    store.parent.mkdir(exist_ok=True)
    store.write_text("a file where the folder should be")
    with pytest.raises(StoreUnavailable):
        artifact_store.store(DATA)


WRITER = """
import os, sys, django
from django.conf import settings
settings.configure(STORAGES={"default": {"BACKEND": "training.atomic_storage.AtomicFileStorage",
                                         "OPTIONS": {"location": sys.argv[1]}}})
django.setup()
from django.core.files.base import File
from django.core.files.storage import default_storage

class Endless(File):
    def chunks(self, chunk_size=None):
        while True:
            yield b"x" * 65536
            print("writing", flush=True)

default_storage.save("sha256/ab/abc", Endless(None, "abc"))
"""


def test_a_writer_killed_in_the_middle_leaves_no_file_under_the_name(store: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store)], stdout=subprocess.PIPE, cwd=processes.REPOSITORY
    )
    with writer:
        assert writer.stdout is not None
        for _ in range(3):
            assert writer.stdout.readline() == b"writing\n"
        writer.send_signal(signal.SIGKILL)
    assert not (store / "sha256/ab/abc").exists()
    drafts = list((store / "sha256/ab").iterdir())
    assert [draft.name.startswith(".draft-") for draft in drafts] == [True]
