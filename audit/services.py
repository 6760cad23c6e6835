"""The audit chain: `record` an event, `transition` a state, `verify` the chain."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db import models, transaction
from django.utils import timezone

from audit.models import AuditEvent, AuditHead
from audit.rules import ChainBreak, find_breaks, hash_event, to_canonical_json
from common.errors import Conflict, DomainError

logger = logging.getLogger(__name__)
_subscribers: list[Callable[[models.Model], None]] = []


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
    kind: str,
    obj: models.Model,
    *,
    actor: object,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
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
    event.save(force_insert=True)
    AuditHead.objects.filter(pk=1).update(seq=event.seq, hash=event.hash)
    return event


@transaction.atomic
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
    lock_head()
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
    kind = f"{obj._meta.model_name}.{to}"
    event = record(
        kind, obj, actor=actor, reason=reason, detail={**(detail or {}), "from": previous, "to": to}
    )
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

    Use it outside the deciding transaction, whose rollback would also remove the event.
    """
    try:
        yield
    except DomainError as refusal:
        detail = {"refused": refusal.message, "status": refusal.status}
        record(f"{kind}.refused", obj, actor=actor, reason=reason, detail=detail)
        raise


def verify() -> list[ChainBreak]:
    """Check the whole chain in one consistent read; an empty list means that it is intact."""
    with transaction.atomic():
        head = lock_head()
        events = AuditEvent.objects.order_by("seq").iterator(chunk_size=2000)
        return list(
            find_breaks((event.to_link() for event in events), head_seq=head.seq, head_hash=head.hash)
        )
