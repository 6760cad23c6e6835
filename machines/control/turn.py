"""The controller's lease: one look at a time, however many processes reconcile. Every time is by the database's clock."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db.models.functions import Now

from machines.models import THE_ONE, ControllerTurn

LEASE_SECONDS = 60.0
"""Longer than a look can take: each call of the cloud has its own deadline."""


@contextmanager
def take_turn(*, every_seconds: float) -> Iterator[ControllerTurn | None]:
    """The lease, released at the end; None where another process has it, or looked just now.

    A process that is killed keeps it until it runs out.
    """
    ControllerTurn.objects.get_or_create(pk=THE_ONE)
    row = ControllerTurn.objects.annotate(now=Now()).get(pk=THE_ONE)
    now = row.now
    if not row.is_free(now, lease_seconds=LEASE_SECONDS) or not row.is_due(now, every_seconds=every_seconds):
        yield None
        return
    holder = str(uuid.uuid4())
    until = now + timedelta(seconds=LEASE_SECONDS)
    # Each turn has a holder of its own: of two that saw the same row, the second finds another.
    taken = ControllerTurn.objects.filter(pk=THE_ONE, holder=row.holder)
    if not taken.update(holder=holder, until=until, looked_at=now):
        yield None
        return
    row.holder, row.until, row.looked_at = holder, until, now
    mine = ControllerTurn.objects.filter(pk=THE_ONE, holder=holder)
    try:
        yield row
    except Exception:
        mine.update(until=None)
        raise
    mine.update(until=None)
