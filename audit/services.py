"""The audit chain: `record` an event, `transition` a state, `verify` the chain."""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

from django.conf import settings
from django.db import connection, models, transaction
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac

from audit import triggers
from audit.hash_chain import GENESIS, hash_event, to_canonical_json
from audit.heads import KeptHead, find_contradicted
from audit.models import AuditEvent, AuditHead
from common.errors import Conflict, DomainError, NotAllowed

REFUSALS_PER_HOUR = 20
"""Of one person who lacks the role for what was asked."""
CHUNK = 2_000
"""Events that `verify` reads at a time."""

logger = logging.getLogger(__name__)
_subscribers: list[Callable[[models.Model], None]] = []
_replays: list[Callable[[], "Replay"]] = []

LOST_HEAD = "lost_head"
"""In the detail of an event: the last kept head, where a restored backup no longer holds it."""


def subscribe(callback: Callable[[models.Model], None]) -> None:
    """Call `callback(obj)` after every committed transition.

    `deploy` learns in this way that a run ended, because `training` must not import it. A failed callback is only logged:
    `reconcile` checks the state again within seconds.
    """
    if callback not in _subscribers:
        _subscribers.append(callback)


def lock_head() -> AuditHead:
    """Lock the audit head, which serialises decisions. Call it first in the transaction."""
    head, _ = AuditHead.objects.select_for_update().get_or_create(pk=1)
    return head


@contextmanager
def locked() -> Iterator[None]:
    """A deciding transaction: it takes the lock of the audit head before anything else (rule 17, docs/rules.md#17)."""
    with transaction.atomic():
        lock_head()
        yield


@transaction.atomic
def record(
    kind: str, obj: models.Model, *, actor: object, reason: str = "", detail: Mapping[str, Any] | None = None
) -> AuditEvent:
    """Append one event to the chain, in the caller's transaction."""
    head = lock_head()
    event = AuditEvent(
        seq=head.seq + 1,
        at=timezone.now(),
        actor=str(actor)[:150],
        kind=kind,
        object_type=obj._meta.model_name or "",
        object_id="" if obj.pk is None else str(obj.pk),  # a refused object may have no row
        object_name=str(obj)[:200],
        reason=reason,
        previous_hash=head.hash,
    )
    event.body = to_canonical_json({**event.build_columns(), "detail": dict(detail or {})})
    event.hash = hash_event(event.previous_hash, event.body)
    event.mac = _compute_mac(event.hash, settings.SECRET_KEY)
    event.save(force_insert=True)
    AuditHead.objects.filter(pk=1).update(seq=event.seq, hash=event.hash)
    return event


@locked()
def transition(
    obj: models.Model,
    to: str,
    *,
    actor: object,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
    where: Mapping[str, Any] | None = None,
    **updates: Any,
) -> AuditEvent:
    """Move `obj` to another state. Nothing else writes a `state` column.

    `where` adds conditions on the row: a worker adds its attempt, so that a worker that lost its lease writes nothing.
    `updates` are columns that change with the state; a `reason` column gets the reason. Raises Conflict when the table of
    transitions forbids the move, or when another transaction changed the state first.
    """
    previous = obj.state  # type: ignore[attr-defined]
    if to not in obj.TRANSITIONS[previous]:  # type: ignore[attr-defined]
        raise Conflict(f"{obj} is {previous}; it cannot become {to} from there.")
    if any(field.name == "reason" for field in obj._meta.fields):
        updates["reason"] = reason
    rows = type(obj)._base_manager.filter(pk=obj.pk, state=previous, **(where or {}))
    if rows.update(state=to, **updates) != 1:
        raise Conflict(
            f"{obj} is no longer {previous}: its state was changed in the meantime. Look at it again."
        )
    for name, value in {"state": to, **updates}.items():
        setattr(obj, name, value)
    kind, detail = f"{obj._meta.model_name}.{to}", {**(detail or {}), "from": previous, "to": to}
    event = record(kind, obj, actor=actor, reason=reason, detail=detail)
    transaction.on_commit(lambda: _notify_subscribers(obj))
    return event


def _notify_subscribers(obj: models.Model) -> None:
    for callback in _subscribers:
        try:
            callback(obj)
        except Exception:
            logger.exception("a subscriber failed after a transition of %s", obj)


@contextmanager
def record_refusals(kind: str, obj: models.Model, *, actor: object, reason: str = "") -> Iterator[None]:
    """Record an event when the decision in this context is refused, and raise the refusal on.

    Use it outside the deciding transaction, whose rollback would also remove the event. Who lacks the role gets at most
    REFUSALS_PER_HOUR such events; more are only logged, so that nobody fills the history with them.
    """
    try:
        yield
    except NotAllowed as refusal:
        if _count_refusals(actor) >= REFUSALS_PER_HOUR:
            logger.warning("%s refused to %s for %s: %s", kind, actor, obj, refusal.message)
        else:
            _record_refusal(kind, obj, refusal, actor=actor, reason=reason)
        raise
    except DomainError as refusal:
        _record_refusal(kind, obj, refusal, actor=actor, reason=reason)
        raise


def _record_refusal(
    kind: str, obj: models.Model, refusal: DomainError, *, actor: object, reason: str
) -> None:
    detail = {"refused": refusal.message, "status": refusal.status}
    record(f"{kind}.refused", obj, actor=actor, reason=reason, detail=detail)


def _count_refusals(actor: object) -> int:
    an_hour_ago = timezone.now() - timedelta(hours=1)
    events = AuditEvent.objects.filter(actor=str(actor)[:150], at__gt=an_hour_ago)
    return events.filter(kind__endswith=".refused").count()


def get_last_seq() -> int:
    """The number of the last event, as its head says; 0 before the first."""
    return AuditHead.objects.filter(pk=1).values_list("seq", flat=True).first() or 0


