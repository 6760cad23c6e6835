"""Restoring a backup into an empty database."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.files import File
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone

from accounts.models import ApiToken, User
from audit import heads, triggers
from audit import services as audit
from common.errors import Conflict
from crpbot.backup import journal, rows, store
from crpbot.backup.afterwards import ACTOR, Afterwards, carry_over
from crpbot.backup.journal import Since
from crpbot.backup.seal import Access
from crpbot.backup.store import Manifest, StoredFile
from deploy.models import BackupTask, PointerMove, Release, ServiceIdentity
from deploy.rules import BackupKind, BackupState
from deploy.serving import signing
from training import artifact_store
from training.models import Dataset

_OWN = (PointerMove, Release, User, Dataset)
"""A database without rows of these is new."""


@dataclass(frozen=True)
class Restored:
    """What came back, and what a person has to decide now."""

    manifest: Manifest
    files: int
    """How many stored files had to be copied."""
    afterwards: Afterwards
    """What happened after the backup, and was carried over or is left to a person."""
    accounts: list[dict[str, Any]]
    """Open accounts that hold a role: some may have been closed after the backup."""
    tokens: list[dict[str, Any]]
    """Tokens that are not revoked: likewise."""
    missing_revisions: int
    """By how much the revision must be advanced before bots are given anything."""


def restore_backup(
    name: str = "", *, access: Access | None = None, with_files: bool = True, with_journal: bool = True
) -> Restored:
    """Restore this backup, else the newest, into an empty database; all of it or nothing.

    Raises NotFound, Conflict (the database is not empty or of another version, the backup is damaged, cannot be decrypted or
    was signed by another key than that of `access`, or its audit chain is not sound), Unavailable.
    """
    manifest = store.read_manifest(name, access)
    access = access or Access.build()
    _require_fitting(manifest)
    since = journal.read_since(manifest, access) if with_journal else Since([], "The journal was not read.")
    # Before the rows, so that no row ever names a file that is not there. More files than rows do no harm.
    files = manifest.files if with_files else {}
    copied = sum(copy_file(sha256, file, access) for sha256, file in files.items())
    with store.open_rows(manifest, access) as file, transaction.atomic():
        triggers.drop()
        counts = rows.load(file)
        if counts != {model: count for model, count in manifest.rows.items() if count}:
            raise Conflict(f"The rows of backup {manifest.name} are not those that its manifest counts.")
        triggers.install()
        if broken := audit.verify([manifest.head]):
            raise Conflict(
                f"The audit chain of backup {manifest.name} is not sound: {broken[0]}. Use another backup."
            )
        detail = {"name": manifest.name, "seq": manifest.head.seq, "hash": manifest.head.hash}
        _end_own_task(manifest)
        journal.rewind(manifest.head.seq)
        identity = ServiceIdentity.objects.get(pk=1)
        audit.record("backup.restored", identity, actor=ACTOR, detail=detail)
        afterwards = carry_over(since)
    # Where heads were kept already, they may show that the chain went on after the backup: an approver states that loss.
    if heads.read_last(manifest.head.service) is None:
        heads.keep(manifest.head)
    return Restored(
        manifest,
        copied,
        afterwards,
        accounts=list(_list_accounts()),
        tokens=list(_list_tokens()),
        missing_revisions=signing.count_missing_revisions(signing.read_highest()),
    )


def restore_files(name: str = "", *, access: Access | None = None) -> int:
    """Copy the stored files back that are missing or damaged, into a service in use; returns how many. No row changes.

    Raises NotFound, Conflict, Unavailable.
    """
    manifest = store.read_manifest(name, access)
    access = access or Access.build()
    return sum(copy_file(sha256, file, access) for sha256, file in manifest.files.items())


def _end_own_task(manifest: Manifest) -> None:
    """The task that made this backup had not ended when its rows were read."""
    for task in BackupTask.objects.filter(state=BackupState.RUNNING):
        is_own = task.kind == BackupKind.BACKUP
        audit.transition(
            task,
            BackupState.DONE if is_own else BackupState.FAILED,
            actor=ACTOR,
            reason=task.reason if is_own else "The database was restored from a backup.",
            slot=None,
            ended_at=timezone.now(),
            backup=manifest.name if is_own else "",
        )


def _require_fitting(manifest: Manifest) -> None:
    for model in _OWN:
        if count := model._base_manager.count():
            raise Conflict(
                f"This database is in use: it holds {count} {model._meta.verbose_name_plural}. A backup is restored into an"
                " empty one: create one, name it in CRPBOT_DATABASE_URL, and run `manage.py migrate`."
            )
    applied = store.list_migrations()
    if applied != manifest.migrations:
        differing = sorted(set(applied) ^ set(manifest.migrations))
        raise Conflict(
            f"The backup was made by version {manifest.code_version}, whose tables are not those of this one"
            f" ({', '.join(differing[:3])}). Restore it with that version, then upgrade."
        )


def copy_file(sha256: str, file: StoredFile, access: Access) -> bool:
    """Whether it had to be copied."""
    if artifact_store.is_intact(sha256, file.size):
        return False
    with store.open_file(sha256, file, access) as content:
        try:
            default_storage.save(artifact_store.key(sha256), File(content))
        except artifact_store.STORE_ERRORS as error:
            raise artifact_store.StoreUnavailable(f"The file store does not answer ({error}).") from error
    return True


def _list_accounts() -> Iterator[dict[str, Any]]:
    for user in User.objects.filter(is_active=True).prefetch_related("grants").order_by("username"):
        roles = sorted(grant.role for grant in user.grants.all())
        if roles or user.is_superuser:
            yield {"name": user.username, "roles": [*roles, *["administrator"] * user.is_superuser]}


def _list_tokens() -> Iterator[dict[str, Any]]:
    for token in (
        ApiToken.objects.filter(revoked_at=None).select_related("user").order_by("user__username", "pk")
    ):
        yield {"owner": token.user.username, "name": token.name, "scope": token.scope, "id": token.pk}
