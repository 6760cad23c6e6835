"""Writing the chain: `record` an event, `transition` a state, `verify` the whole."""

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

    It lets `deploy` hear of a run that ended in `training`, which must not know of it. A callback that fails is logged
    and nothing else: `reconcile` looks at the world again within seconds.
    """
    if callback not in _subscribers:
        _subscribers.append(callback)


def lock_head() -> AuditHead:
    """Take the lock that puts deciding transactions in one order. Call it first in the transaction."""
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
        object_id="" if obj.pk is None else str(obj.pk),  # of what was refused before it came to be
        object_name=str(obj)[:200],
        reason=reason,
        previous_hash=head.hash,
    )
    event.body = to_canonical_json({**event.columns(), "detail": dict(detail or {})})
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
    """Move `obj` to another state: the only writer of a `state` column.

    `where` narrows the row further (a worker adds its attempt, so that a worker thought dead writes nothing);
    `updates` are columns that change with the state; a model that keeps a `reason` column gets the reason. Raises
    Conflict when the table of transitions forbids the move, or when somebody else moved first.
    """
    lock_head()
    before = obj.state  # type: ignore[attr-defined]
    if to not in obj.TRANSITIONS[before]:  # type: ignore[attr-defined]
        raise Conflict(f"{obj} is {before}; from there it cannot become {to}.")
    if any(field.name == "reason" for field in obj._meta.fields):
        updates["reason"] = reason
    rows = type(obj)._base_manager.filter(pk=obj.pk, state=before, **(where or {}))
    if rows.update(state=to, **updates) != 1:
        raise Conflict(f"{obj} is no longer {before}: somebody else moved it first. Look at it again.")
    for name, value in {"state": to, **updates}.items():
        setattr(obj, name, value)
    kind = f"{obj._meta.model_name}.{to}"
    event = record(kind, obj, actor=actor, reason=reason, detail={**(detail or {}), "from": before, "to": to})
    transaction.on_commit(lambda: _announce(obj))
    return event


def _announce(obj: models.Model) -> None:
    for callback in _subscribers:
        try:
            callback(obj)
        except Exception:
            logger.exception("a listener failed after %s", obj)


@contextmanager
def record_refusals(kind: str, obj: models.Model, *, actor: object, reason: str = "") -> Iterator[None]:
    """Write an event when the decision inside is refused; the refusal itself goes on to the caller.

    Put it outside the deciding transaction, whose rollback would otherwise take the event along.
    """
    try:
        yield
    except DomainError as refusal:
        detail = {"refused": refusal.message, "status": refusal.status}
        record(f"{kind}.refused", obj, actor=actor, reason=reason, detail=detail)
        raise


def verify() -> list[ChainBreak]:
    """Check the whole chain in one consistent read. An empty list is a sound chain."""
    with transaction.atomic():
        head = lock_head()
        events = AuditEvent.objects.order_by("seq").iterator(chunk_size=2000)
        return list(
            find_breaks((event.as_link() for event in events), head_seq=head.seq, head_hash=head.hash)
        )
