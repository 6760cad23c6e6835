"""Deletes what nobody needs any more, a bounded part at a time (rule 30, docs/rules.md#30).

What a decision, a proof or an attempt rests on is never deleted, however old: the guards of the database refuse it.
"""

import time
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import Session
from deploy.bots import live_windows
from deploy.models import Acknowledgement, PointerMove
from training import artifact_store
from training.artifact_store import StoreUnavailable
from training.models import Artifact, Dataset, RunLine, TrainingRun, Worker
from training.rules import JobState

MAX_ROWS = 5_000
"""Of each kind in one pass of reconcile, so that no pass takes long."""
UNNAMED_FOR = timedelta(days=7)
"""A stored file that no row names is kept so long: it may belong to an upload or a run that is under way."""
SHARES = 256
"""The parts of the file store, by the first two letters of a hash. Reconcile looks at one at a time, at all in a day."""
SHARE_SECONDS = 86_400 / SHARES

_last_share = -1


def prune() -> int:
    """Delete old rows, at most MAX_ROWS of each kind, and look at one share of the stored files; returns how many went.

    `reconcile` calls it. A file store that does not answer is looked at again later.
    """
    global _last_share
    share = int(time.time() / SHARE_SECONDS) % SHARES
    files = 0
    if share != _last_share:
        try:
            files = _prune_files(share)
        except StoreUnavailable:
            files = 0
        _last_share = share
    return files + sum(prune_rows().values())


def prune_all() -> Mapping[str, int]:
    """Delete everything that is old, however much it is; returns how many of each kind. `manage.py prune` calls it.

    Raises StoreUnavailable.
    """
    deleted = Counter[str]()
    while any((found := prune_rows()).values()):
        deleted.update(found)
    deleted["files"] = sum(_prune_files(share) for share in range(SHARES))
    return deleted


def prune_rows() -> Mapping[str, int]:
    """Delete at most MAX_ROWS old rows of each kind; returns how many of each."""
    now = timezone.now()
    kept_since = now - timedelta(seconds=settings.BOT_KEPT_SECONDS)
    logs_since = now - timedelta(days=settings.LOG_KEPT_DAYS)
    newest = PointerMove.objects.order_by("-revision").values("revision")[:1]
    old: dict[str, QuerySet[Any]] = {
        "sessions": Session.objects.filter(expire_date__lt=now).order_by("expire_date"),
        "workers": Worker.objects.filter(last_heard_at__lt=kept_since).order_by("last_heard_at"),
        "log lines": _find_lines(logs_since),
        "acknowledgements": Acknowledgement.objects.filter(at__lt=kept_since)
        .exclude(move__in=newest)
        .order_by("at"),
    }
    deleted = {kind: _delete(rows) for kind, rows in old.items()}
    return {**deleted, "live windows": live_windows.delete_old_windows(kept_since, MAX_ROWS)}


def _find_lines(before: datetime) -> QuerySet[RunLine]:
    """The lines are numbered as they come: the older ones are found without reading all of them."""
    first_kept = RunLine.objects.filter(at__gte=before).order_by("pk").values_list("pk", flat=True).first()
    lines = RunLine.objects.filter(at__lt=before, run__finished_at__lt=before).order_by("pk")
    return lines if first_kept is None else lines.filter(pk__lt=first_kept)


def _prune_files(share: int) -> int:
    """Delete the old files of this share that no row names; of the first share, also old checkpoints of runs that ended."""
    before = timezone.now() - UNNAMED_FOR
    stored = artifact_store.list_stored(f"{share:02x}")
    unnamed = stored - _find_named(stored)
    deleted = sum(
        artifact_store.delete_older(artifact_store.key(sha256), before) for sha256 in sorted(unnamed)
    )
    return deleted + (_prune_checkpoints(before) if share == 0 else 0)


def _find_named(hashes: Collection[str]) -> set[str]:
    datasets = Dataset.objects.filter(digest__in=[f"sha256:{sha256}" for sha256 in hashes])
    artifacts = Artifact.objects.filter(sha256__in=hashes)
    digests = {digest.removeprefix("sha256:") for digest in datasets.values_list("digest", flat=True)}
    return digests | set(artifacts.values_list("sha256", flat=True))


def _prune_checkpoints(before: datetime) -> int:
    """A run deletes its own when it ends; what is left over is of attempts that were killed."""
    stored = artifact_store.list_checkpoints()
    open_states = (JobState.QUEUED, JobState.RUNNING)
    open_runs = TrainingRun.objects.filter(pk__in=stored, state__in=open_states)
    needed = dict(open_runs.values_list("pk", "checkpoint"))
    return sum(
        artifact_store.delete_older(name, before)
        for run, names in stored.items()
        for name in names
        if run not in needed or name != needed[run]
    )


def _delete(rows: QuerySet[Any]) -> int:
    keys = list(rows.values_list("pk", flat=True)[:MAX_ROWS])
    if keys:
        rows.model._base_manager.filter(pk__in=keys).delete()
    return len(keys)
