"""Restoring a backup into an empty database, and the drill that shows that it can be restored."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db import transaction

from accounts.models import ApiToken, User
from audit import heads, triggers
from audit import services as audit
from common.errors import Conflict
from crpbot.backup import rows, store
from crpbot.backup.create import ACTOR
from crpbot.backup.seal import Access
from crpbot.backup.store import Manifest, StoredFile
from deploy.models import PointerMove, Release, ServiceIdentity
from deploy.serving import signing
from training import artifact_store
from training.models import Dataset

DRILL_SECONDS = 3_600
_OWN = (PointerMove, Release, User, Dataset)
"""A database without rows of these is new."""


@dataclass(frozen=True)
class Restored:
    """What came back, and what a person has to decide now."""

    manifest: Manifest
    files: int
    """How many stored files had to be copied."""
    accounts: list[dict[str, Any]]
    """Open accounts that hold a role: some may have been closed after the backup."""
    tokens: list[dict[str, Any]]
    """Tokens that are not revoked: likewise."""
    missing_revisions: int
    """By how much the revision must be advanced before bots are given anything."""


def restore_backup(name: str = "", *, access: Access | None = None, with_files: bool = True) -> Restored:
    """Restore this backup, else the newest, into an empty database; all of it or nothing.

    Raises NotFound, Conflict (the database is not empty or of another version, the backup is damaged, cannot be decrypted or
    was signed by another key than that of `access`, or its audit chain is not sound), Unavailable.
    """
    manifest = store.read_manifest(name, access)
    access = access or Access.build()
    _require_fitting(manifest)
    # Before the rows, so that no row ever names a file that is not there. More files than rows do no harm.
    files = manifest.files if with_files else {}
    copied = sum(_copy_file(sha256, file, access) for sha256, file in files.items())
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
        identity = ServiceIdentity.objects.get(pk=1)
        audit.record("backup.restored", identity, actor=ACTOR, detail=detail)
    # Where heads were kept already, they may show that the chain went on after the backup: an approver states that loss.
    if heads.read_last(manifest.head.service) is None:
        heads.keep(manifest.head)
    return Restored(
        manifest,
        copied,
        accounts=list(_list_accounts()),
        tokens=list(_list_tokens()),
        missing_revisions=signing.count_missing_revisions(signing.read_highest()),
    )


def drill(name: str = "", *, public_key: str = "", identity_file: str = "") -> Mapping[str, Any]:
    """Restore the rows of a backup into a scratch database in a process of its own, and read its files where they are.

    Raises Conflict with the reason where it cannot be restored.
    """
    access = Access.build(public_key=public_key, identity_file=identity_file)
    manifest = store.read_manifest(name, access)
    if manifest.recipients and not identity_file:
        raise Conflict(
            f"The backup {manifest.name} is encrypted, so only somebody with an identity can drill it: --identity FILE."
        )
    if damage := next(store.find_damage(manifest), None):
        raise Conflict(damage)
    restoring = ["backup", "restore", manifest.name, "--rows-only", "--public-key", access.public_hex]
    restoring += ["--identity", str(Path(identity_file).resolve())] if identity_file else []
    with tempfile.TemporaryDirectory(prefix="crpbot-drill-") as folder:
        for arguments in (["migrate", "--verbosity", "0"], restoring):
            if problem := _run_scratch(arguments, folder):
                raise Conflict(f"The backup {manifest.name} cannot be restored: {problem}")
    detail = {"name": manifest.name, "seq": manifest.head.seq, "age_seconds": round(manifest.age_seconds)}
    audit.record("backup.drilled", ServiceIdentity.objects.get(pk=1), actor=ACTOR, detail=detail)
    return detail


def _run_scratch(arguments: Sequence[str], folder: str) -> str | None:
    """Run a command on a scratch service in this folder; why it failed, or None."""
    try:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=settings.BASE_DIR,
            env=_build_scratch_environment(folder),
            capture_output=True,
            text=True,
            check=False,
            timeout=DRILL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {DRILL_SECONDS} s"
    lines = (done.stderr or done.stdout).strip().splitlines()
    return (lines[-1] if lines else "no reason was given") if done.returncode else None


def _build_scratch_environment(folder: str) -> dict[str, str]:
    """Of a service with an empty SQLite database and file store, the same secret and the same backups."""
    kept = (
        "CRPBOT_BACKUP_BUCKET", "CRPBOT_BACKUP_ACCESS_KEY", "CRPBOT_BACKUP_SECRET_KEY", "CRPBOT_BACKUP_ENDPOINT",
        "CRPBOT_BACKUP_REGION",
    )  # fmt: skip
    inherited = {
        name: value for name, value in os.environ.items() if name in kept or not name.startswith("CRPBOT_")
    }
    return inherited | {
        "DJANGO_SETTINGS_MODULE": "crpbot.settings",
        "CRPBOT_PROFILE": "embedded",
        "CRPBOT_STATE_DIR": folder,
        "CRPBOT_SECRET_KEY": settings.SECRET_KEY,
        "CRPBOT_SECRET_KEY_FALLBACKS": ",".join(settings.SECRET_KEY_FALLBACKS),
        "CRPBOT_BACKUP_DIR": str(settings.BACKUP_DIR),
        "CRPBOT_LOG_LEVEL": "ERROR",
    }


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


def _copy_file(sha256: str, file: StoredFile, access: Access) -> bool:
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
