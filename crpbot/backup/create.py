"""Making a backup."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.files import File

from audit.heads import KeptHead
from audit.models import AuditHead
from common.errors import Conflict, Unavailable
from crpbot.backup import rows, seal, store
from crpbot.backup.store import Manifest, StoredFile
from deploy.models import ServiceIdentity
from deploy.pointer import pointer
from training import artifact_store
from training.artifact_store import FileLost
from training.models import Artifact, Dataset


def create_backup() -> Manifest:
    """Write a backup, and read it back. Nothing that the service does waits for it.

    Its manifest names the files that the service itself has lost; one that an earlier backup has stays in backups. Raises
    Conflict where the database is of a newer version, or what was written is not what is read back; Unavailable where a
    store does not answer or the key that signs cannot be used.
    """
    recipients = seal.list_recipients()
    earlier = _list_saved(recipients)
    with tempfile.TemporaryFile() as file:
        manifest, wanted = _write_rows(file, ServiceIdentity.get_name(), recipients)
        file.seek(0)
        store.save(f"{store.FOLDER}/{manifest.name}/{store.ROWS}", File(file, name=store.ROWS))
    outcomes = {
        sha256: _save_file(sha256, size, earlier.get(sha256), recipients) for sha256, size in wanted.items()
    }
    lost = [sha256 for sha256, outcome in outcomes.items() if outcome.is_lost]
    files = {sha256: outcome.file for sha256, outcome in outcomes.items() if outcome.file}
    manifest = replace(manifest, files=files, lost=lost)
    with store.open_rows(manifest):  # the files were read back one by one
        pass
    store.write_manifest(manifest)
    store.read_manifest(manifest.name)
    return manifest


def _list_saved(recipients: Sequence[str]) -> dict[str, StoredFile]:
    """The files that earlier backups for the same recipients hold, by their sha256; those of the newest count."""
    saved = dict[str, StoredFile]()
    for name in store.list_names():
        try:
            manifest = store.read_manifest(name)
        except (Conflict, Unavailable):  # somebody changed it, and does not decide what this one holds
            continue
        if manifest.recipients == recipients:
            saved |= manifest.files
    return saved


def _write_rows(file: Any, service: str, recipients: list[str]) -> tuple[Manifest, dict[str, int]]:
    """The rows, and the manifest so far, with the size of each file that rows name, by its sha256."""
    with rows.consistent_reading():
        _require_every_table_known()
        head, move, now = AuditHead.objects.get(pk=1), pointer.get_current(), datetime.now(UTC)
        with tempfile.TemporaryFile() as plain:
            counts = rows.dump(plain if recipients else file)
            if recipients:
                plain.seek(0)
                seal.encrypt(plain, file, recipients)
        files = dict(Artifact.objects.order_by("sha256").values_list("sha256", "size"))
        datasets = list(Dataset.objects.order_by("digest").values_list("digest", flat=True))
        migrations = store.list_migrations()
    digests = [digest.removeprefix("sha256:") for digest in datasets]
    files |= {sha256: _get_size(sha256) for sha256 in digests}
    file.seek(0)
    manifest = Manifest(
        name=f"{now:%Y%m%dT%H%M%SZ}-{head.seq}",
        created_at=now.isoformat(timespec="seconds"),
        code_version=settings.CODE_VERSION,
        head=KeptHead(service, head.seq, head.hash),
        revision=move.revision if move else None,
        migrations=migrations,
        rows_sha256=hashlib.file_digest(file, "sha256").hexdigest(),
        rows_size=file.tell(),
        rows=counts,
        recipients=recipients,
    )
    return manifest, files


def _require_every_table_known() -> None:
    """Raises Conflict while the database has migrations of a newer version, as during an upgrade."""
    if newer := store.list_newer_migrations():
        raise Conflict(
            f"The database has migrations of a newer version ({', '.join(newer[:3])}), and a backup of this one would lack"
            " what they added. Make it with the newer version."
        )


def _get_size(sha256: str) -> int:
    """Of a dataset's file, whose row does not state it; 0 where it is lost."""
    try:
        with artifact_store.open_stream(sha256) as stream:
            size: int = stream.size
    except FileLost:
        return 0
    return size


@dataclass(frozen=True)
class _Outcome:
    """How saving one file ended: how it lies in the backup, if any has it, and whether the service has lost it."""

    file: StoredFile | None
    is_lost: bool


def _save_file(sha256: str, size: int, earlier: StoredFile | None, recipients: Sequence[str]) -> _Outcome:
    """Copy a stored file, unless the store of backups has a sound copy: maybe also of a file that the service has lost."""
    is_intact = size > 0 and artifact_store.is_intact(sha256, size)
    if earlier is None and size and not recipients:  # of a backup that was not completed
        earlier = StoredFile(size, sha256, size)
    if earlier is not None and _is_sound(earlier):
        return _Outcome(earlier, is_lost=not is_intact)
    if not is_intact:
        return _Outcome(None, is_lost=True)
    with artifact_store.open_verified(sha256, size) as stream:
        saved = store.save_file(stream, sha256, recipients)
    if not _is_sound(saved):
        raise Conflict(
            f"The file sha256:{sha256} cannot be read back from the store of backups. Check its disk."
        )
    return _Outcome(saved, is_lost=False)


def _is_sound(file: StoredFile) -> bool:
    """Whether the store of backups has this file whole. Reads all of it."""
    return next(store.find_damaged_files([file]), None) is None
