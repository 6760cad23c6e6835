"""The drill: a backup is restored into a scratch service, in a process of its own, and checked there.

What it shows: the signature holds, every file is whole, the rows load, the audit chain is sound up to the named head, the
pointer is where the manifest says and was moved there by the service, and what the bots run and the fallback are complete.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command

from common.errors import Conflict
from crpbot.backup import journal, restore, store
from crpbot.backup.seal import Access
from deploy import outcomes
from deploy.pointer import pointer, proof

SECONDS = 3_600
_KEPT = (
    "CRPBOT_BACKUP_BUCKET", "CRPBOT_BACKUP_ACCESS_KEY", "CRPBOT_BACKUP_SECRET_KEY", "CRPBOT_BACKUP_ENDPOINT",
    "CRPBOT_BACKUP_REGION",
)  # fmt: skip
"""The settings of the store of backups; every other is the scratch service's own."""


def drill(name: str = "", *, public_key: str = "", identity_file: str = "") -> dict[str, Any]:
    """Drill this backup, else the newest; returns what was found. Raises Conflict with the reason where it failed."""
    access = Access.build(public_key=public_key, identity_file=identity_file)
    manifest = store.read_manifest(name, access)
    if manifest.recipients and not identity_file:
        raise Conflict(
            f"The backup {manifest.name} is encrypted, so only somebody with an identity can drill it: --identity FILE."
        )
    for sha256, file in manifest.files.items():
        with store.open_file(sha256, file, access):
            pass
    journal.read_since(manifest, access)
    rehearsing = ["backup", "rehearse", manifest.name, "--public-key", access.public_hex, "--json"]
    rehearsing += ["--identity", str(Path(identity_file).resolve())] if identity_file else []
    with tempfile.TemporaryDirectory(prefix="crpbot-drill-") as folder:
        found = json.loads(_run(rehearsing, folder, manifest.name))["rehearsed"]
    return {
        "name": manifest.name,
        "seq": manifest.head.seq,
        "age_seconds": round(manifest.age_seconds),
        "files": len(manifest.files),
        **found,
    }


def rehearse(name: str, access: Access) -> dict[str, Any]:
    """In the scratch service: restore the rows, and check what bots would be given. Raises Conflict."""
    if not settings.IS_EMBEDDED:
        raise Conflict("A rehearsal belongs into a scratch service: run `manage.py backup drill`.")
    call_command("migrate", verbosity=0)
    manifest = restore.restore_backup(name, access=access, with_files=False, with_journal=False).manifest
    move = pointer.get_current()
    if (move.revision if move else None) != manifest.revision:
        raise Conflict(
            f"The restored pointer is at {move}, and the manifest says revision {manifest.revision}."
        )
    if move is not None and (forgery := proof.find_forgery(move)):
        raise Conflict(f"The restored pointer is not proven: {forgery}.")
    releases = {each for each in (move.release if move else None, pointer.get_fallback()) if each}
    for release in releases:
        release_coins = outcomes.list_release_coins(release)
        for artifact in [a for row in release_coins if row.bundle for a in row.bundle.artifacts.all()]:
            if artifact.sha256 in manifest.files:
                restore.copy_file(artifact.sha256, manifest.files[artifact.sha256], access)
        outcomes.require_complete(release, release_coins)
    return {"revision": manifest.revision, "releases": sorted(release.pk for release in releases)}


def _run(arguments: Sequence[str], folder: str, name: str) -> str:
    """What a command of the scratch service in this folder answers. Raises Conflict with what it says of a failure."""
    try:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=settings.BASE_DIR,
            env=_build_environment(folder),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise Conflict(f"The backup {name} cannot be restored: it took longer than {SECONDS} s.") from None
    if done.returncode == 0:
        return done.stdout
    lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason was given"]
    raise Conflict(f"The backup {name} cannot be restored: {_extract_detail(lines[-1])}")


def _extract_detail(line: str) -> str:
    """The sentence of a refusal, which a command with --json prints as a document."""
    try:
        return str(json.loads(line)["detail"])
    except (ValueError, KeyError, TypeError):
        return line


def _build_environment(folder: str) -> Mapping[str, str]:
    """Of a service with an empty SQLite database and file store, the same secret and the same backups."""
    inherited = {
        name: value for name, value in os.environ.items() if name in _KEPT or not name.startswith("CRPBOT_")
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
