"""Deletes what nobody needs any more, a bounded number of rows at a time (rule 30, docs/rules.md#30).

What a decision, a proof or an attempt rests on is never deleted, however old: the guards of the database refuse it.
"""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import Session
from deploy.models import Acknowledgement, PointerMove
from training.models import RunLine, Worker

MAX_ROWS = 5_000
"""Of each kind in one pass of reconcile, so that no pass takes long."""


def prune() -> int:
    """Delete old rows, at most MAX_ROWS of each kind; returns how many. `reconcile` calls it."""
    now = timezone.now()
    kept_since = now - timedelta(seconds=settings.BOT_KEPT_SECONDS)
    logs_since = now - timedelta(days=settings.LOG_KEPT_DAYS)
    # The lines are numbered as they come: the older ones are found without reading all of them.
    first_kept = (
        RunLine.objects.filter(at__gte=logs_since).order_by("pk").values_list("pk", flat=True).first()
    )
    lines = RunLine.objects.filter(at__lt=logs_since, run__finished_at__lt=logs_since).order_by("pk")
    if first_kept is not None:
        lines = lines.filter(pk__lt=first_kept)
    newest = PointerMove.objects.order_by("-revision").values("revision")[:1]
    old: tuple[QuerySet[Any], ...] = (
        Session.objects.filter(expire_date__lt=now).order_by("expire_date"),
        Worker.objects.filter(last_heard_at__lt=kept_since).order_by("last_heard_at"),
        lines,
        Acknowledgement.objects.filter(at__lt=kept_since).exclude(move__in=newest).order_by("at"),
    )
    return sum(_delete(rows) for rows in old)


def _delete(rows: QuerySet[Any]) -> int:
    keys = list(rows.values_list("pk", flat=True)[:MAX_ROWS])
    if keys:
        rows.model._base_manager.filter(pk__in=keys).delete()
    return len(keys)
