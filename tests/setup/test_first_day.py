"""The first day of the service that tests begin with: written as rows, it is what building it gives."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from audit import services as audit
from audit.models import AuditEvent
from deploy.models import PointerMove, Release, ServiceIdentity
from gates.models import Attempt
from tests import factories, first_day, scenarios

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

UNLIKE = {"hash", "previous_hash", "mac", "chain"}
"""Columns that depend on the times of events."""


def describe() -> dict[str, Any]:
    """Every row, without times and what depends on them, and without the service's name, which is drawn."""
    kinds = (*first_day.BEFORE_EVENTS, AuditEvent, Attempt, *first_day.AFTER_EVENTS)
    name = ServiceIdentity.get_name()
    return {kind.__name__: [str(row).replace(name, "NAME") for row in describe_rows(kind)] for kind in kinds}


def describe_rows(kind: Any) -> Iterator[dict[str, Any]]:
    for row in kind._base_manager.order_by("pk").values():
        columns = {column: value for column, value in row.items() if column not in UNLIKE}
        if kind is AuditEvent:
            columns["body"] = without_times(json.loads(columns["body"]))
        yield without_times(columns)


def without_times(columns: dict[str, Any]) -> dict[str, Any]:
    return {
        column: value for column, value in columns.items() if column != "at" and not column.endswith("_at")
    }


def test_it_has_the_rows_that_building_it_gives() -> None:
    factories.person("victor", "viewer")  # events come before those of the day
    first_day.reset_sequences()
    with transaction.atomic():
        scenarios.build_first_day()
        built = describe()
        transaction.set_rollback(True)
    first_day.reset_sequences()
    assert first_day.is_writable()
    scenarios.service_in_use()
    assert describe() == built
    assert audit.verify() == []


def test_its_times_are_those_of_now() -> None:
    begun, last_seq = timezone.now(), audit.get_last_seq()
    move = scenarios.service_in_use()
    events = list(AuditEvent.objects.filter(seq__gt=last_seq).order_by("seq"))
    assert begun <= events[0].at < events[-1].at < timezone.now()
    assert move.audit_event == events[-1]
    assert begun < move.moved_at < timezone.now()
    assert (Release.objects.earliest("pk").deadline_at - begun).total_seconds() > 3 * 3600 - 60


def test_no_time_is_in_the_future_however_long_the_building_took(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = scenarios._first_day
    assert recorded is not None
    slow = replace(recorded, begun_at=recorded.begun_at - timedelta(minutes=2))
    monkeypatch.setattr(scenarios, "_first_day", slow)
    move = scenarios.service_in_use()
    assert move.moved_at < timezone.now()
    assert not AuditEvent.objects.filter(at__gte=timezone.now()).exists()


def test_the_service_goes_on_from_it() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    assert release.pk > max(Release.objects.exclude(pk=release.pk).values_list("pk", flat=True))
    assert not first_day.is_writable()
    assert PointerMove.objects.count() == 1
    assert audit.verify() == []
