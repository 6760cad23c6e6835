"""The lives of machines: requested, ordered, followed by what the cloud says, and ended with their bill."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from accounts.roles import GATE
from audit import services as audit
from machines.cloud.protocol import Instance, Order, Sighting
from machines.configuration import Configuration
from machines.control import costs
from machines.models import THE_ONE, Machine
from machines.rules import WATCHDOG_SECONDS, MachineState, Market
from training.jobs.worker_registry import compute_alive_since
from training.models import Worker

SETTLING = timedelta(seconds=180)
"""The cloud's list may lack an instance for some time after it was started, or still show its last end."""
FOUND_SECONDS = 300
"""Within this an instance that nobody asked for must have ended."""
OPEN_STATES = tuple(state for state in MachineState if not state.has_ended)


def list_open() -> QuerySet[Machine]:
    """The requested machine, and found instances that have not ended yet."""
    return Machine.objects.filter(state__in=OPEN_STATES).select_related("budget").order_by("pk")


@audit.locked()
def request(
    configuration: Configuration,
    *,
    market: Market,
    usd_per_hour: Decimal,
    allowed_seconds: int,
    actor: object,
    reason: str,
    budget_id: int | None = None,
    at: datetime | None = None,
) -> Machine:
    """Store that a machine is wanted. The controller orders it; the unique slot lets no second one in."""
    machine = Machine.objects.create(
        life=str(uuid.uuid4()),
        slot=THE_ONE,
        reason=reason,
        budget_id=budget_id,
        requested_by=str(actor),
        instance_type=configuration.instance_type,
        region=configuration.region,
        market=market,
        usd_per_hour=usd_per_hour,
        allowed_seconds=allowed_seconds,
        requested_at=at or timezone.now(),
    )
    detail = {
        "market": market,
        "usd_per_hour": str(usd_per_hour),
        "allowed_seconds": allowed_seconds,
        "budget": budget_id,
    }
    audit.record("machine.requested", machine, actor=actor, reason=reason, detail=detail)
    return machine


def build_order(machine: Machine) -> Order:
    return Order(
        life=machine.life,
        instance_type=machine.instance_type,
        market=Market(machine.market),
        usd_per_hour=machine.usd_per_hour,
        allowed_seconds=machine.allowed_seconds,
    )


def find_instance(machine: Machine, sighting: Sighting) -> Instance | None:
    """By its id; before that is known by its life, the oldest first should there be two."""
    if machine.instance_id:
        found = [each for each in sighting.instances if each.id == machine.instance_id]
    else:
        found = [each for each in sighting.instances if each.life == machine.life]
    return min(found, key=lambda each: (each.started_at or sighting.at, each.id), default=None)


def note_order(configuration: Configuration, machine: Machine, sighting: Sighting) -> None:
    """Store, before the cloud is asked, how its answer will be told from what was there before."""
    if machine.ordered_at is not None:
        return
    machine.ordered_at = sighting.at
    given = (each.started_at for each in sighting.instances if each.id == configuration.instance)
    machine.previous_start_at = next(given, None)
    machine.save(update_fields=["ordered_at", "previous_start_at"])


def begin(machine: Machine, instance_id: str) -> None:
    """The cloud has taken the order."""
    reason = f"{instance_id} was started"
    audit.transition(machine, MachineState.STARTING, actor=GATE, reason=reason, instance_id=instance_id)


def follow(machine: Machine, sighting: Sighting) -> None:
    """Take over what the cloud says of it: its start, that it runs, its end; and what it has cost so far."""
    instance = find_instance(machine, sighting)
    if machine.state == MachineState.REQUESTED:
        if instance is None or not _has_begun(machine, instance):
            return
        begin(machine, instance.id)  # the answer to an earlier start was lost
    is_young = sighting.at - (machine.ordered_at or machine.requested_at) < SETTLING
    if instance is None:
        if not is_young:
            _end(machine, sighting.at, None, "the cloud no longer lists it")
        return
    if _has_begun(machine, instance):
        # One that ran before it was asked for is paid for from then on.
        was_there = instance.started_at == machine.previous_start_at
        machine.started_at = machine.ordered_at if was_there else instance.started_at
    if instance.has_ended:
        if machine.started_at is not None or not is_young:
            _end(machine, sighting.at, instance, machine.stop_reason or instance.end_reason or "it ended")
        return
    _look_at(machine, sighting.at)
    if instance.is_running and machine.state == MachineState.STARTING:
        audit.transition(machine, MachineState.RUNNING, actor=GATE, reason="the instance runs")
    if instance.instance_type != machine.instance_type and not machine.stop_reason:
        ask_to_stop(
            machine,
            actor=GATE,
            reason=f"it is a {instance.instance_type} and not the {machine.instance_type} that its price is for",
        )


def _has_begun(machine: Machine, instance: Instance) -> bool:
    """Whether this is the start that was ordered. A given instance that is stopped still shows the one before."""
    return not instance.has_ended or instance.started_at != machine.previous_start_at


