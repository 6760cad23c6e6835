"""Making a backup, and removing old ones."""

import hashlib
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.files import File
from django.utils import timezone

from audit import services as audit
from audit.heads import KeptHead
from audit.models import AuditHead
from common.errors import Conflict, InvalidInput
from crpbot.backup import rows, store
from crpbot.backup.store import Manifest
from deploy.alarms import backup_age
from deploy.models import ServiceIdentity
from deploy.pointer import pointer
from training import artifact_store
from training.artifact_store import FileLost
from training.models import Artifact, Dataset

ACTOR = "manage.py backup"
UNUSED_FOR = timedelta(days=1)
"""A file that no backup names is kept so long: another process may be writing the backup that names it."""


def create_backup() -> Manifest:
    """Write a backup, read it back, and record it in the audit history. Nothing that the service does waits for it.

    Its manifest names the files that the service itself has lost. Raises Conflict where what was written is not what is read
    back; Unavailable where a store does not answer.
    """
    identity = ServiceIdentity.objects.get_or_create(pk=1, defaults={"name": ServiceIdentity.get_name()})[0]
    with tempfile.TemporaryFile() as file:
        manifest = _write_rows(file, identity.name)
        file.seek(0)
        store.save(f"{store.FOLDER}/{manifest.name}/{store.ROWS}", File(file, name=store.ROWS))
    lost = [sha256 for sha256, size in manifest.files.items() if not _copy_file(sha256, size)]
    files = {sha256: size for sha256, size in manifest.files.items() if sha256 not in lost}
    manifest = replace(manifest, files=files, lost=lost)
    store.write_manifest(manifest)
    if damage := next(store.find_damage(manifest), None):
        raise Conflict(f"The backup {manifest.name} cannot be used: {damage}")
    detail = {
        "name": manifest.name,
        "seq": manifest.head.seq,
        "hash": manifest.head.hash,
        "size": manifest.size,
    }
    audit.record(backup_age.CREATED, identity, actor=ACTOR, detail=detail)
    return manifest


def prune(keep: int) -> list[str]:
    """Remove all backups but the newest `keep`, and the files that only they named; returns their names."""
    if keep < 1:
        raise InvalidInput("At least one backup is kept.", field="keep")
    names = store.list_names()
    removed, storage = names[:-keep], store.get_storage()
    for name in removed:
        # First what makes it a backup.
        for part in (store.MANIFEST, store.ROWS):
            storage.delete(f"{store.FOLDER}/{name}/{part}")
    used = {sha256 for name in names[-keep:] for sha256 in store.read_manifest(name).files}
    dropped = {sha256 for sha256 in _list_files() if sha256 not in used} if removed else set()
    for sha256 in dropped:
        if timezone.now() - storage.get_modified_time(store.get_file_key(sha256)) > UNUSED_FOR:
            storage.delete(store.get_file_key(sha256))
    return removed


def _write_rows(file: Any, service: str) -> Manifest:
    with rows.consistent_reading():
        head, move, now = AuditHead.objects.get(pk=1), pointer.get_current(), datetime.now(UTC)
        counts = rows.dump(file)
        files = dict(Artifact.objects.order_by("sha256").values_list("sha256", "size"))
        datasets = list(Dataset.objects.order_by("digest").values_list("digest", flat=True))
        migrations = store.list_migrations()
    digests = [digest.removeprefix("sha256:") for digest in datasets]
    files |= {sha256: _get_size(sha256) for sha256 in digests}
    file.seek(0)
    return Manifest(
        name=f"{now:%Y%m%dT%H%M%SZ}-{head.seq}",
        created_at=now.isoformat(timespec="seconds"),
        code_version=settings.CODE_VERSION,
        head=KeptHead(service, head.seq, head.hash),
        revision=move.revision if move else None,
        migrations=migrations,
        rows_sha256=hashlib.file_digest(file, "sha256").hexdigest(),
        rows_size=file.tell(),
        rows=counts,
        files=files,
    )


def _get_size(sha256: str) -> int:
    """Of a dataset's file, whose row does not state it; 0 where it is lost."""
    try:
        with artifact_store.open_stream(sha256) as stream:
            size: int = stream.size
    except FileLost:
        return 0
    return size


def _copy_file(sha256: str, size: int) -> bool:
    """Copy a stored file, unless an earlier backup did; False where the service itself has lost it.

    All of it is verified when the backup is read back.
    """
    name, storage = store.get_file_key(sha256), store.get_storage()
    if size and storage.exists(name) and storage.size(name) == size:
        return True
    try:
        with artifact_store.open_verified(sha256, size) as stream, tempfile.TemporaryFile() as copy:
            while chunk := stream.read(1 << 20):
                copy.write(chunk)
            copy.seek(0)
            store.save(name, File(copy, name=sha256))
    except FileLost:
        return False
    return True


def _list_files() -> list[str]:
    storage = store.get_storage()
    try:
        folders = storage.listdir("files/sha256")[0]
    except FileNotFoundError:
        return []
    return [name for folder in folders for name in storage.listdir(f"files/sha256/{folder}")[1]]
