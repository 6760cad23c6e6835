"""`manage.py backup`: what is written comes back whole, into either database, or nothing does."""

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import boto3
import pyrage
import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command
from moto.server import ThreadedMotoServer

from audit import heads, triggers
from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict, NotFound, Unavailable
from crpbot.backup import create, restore, retention, rows, seal, store
from crpbot.backup.seal import Access
from crpbot.backup.store import Manifest
from deploy.alarms.detect import list_alarms
from deploy.models import BackupTask, PointerMove, Release, ServiceIdentity
from deploy.pointer import pointer, proof
from deploy.releases import decide
from deploy.rules import AlarmName, BackupKind
from deploy.serving.advance import advance_revision
from tests import factories
from tests.processes import REPOSITORY, environment
from tests.scenarios import APPROVER
from training import artifact_store
from training.models import Dataset

pytestmark = [pytest.mark.postgresql, pytest.mark.slow, pytest.mark.usefixtures("committed", "folders")]


def lose_everything() -> None:
    """A new database, and an empty file store."""
    triggers.drop()
    call_command("flush", interactive=False, verbosity=0)
    shutil.rmtree(default_storage.path(""), ignore_errors=True)


def lose_a_dataset() -> str:
    """Its sha256. The service's own copy becomes other bytes."""
    lost = Dataset.objects.order_by("pk")[0].digest.removeprefix("sha256:")
    Path(default_storage.path(artifact_store.key(lost))).write_bytes(b"other bytes")
    return lost


def read_rows() -> dict[str, list[str]]:
    """Every row by its table, as a backup has it."""
    file = BytesIO()
    with rows.consistent_reading():
        rows.dump(file)
    lines = gzip.decompress(file.getvalue()).decode().splitlines()
    by_model: dict[str, list[str]] = {}
    for line in lines:
        by_model.setdefault(json.loads(line)["model"], []).append(line)
    return by_model