def _look_at(machine: Machine, at: datetime) -> None:
    """Store what it has cost until now, and whether its worker works."""
    machine.seen_at = at
    machine.billed_seconds, machine.cost_usd = costs.compute_bill(machine, at)
    alive = Worker.objects.filter(
        name=costs.get_worker_name(machine), last_heard_at__gte=compute_alive_since()
    )
    if machine.worker_heard_at is None and alive.exists():
        machine.worker_heard_at = at
    if costs.list_held_runs(machine):
        machine.busy_at = at
    machine.save(
        update_fields=[
            *("started_at", "seen_at", "billed_seconds", "cost_usd", "worker_heard_at", "busy_at"),
        ]
    )
    costs.record_uses(machine)
    costs.share_bill(machine)


@audit.locked()
def _end(machine: Machine, at: datetime, instance: Instance | None, reason: str) -> None:
    """Its bill is final from here on, and the audit history has it beside what its runs were reckoned to cost."""
    costs.record_uses(machine)
    named = instance.ended_at if instance is not None else None
    ended_at = named or _estimate_end(machine, at)
    if machine.started_at is not None:
        ended_at = max(ended_at, machine.started_at)
    seconds, cost = costs.compute_bill(machine, ended_at)
    uses = {use.run_id: use for use in machine.uses.all()}
    machine.cost_usd = cost
    detail = {
        "instance": machine.instance_id,
        "started_at": machine.started_at.isoformat() if machine.started_at else None,
        "ended_at": ended_at.isoformat(),
        "billed_seconds": seconds,
        "usd_per_hour": str(machine.usd_per_hour),
        "cost_usd": str(cost),
        "estimate_usd": str(sum((use.estimate_usd for use in uses.values()), Decimal(0))),
    }
    audit.transition(
        machine,
        MachineState.STOPPED,
        actor=machine.stop_asked_by or GATE,
        reason=reason,
        detail=detail,
        slot=None,
        started_at=machine.started_at,
        ended_at=ended_at,
        is_end_exact=named is not None or machine.started_at is None,
        is_reclaimed=instance is not None and instance.is_reclaimed,
        billed_seconds=seconds,
        cost_usd=cost,
    )
    costs.share_bill(machine)


def _estimate_end(machine: Machine, at: datetime) -> datetime:
    """The latest time at which it can have ended: its watchdog ends it at its bound, or when nobody looks at it."""
    latest = [at]
    if machine.started_at is not None:
        latest.append(machine.started_at + timedelta(seconds=machine.allowed_seconds))
    if machine.seen_at is not None:
        latest.append(machine.seen_at + timedelta(seconds=WATCHDOG_SECONDS))
    return min(latest)


@audit.locked()
def fail(machine: Machine, reason: str, at: datetime, **columns: Any) -> None:
    """The cloud started none."""
    audit.transition(
        machine, MachineState.FAILED, actor=GATE, reason=reason[:1000], slot=None, ended_at=at, **columns
    )


@audit.locked()
def ask_to_stop(machine: Machine, *, actor: object, reason: str) -> None:
    """The controller stops it at its next look."""
    machine.stop_asked_at = timezone.now()
    machine.stop_asked_by = str(actor)
    machine.stop_reason = reason
    machine.save(update_fields=["stop_asked_at", "stop_asked_by", "stop_reason"])
    audit.record("machine.stop_asked", machine, actor=actor, reason=reason)


def find_orphans(open_lives: Sequence[Machine], sighting: Sighting) -> list[Instance]:
    """Instances of this service that no open life accounts for."""
    known = {machine.instance_id for machine in open_lives if not machine.has_ended}
    return [
        each for each in sighting.instances if each.is_ours and not each.has_ended and each.id not in known
    ]


@audit.locked()
def adopt_orphan(configuration: Configuration, orphan: Instance, at: datetime) -> Machine:
    """A life for an instance that was found: its bill counts like any other, and it is stopped."""
    reason = f"{orphan.id} runs, and no machine that was requested is this one"
    price = costs.find_price(orphan.instance_type, configuration.region, orphan.market)
    age = (at - orphan.started_at).total_seconds() if orphan.started_at else 0.0
    machine = Machine.objects.create(
        life=str(uuid.uuid4()),
        state=MachineState.STOPPING,
        reason=reason,
        requested_by=str(GATE),
        instance_id=orphan.id,
        instance_type=orphan.instance_type,
        region=configuration.region,
        market=orphan.market,
        usd_per_hour=price if price is not None else Decimal(settings.WORKER_RATE_USD_PER_HOUR),
        allowed_seconds=int(age) + FOUND_SECONDS,
        requested_at=at,
        ordered_at=at,
        started_at=orphan.started_at,
        stop_reason=reason,
    )
    audit.record("machine.found", machine, actor=GATE, reason=reason, detail={"life": orphan.life})
    return machine
