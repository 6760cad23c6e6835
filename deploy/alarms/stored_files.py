"""The stored bytes of the live release and of the fallback, hashed again and again, a slice in each pass of reconcile.

A file that changed in the store is never served (`artifact_store.open_verified`), so a bot that starts would lack it.
"""

import time
from collections.abc import Mapping
from datetime import timedelta

from django.db.models import Q, QuerySet
from django.utils import timezone

from common.deadlines import run_within
from common.errors import DomainError
from deploy.models import PointerMove, Release, StoredFile
from deploy.pointer import pointer
from training import artifact_store
from training.models import Artifact

SLICE_SECONDS = 1.0
"""A pass begins no further file after this time."""
FILE_SECONDS = 20.0
"""A file that takes longer counts as unread."""
READ_AGAIN_AFTER = timedelta(minutes=2)
UNREAD_AFTER = timedelta(minutes=15)
"""A file that could not be read for so long is reported."""


def check_stored_files() -> None:
    """Hash the files that are due, the longest unread first. A store that does not answer ends the slice."""
    releases = [move.release if (move := pointer.get_current()) else None, pointer.get_fallback()]
    sizes = {
        artifact.sha256: artifact.size
        for release in releases
        if release is not None
        for artifact in _query_artifacts(release)
    }
    StoredFile.objects.exclude(pk__in=sizes).delete()
    ended_at = time.monotonic() + SLICE_SECONDS
    for sha256 in _list_due(sizes):
        if time.monotonic() > ended_at or not _read(sha256, sizes[sha256]):
            return


def find_damaged(release: Release) -> list[str]:
    """The files of this release that were missing or changed when they were last read, as `SOL model.onnx`."""
    damaged = StoredFile.objects.filter(is_intact=False).values("sha256")
    rows = _query_artifacts(release).filter(sha256__in=damaged).order_by("bundle__coin__symbol", "name")
    return [f"{artifact.bundle.coin.symbol} {artifact.name}" for artifact in rows]


def has_unread(move: PointerMove) -> bool:
    """Whether a file of this move's release was not read for UNREAD_AFTER."""
    before = timezone.now() - UNREAD_AFTER
    if move.release is None or move.moved_at > before:
        return False
    read = StoredFile.objects.filter(Q(read_at__gt=before) | Q(is_intact=False)).values("sha256")
    return _query_artifacts(move.release).exclude(sha256__in=read).exists()


def _query_artifacts(release: Release) -> QuerySet[Artifact]:
    return Artifact.objects.filter(bundle__release_coins__release=release).select_related("bundle__coin")


def _list_due(sizes: Mapping[str, int]) -> list[str]:
    """Files that were never read first; a damaged one is always due, because somebody may be restoring it."""
    rows = {row.sha256: row for row in StoredFile.objects.filter(pk__in=sizes)}
    before = timezone.now() - READ_AGAIN_AFTER
    again = sorted(
        (row for row in rows.values() if not row.is_intact or not before < row.read_at <= timezone.now()),
        key=lambda row: row.read_at,
    )
    return [*(sha256 for sha256 in sizes if sha256 not in rows), *(row.sha256 for row in again)]


def _read(sha256: str, size: int) -> bool:
    """Read one file and store the result; False where the store did not answer."""
    try:
        is_intact = run_within(FILE_SECONDS, lambda: artifact_store.is_intact(sha256, size))
    except (DomainError, TimeoutError):
        return False
    values = {"is_intact": is_intact, "read_at": timezone.now()}
    StoredFile.objects.update_or_create(pk=sha256, defaults=values)
    return True