def list_changed_objects(
    models_: Collection[type[models.Model]], *, after: int, to: int
) -> dict[type[models.Model], set[str]]:
    """The keys of the objects of these models, as text, with an event numbered above `after` and up to `to`."""
    by_name = {str(model._meta.model_name): model for model in models_}
    changed: dict[type[models.Model], set[str]] = {}
    rows = AuditEvent.objects.filter(seq__gt=after, seq__lte=to, object_type__in=by_name)
    for name, key in rows.order_by().values_list("object_type", "object_id"):
        changed.setdefault(by_name[name], set()).add(key)
    return changed


def is_authentic(event: AuditEvent) -> bool:
    """Whether this service wrote the event, as it is now. Anyone who can write to the database can chain an event.

    The message authentication code needs the secret key too: the present one, or one of CRPBOT_SECRET_KEY_FALLBACKS. It
    covers the body, so the columns must repeat the body.
    """
    is_whole = event.hash == hash_event(event.previous_hash, event.body) and not _list_changed_columns(event)
    return is_whole and _has_valid_mac(event)


def _has_valid_mac(event: AuditEvent) -> bool:
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return any(constant_time_compare(event.mac, _compute_mac(event.hash, key)) for key in keys)


def _list_changed_columns(event: AuditEvent) -> list[str]:
    """The columns that differ from the body. Readers filter by columns, and only the body is hashed."""
    stored = json.loads(event.body)
    return sorted(name for name, value in event.build_columns().items() if stored.get(name) != value)


def _compute_mac(event_hash: str, key: str) -> str:
    return salted_hmac("crpbot.audit", event_hash, secret=key, algorithm="sha256").hexdigest()


class Replay(Protocol):
    """Tables as they were when it was created, and what the events up to the head say of them."""

    def follow(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        """Take in an authentic event, the oldest first."""

    def find_differences(self) -> Iterable[str]:
        """A sentence for each row that is not as the events say."""


def compare_with(create: Callable[[], Replay]) -> None:
    """Let `verify` compare tables with the chain. `deploy` knows them, and is not imported here."""
    if create not in _replays:
        _replays.append(create)


def verify(kept_heads: Sequence[KeptHead] = ()) -> list[str]:
    """Check the chain up to its head, and what it says of the tables: each break. Empty means that all is intact.

    Locks nothing. Events are only appended, so those up to the head stay the same while they are checked. The tables are
    read in the transaction that reads the head. `kept_heads` were read from elsewhere before this call.
    """
    with _read_consistently():
        newest = AuditEvent.objects.order_by("-seq").values_list("seq", flat=True).first() or 0
        head = AuditHead.objects.filter(pk=1).first() or AuditHead(seq=0, hash=GENESIS)
        replays = [create() for create in _replays]
    wanted = {kept.seq for kept in kept_heads}
    hashes, accepted = dict[int, str](), set[tuple[int, str]]()

    def follow(event: AuditEvent) -> None:
        detail = json.loads(event.body)["detail"]
        for replay in replays:
            replay.follow(event, detail)
        if lost := detail.get(LOST_HEAD):
            accepted.add((lost["seq"], lost["hash"]))

    def read() -> Iterator[AuditEvent]:
        for event in _read_events(head.seq):
            if event.seq in wanted:
                hashes[event.seq] = event.hash
            yield event

    broken = [*_find_breaks(read(), head, follow)]
    if newest > head.seq:
        broken.append(f"event {newest}: it is after the head, which is {head.seq}")
    broken += [
        f"event {lost.seq}: the chain was cut short or rewritten; its end was {lost.hash} when it was kept elsewhere"
        for lost in find_contradicted(kept_heads, hashes, accepted)
    ]
    broken += [difference for replay in replays for difference in replay.find_differences()]
    return broken + [f"database guard {name}: it is missing or altered" for name in triggers.find_missing()]


@contextmanager
def _read_consistently() -> Iterator[None]:
    """One state of the database for several queries, without a lock: on SQLite, `atomic` would keep others from writing."""
    if connection.in_atomic_block:
        yield
        return
    begin = "BEGIN" if connection.vendor == "sqlite" else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    with connection.cursor() as cursor:
        cursor.execute(begin)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")


def _read_events(last_seq: int) -> Iterator[AuditEvent]:
    """The events up to `last_seq`, in order. By key, so that no transaction stays open meanwhile."""
    seq = 0
    while events := list(AuditEvent.objects.filter(seq__gt=seq, seq__lte=last_seq).order_by("seq")[:CHUNK]):
        yield from events
        seq = events[-1].seq


def _find_breaks(
    events: Iterable[AuditEvent], head: AuditHead, follow: Callable[[AuditEvent], None]
) -> Iterator[str]:
    seq, previous_hash = 0, GENESIS
    for event in events:
        if event.seq != seq + 1:
            yield f"event {event.seq}: event {seq + 1} is missing before it"
        if event.previous_hash != previous_hash:
            yield f"event {event.seq}: its previous hash is not that of the event before it"
        is_sound = False
        if event.hash != hash_event(event.previous_hash, event.body):
            yield f"event {event.seq}: its body was changed after it was written"
        elif not _has_valid_mac(event):
            yield f"event {event.seq}: it was not written with this service's secret key"
        else:
            is_sound = True
        if changed := _list_changed_columns(event):
            yield f"event {event.seq}: its columns differ from its body: {', '.join(changed)}"
        elif is_sound:
            follow(event)
        seq, previous_hash = event.seq, event.hash
    if (seq, previous_hash) != (head.seq, head.hash):
        yield (
            f"event {head.seq}: the chain ends at {seq}, but its head is {head.seq}: the tail was deleted or rewritten"
        )