def rewrite(manifest: Manifest, old: str, new: str) -> None:
    """Change the rows of a backup, and its manifest with them, as somebody with the key that signs could do."""
    content = gzip.decompress(store.read(f"{store.FOLDER}/{manifest.name}/{store.ROWS}")).decode()
    assert old in content
    changed = gzip.compress(content.replace(old, new).encode())
    store.save(f"{store.FOLDER}/{manifest.name}/{store.ROWS}", ContentFile(changed))
    store.write_manifest(replace(manifest, rows_sha256=hashlib.sha256(changed).hexdigest()))


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("backup", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def test_every_row_and_file_comes_back_as_it_was(service: PointerMove) -> None:
    before = read_rows()
    manifest = create.create_backup()
    assert manifest.revision == service.revision
    assert manifest.head.seq == max(json.loads(line)["pk"] for line in before["audit.auditevent"])
    lose_everything()
    restored = restore.restore_backup()
    assert restored.manifest == manifest
    assert restored.files == len(manifest.files) > 0
    after = read_rows()
    # Since the backup: that it was restored.
    assert AuditEvent.objects.latest("seq").kind == "backup.restored"
    changed = {"audit.auditevent", "audit.audithead", "deploy.backupjournal"}  # the journal goes on from here
    assert {model: lines for model, lines in after.items() if model not in changed} == {
        model: lines for model, lines in before.items() if model not in changed
    }
    assert after["audit.auditevent"][:-1] == before["audit.auditevent"]
    assert audit.verify() == []
    assert triggers.find_missing() == []
    assert pointer.get_current() == service


@pytest.mark.long
def test_a_bucket_holds_backups_as_a_folder_does(service: PointerMove, settings: Any) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
        options |= {"access_key": "access", "secret_key": "secret", "bucket_name": "backups"}
        s3 = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
        settings.STORAGES = {**settings.STORAGES, "backups": s3}
        with pytest.raises(Unavailable, match="CRPBOT_BACKUP_BUCKET"):
            create.create_backup()
        session = boto3.session.Session("access", "secret", region_name="us-east-1")
        session.resource("s3", endpoint_url=options["endpoint_url"]).create_bucket(Bucket="backups")
        first = create.create_backup()
        time.sleep(1)
        second = create.create_backup()
        assert store.list_names() == [first.name, second.name]
        assert list(store.find_damage(second)) == []
        settings.BACKUP_KEEP = [1, 0, 0]
        assert retention.prune() == [first.name]
        lose_everything()
        assert restore.restore_backup().manifest == second
    finally:
        server.stop()


def test_the_restored_service_goes_on(service: PointerMove) -> None:
    create.create_backup()
    lose_everything()
    restore.restore_backup()
    factories.person("new", "viewer")  # its key is a new one
    assert decide.pin(actor=APPROVER, reason="the drill").revision == service.revision + 1
    assert Release.objects.count() == 2
    assert audit.verify() == []


def test_accounts_and_tokens_are_listed_for_a_decision(service: PointerMove) -> None:
    run("create")
    lose_everything()
    answer = run("restore")
    assert "account anna: approver" in answer
    assert "of desk: for a test (bot)" in answer
    assert "The audit chain is sound" in answer


def test_a_file_that_the_service_lost_is_named_and_the_rest_is_saved(service: PointerMove) -> None:
    lost = lose_a_dataset()
    with pytest.raises(SystemExit):
        run("create")
    manifest = store.read_manifest()
    assert lost in manifest.lost
    assert lost not in manifest.files
    assert list(store.find_damage(manifest)) == []


def test_what_an_earlier_backup_holds_of_a_lost_file_is_kept(
    service: PointerMove, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    create.create_backup()
    lost = lose_a_dataset()
    time.sleep(1)
    manifest = create.create_backup()
    assert manifest.lost == [lost]
    monkeypatch.setattr(retention, "UNUSED_FOR", timedelta(0))
    settings.BACKUP_KEEP = [1, 0, 0]
    retention.prune()
    assert list(store.find_damage(manifest)) == []
    lose_everything()
    restore.restore_backup()
    assert artifact_store.is_intact(lost, manifest.files[lost].size)


def test_a_file_that_was_damaged_among_the_backups_is_written_again(service: PointerMove) -> None:
    first = create.create_backup()
    (sha256, file), *_ = first.files.items()
    Path(store.get_storage().path(store.get_file_key(sha256))).write_bytes(bytes(file.size))
    time.sleep(1)
    second = create.create_backup()
    assert second.lost == []
    assert list(store.find_damage(second)) == []


def test_a_backup_that_cannot_be_read_back_is_none(
    service: PointerMove, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = create.create_backup()
    monkeypatch.setattr(create, "_is_sound", lambda file: False)
    time.sleep(1)
    with pytest.raises(Conflict, match="cannot be read back"):
        create.create_backup()
    assert store.list_names() == [first.name]
    assert len(store.list_unfinished()) == 1
    monkeypatch.setattr(retention, "UNUSED_FOR", timedelta(0))
    retention.prune()
    assert store.list_unfinished() == [] or not any(
        store.get_storage().exists(f"{store.FOLDER}/{name}/{store.ROWS}") for name in store.list_unfinished()
    )


def test_a_chain_that_went_on_after_the_backup_is_still_noticed(service: PointerMove, settings: Any) -> None:
    """The folder of the keys outlived the database: what was decided since is lost, and an approver has to say so."""
    create.create_backup()
    event = audit.record("role.granted", ServiceIdentity.objects.get(pk=1), actor="the tests")
    heads.keep(heads.KeptHead(ServiceIdentity.get_name(), event.seq, event.hash))
    lose_everything()
    restore.restore_backup()
    move = pointer.get_current()
    assert move is not None
    assert "was cut short" in (proof.find_forgery(move) or "")
    advance_revision(1, actor=APPROVER, reason="the database of last night")
    assert audit.verify(heads.read_own(Path(settings.AUDIT_HEADS_FILE))) == []


def test_a_database_that_is_in_use_is_never_overwritten(service: PointerMove) -> None:
    create.create_backup()
    with pytest.raises(Conflict, match="This database is in use: it holds 1 "):
        restore.restore_backup()
    assert pointer.get_current() == service


def test_a_damaged_backup_restores_nothing(service: PointerMove) -> None:
    manifest = create.create_backup()
    lose_everything()
    (sha256, file), *_ = manifest.files.items()
    path = Path(store.get_storage().path(store.get_file_key(sha256)))
    content = path.read_bytes()
    path.write_bytes(bytes(file.size))
    assert [text for text in store.find_damage(manifest) if sha256 in text]
    with pytest.raises(Conflict, match=sha256):
        restore.restore_backup()
    path.write_bytes(content)
    rows_path = Path(store.get_storage().path(f"{store.FOLDER}/{manifest.name}/{store.ROWS}"))
    rows_path.write_bytes(rows_path.read_bytes()[:-9])
    with pytest.raises(Conflict, match="damaged"):
        restore.restore_backup()
    assert not PointerMove.objects.exists()
    assert triggers.find_missing() == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("the last line that behaved", "mine", "not sound"),
        ('"model": "audit.auditevent","pk": 3,', '"model": "audit.auditevent","pk": 999,', "not sound"),
        ('"model": "accounts.user"', '"model": "accounts.nobody"', "cannot be loaded"),
    ],
    ids=["a changed reason", "a renumbered event", "an unknown table"],
)
def test_a_backup_that_somebody_changed_restores_nothing(
    service: PointerMove, old: str, new: str, reason: str
) -> None:
    rewrite(create.create_backup(), old, new)
    lose_everything()
    with pytest.raises(Conflict, match=reason):
        restore.restore_backup()
    assert not PointerMove.objects.exists()
    assert triggers.find_missing() == []


def test_a_manifest_that_another_key_signed_restores_nothing(service: PointerMove, tmp_path: Path) -> None:
    """Somebody who can write to the store of backups, without a key of the service, changes none."""
    create.create_backup()
    mine = seal.get_public_hex()
    path = Path(settings.SIGNING_KEYS_DIR) / seal.FILE_NAME
    kept = path.rename(tmp_path / "kept.pem")
    time.sleep(1)
    forged = create.create_backup()  # makes another key
    kept.replace(path)
    lose_everything()
    with pytest.raises(Conflict, match=r"cannot be trusted: It was not signed with the key"):
        restore.restore_backup(forged.name)
    with pytest.raises(SystemExit):
        run("verify", forged.name)
    assert not PointerMove.objects.exists()
    path.unlink()
    with pytest.raises(Unavailable, match="--public-key HEX"):
        restore.restore_backup(store.list_names()[0])
    run("restore", store.list_names()[0], "--public-key", mine)
    assert PointerMove.objects.exists()


def test_an_older_manifest_under_a_newer_name_restores_nothing(service: PointerMove) -> None:
    """It is signed, and names rows that are there: somebody who can write to the store would turn back the time."""
    old = create.create_backup()
    audit.record("bot.seen", ServiceIdentity.objects.get(pk=1), actor="a test")
    new = create.create_backup()
    assert new.name != old.name
    old_path, new_path = (
        Path(store.get_storage().path(f"{store.FOLDER}/{each.name}/{store.MANIFEST}")) for each in (old, new)
    )
    new_path.write_bytes(old_path.read_bytes())
    lose_everything()
    for name in ("", new.name):
        with pytest.raises(Conflict, match=f"{new.name} cannot be trusted: It is that of backup {old.name}"):
            restore.restore_backup(name)
    assert not PointerMove.objects.exists()


def test_rows_that_change_while_they_are_read_are_those_verified(service: PointerMove) -> None:
    manifest = create.create_backup()
    path = Path(store.get_storage().path(f"{store.FOLDER}/{manifest.name}/{store.ROWS}"))
    whole = path.read_bytes()
    with store.open_rows(manifest) as stream:
        with path.open("r+b") as file:
            file.write(bytes(len(whole)))
        assert stream.read() == whole


def test_an_encrypted_backup_comes_back_only_with_an_identity(
    service: PointerMove, settings: Any, tmp_path: Path
) -> None:
    """The service has the recipient only. Files are encrypted once, and shared as others are."""
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity.txt").write_text(f"# of the administrator\n{identity}\n")
    settings.BACKUP_RECIPIENTS = [str(identity.to_public())]
    before = read_rows()
    first = create.create_backup()
    stored = sorted(store.list_files())
    time.sleep(1)
    second = create.create_backup()
    assert sorted(store.list_files()) == stored, "a second backup encrypts no file again"
    assert second.files == first.files
    assert not set(stored) & first.files.keys(), "no name is the hash of a file's content"
    heads = [
        path.read_bytes()[:21]
        for path in settings.BACKUP_DIR.rglob("*")
        if path.suffix != ".json" and path.is_file()
    ]
    assert set(heads) == {b"age-encryption.org/v1"}
    assert list(store.find_damage(second)) == []
    lose_everything()
    with pytest.raises(Conflict, match="--identity FILE"):
        restore.restore_backup()
    other = tmp_path / "other.txt"
    other.write_text(str(pyrage.x25519.Identity.generate()))
    with pytest.raises(Conflict, match="one of its recipients"):
        restore.restore_backup(access=Access.build(identity_file=str(other)))
    assert not PointerMove.objects.exists()
    assert "The audit chain is sound" in run("restore", "--identity", str(tmp_path / "identity.txt"))
    assert read_rows()["deploy.pointermove"] == before["deploy.pointermove"]
    assert all(artifact_store.is_intact(sha256, file.size) for sha256, file in second.files.items())


def test_other_recipients_read_every_file_of_the_next_backup(service: PointerMove, settings: Any) -> None:
    plain = create.create_backup()
    settings.BACKUP_RECIPIENTS = [str(pyrage.x25519.Identity.generate().to_public())]
    time.sleep(1)
    encrypted = create.create_backup()
    stored = {file.stored_sha256 for file in encrypted.files.values()}
    assert encrypted.files.keys() == plain.files.keys()
    assert not stored & {file.stored_sha256 for file in plain.files.values()}
    assert list(store.find_damage(plain)) == []


def test_a_backup_of_another_version_says_which_one_restores_it(service: PointerMove) -> None:
    manifest = create.create_backup()
    store.write_manifest(replace(manifest, migrations=[*manifest.migrations, "deploy.0002_more"]))
    lose_everything()
    with pytest.raises(Conflict, match=r"deploy\.0002_more.*Restore it with that version"):
        restore.restore_backup()


def test_only_the_newest_are_kept_with_the_files_they_name(
    service: PointerMove, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    first = create.create_backup()
    extra = artifact_store.store(b"of no backup")
    store.save(store.get_file_key(extra), ContentFile(b"of no backup"))
    time.sleep(1)  # a backup's name has the second
    second = create.create_backup()
    settings.BACKUP_KEEP = []
    assert retention.prune() == []
    settings.BACKUP_KEEP = [1, 0, 0]
    assert run("prune") == f"Removed: {first.name}.\n"
    assert store.get_storage().exists(store.get_file_key(extra)), "another process may be about to name it"
    time.sleep(1)
    third = create.create_backup()
    monkeypatch.setattr(retention, "UNUSED_FOR", timedelta(0))
    assert retention.prune() == [second.name]
    assert store.list_names() == [third.name]
    assert not store.get_storage().exists(store.get_file_key(extra))
    assert list(store.find_damage(third)) == []


def test_what_somebody_adds_to_the_store_removes_no_backup(service: PointerMove, settings: Any) -> None:
    """Later names would be the newest of every day, week and month, and the service itself would delete its own."""
    manifest = create.create_backup()
    genuine = store.read(f"{store.FOLDER}/{manifest.name}/{store.MANIFEST}")
    forged = json.loads(genuine) | {"signatures": []}
    for name, content in {
        "20991231T000000Z-9": genuine,
        "20991231T000001Z-9": json.dumps(forged).encode(),
        "20991399T000000Z-9": genuine,
    }.items():
        store.save(f"{store.FOLDER}/{name}/{store.MANIFEST}", ContentFile(content))
    settings.BACKUP_KEEP = [1, 1, 1]
    assert retention.prune() == []
    assert list(store.find_damage(store.read_manifest(manifest.name))) == []
    store.save(f"{store.FOLDER}/20991231T000002Z-9/{store.MANIFEST}", ContentFile(b"no manifest"))
    with pytest.raises(Conflict, match="cannot be read"):
        retention.prune()
    listed = run("list")
    assert f"{manifest.name}: " in listed and "20991231T000002Z-9: Its manifest cannot be read" in listed
    assert list(store.find_damage(store.read_manifest(manifest.name))) == []


def test_without_a_backup_it_says_how_to_make_one() -> None:
    assert "manage.py backup create" in run("list")
    with pytest.raises(NotFound, match="backup create"):
        restore.restore_backup()


@pytest.mark.processes
@pytest.mark.long
def test_a_drill_restores_into_a_scratch_database_while_others_write(service: PointerMove) -> None:
    """The dump is of one moment, on either database; it comes back into SQLite."""
    writing = subprocess.Popen(
        [sys.executable, "-c", WRITER], cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert writing.stdout is not None
        assert writing.stdout.readline() == "writing\n"
        manifest = create.create_backup()
        written = AuditEvent.objects.latest("seq").seq
        assert "its pointer at revision 1 proven" in run("drill").replace("\n", " ")
    finally:
        writing.kill()
        writing.communicate()
    assert written > manifest.head.seq > 0, "the writer did not write meanwhile"
    drilled = BackupTask.objects.get(kind=BackupKind.DRILL)
    assert (drilled.state, drilled.backup, drilled.result["seq"]) == (
        "done",
        manifest.name,
        manifest.head.seq,
    )
    assert len(drilled.result["releases"]) == 2
    rewrite(manifest, "the last line that behaved", "mine")
    with pytest.raises(SystemExit):
        run("drill")
    failed = BackupTask.objects.latest("pk")
    assert failed.state == "failed"
    assert "cannot be restored: The audit chain" in failed.reason
    assert "not sound" in failed.reason
    assert [alarm.sentence for alarm in list_alarms() if alarm.name == AlarmName.DRILL] == [
        f"The last drill failed: {failed.reason}"
    ]


WRITER = """
import django
django.setup()
from audit import services as audit
from deploy.models import ServiceIdentity
identity, number = ServiceIdentity.objects.get(pk=1), 0
while True:
    audit.record("note", identity, actor="a writer", reason=str(number))
    number += 1
    if number == 1:
        print("writing", flush=True)
"""
