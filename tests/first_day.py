"""The service on its first day as rows: built and judged once for each test process, then only written.

To settle its two releases takes four hundred queries, and hundreds of tests begin with them. The rows are inserted under the
same database guards. Their times are as late as those of a day that is built now, and their events continue the chain that
the test has: tests/setup/test_first_day.py compares the two.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management.color import no_style
from django.db import connection, models, transaction
from django.utils import timezone

from audit import services as audit
from audit.hash_chain import hash_event, to_canonical_json
from audit.models import AuditEvent, AuditHead
from deploy.models import (
    FallbackRegistration,
    PointerMove,
    Release,
    ReleaseCoin,
    ReleaseStatus,
    ServiceIdentity,
)
from gates.context import record_attempts
from gates.models import Attempt, Diagnosis, GateResult, Measurement
from training import artifact_store
from training.models import Artifact, Budget, Bundle, Dataset

# In the order in which rows refer to one another. The guards of attempts and moves look for their events.
BEFORE_EVENTS = (Dataset, Budget, Bundle, Artifact, Measurement)
AFTER_EVENTS = (
    Diagnosis,
    GateResult,
    Release,
    ReleaseStatus,
    ReleaseCoin,
    FallbackRegistration,
    PointerMove,
)

WRITTEN_WITHIN = timedelta(milliseconds=1)
"""Less than the writing takes, however long the building took: none of the times may lie in the future."""

MoveTime = Callable[[datetime], datetime]


class Rows:
    """The rows of one table, ready to be inserted again."""

    def __init__(self, kind: type[models.Model], rows: Sequence[models.Model], *, since: datetime) -> None:
        fields = kind._meta.concrete_fields
        columns = ", ".join(f'"{field.column}"' for field in fields)
        self._statement = (
            f'INSERT INTO "{kind._meta.db_table}" ({columns}) VALUES ({", ".join(["%s"] * len(fields))})'
        )
        self._values = [[_adapt(getattr(row, field.attname), field) for field in fields] for row in rows]
        self._times = [
            (number, position, value, field)
            for number, row in enumerate(rows)
            for position, field in enumerate(fields)
            if isinstance(value := getattr(row, field.attname), datetime) and value >= since
        ]
        self._seqs = [position for position, field in enumerate(fields) if field.column == "audit_seq"]

    def insert(self, move: MoveTime, ahead: int = 0) -> None:
        """With the times that were taken, or set for later, while they were built; `ahead` is added to numbers of events."""
        values = [list(row) for row in self._values]
        for number, position, value, field in self._times:
            values[number][position] = _adapt(move(value), field)
        for position in self._seqs:
            for row in values:
                row[position] += ahead
        with connection.cursor() as cursor:
            cursor.executemany(self._statement, values)


def _adapt(value: Any, field: Any) -> Any:
    return field.get_db_prep_save(value, connection)


@dataclass(frozen=True)
class FirstDay:
    """What building it has written."""

    begun_at: datetime
    ended_at: datetime
    last_seq: int
    """Of the audit chain before it."""
    service: str
    """Its name, drawn again each time: what a process remembers of revisions, it remembers by this name."""
    events: list[AuditEvent]
    before_events: list[Rows]
    after_events: list[Rows]
    files: list[bytes]

    def write(self) -> None:
        """Into tables that are empty."""
        now, length = timezone.now(), self.ended_at - self.begun_at

        def move(at: datetime) -> datetime:
            """What was taken one after another is taken now, within WRITTEN_WITHIN; what is set for later is as far off."""
            passed = at - self.begun_at
            return now + (passed if at > self.ended_at else passed / length * WRITTEN_WITHIN)

        for data in self.files:
            artifact_store.store(data)
        with audit.locked():
            for rows in self.before_events:
                rows.insert(move)
            ahead = self._append_events(move)
            record_attempts()  # from the events
            for rows in self.after_events:
                rows.insert(move, ahead)
            reset_sequences()

    def _append_events(self, move: MoveTime) -> int:
        """By how much their numbers are higher than when they were built."""
        head, name = AuditHead.objects.get(), ServiceIdentity.get_name()
        ahead, previous_hash, events = head.seq - self.last_seq, head.hash, list[AuditEvent]()
        for was in self.events:
            columns = {field.attname: getattr(was, field.attname) for field in was._meta.concrete_fields}
            event = AuditEvent(
                **{**columns, "seq": was.seq + ahead, "at": move(was.at), "previous_hash": previous_hash}
            )
            detail = json.loads(was.body.replace(self.service, name))["detail"]
            event.body = to_canonical_json({**event.build_columns(), "detail": detail})
            previous_hash = event.hash = hash_event(previous_hash, event.body)
            event.mac = audit._compute_mac(event.hash, settings.SECRET_KEY)
            events.append(event)
        AuditEvent.objects.bulk_create(events)
        AuditHead.objects.update(seq=events[-1].seq, hash=events[-1].hash)
        return ahead


def reset_sequences() -> None:
    """On PostgreSQL the next key is counted apart from the rows."""
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), [*BEFORE_EVENTS, *AFTER_EVENTS]):
            cursor.execute(statement)


def record(build: Callable[[], object]) -> FirstDay:
    """What `build` writes into an empty database, which is empty again afterwards."""
    with transaction.atomic():
        begun_at, last_seq = timezone.now(), audit.get_last_seq()
        build()

        def read(kinds: Sequence[type[models.Model]]) -> list[Rows]:
            return [Rows(kind, list(kind._base_manager.order_by("pk")), since=begun_at) for kind in kinds]

        stored = set(Artifact.objects.values_list("sha256", flat=True))
        recorded = FirstDay(
            begun_at,
            timezone.now(),
            last_seq,
            ServiceIdentity.get_name(),
            list(AuditEvent.objects.filter(seq__gt=last_seq).order_by("seq")),
            read(BEFORE_EVENTS),
            read(AFTER_EVENTS),
            [artifact_store.read(sha256) for sha256 in sorted(stored)],
        )
        transaction.set_rollback(True)
    return recorded


def is_writable() -> bool:
    """Only into a transaction that the test rolls back, where none of its tables holds a row.

    What commits tells subscribers and bots of every step, so there it must be built.
    """
    if not connection.in_atomic_block:
        return False
    kinds = (*BEFORE_EVENTS, Attempt, ServiceIdentity, *AFTER_EVENTS)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT " + " OR ".join(f'EXISTS (SELECT 1 FROM "{kind._meta.db_table}")' for kind in kinds)
        )
        return not cursor.fetchone()[0]
