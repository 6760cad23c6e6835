"""What bots say they run: their heartbeats, and the moment at which all of them had followed a move.

A heartbeat takes no lock of the audit: a thousand bots acknowledge a move within seconds. Only one that contradicts its
epoch's release becomes an event, once for each epoch of the pointer.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Max
from django.utils import timezone

from accounts.rules import GATE, Actor
from audit import services as audit
from audit.errors import Conflict, InvalidInput, NotAllowed
from audit.rules import canonical
from deploy import fleet, pointer, snapshot
from deploy.models import Acknowledgement, Bot, Convergence, PointerMove, Release, ReleaseCoin
from deploy.rules import Running, differences

MOST_INSTANCES = 5_000
"""Of one token's user: made-up names fill no disk."""


@dataclass(frozen=True)
class Heartbeat:
    """What a bot says of itself. `service` and `epoch` are None while it has no model."""

    instance: str
    client_version: str
    service: str | None
    epoch: int | None
    running: Running
    ready_for: int | None = None
    last_error: str = ""
    stale_since: datetime | None = None

    @property
    def claim(self) -> str:
        """One digest of what it says it runs."""
        running = self.running
        said = [self.epoch, running.release, running.line, dict(running.bundles)]
        return hashlib.sha256(canonical({"said": said}).encode()).hexdigest()


# By hand, in one question: a thousand bots ask it within seconds of a move, and building three costs more than asking.
_WORLD = """SELECT (SELECT name FROM deploy_serviceidentity), (SELECT MAX(epoch) FROM deploy_pointermove),
    EXISTS (SELECT 1 FROM deploy_releasestatus WHERE state = 'awaiting_approval')"""


@dataclass(frozen=True)
class _World:
    """What every heartbeat is held against."""

    service: str
    epoch: int | None
    has_candidate: bool


def _world() -> _World:
    with connection.cursor() as cursor:
        cursor.execute(_WORLD)
        service, epoch, has_candidate = cursor.fetchone()
    return _World(service or snapshot.service_name(), epoch, bool(has_candidate))


@dataclass(frozen=True)
class Heard:
    """What a bot is told in return."""

    epoch: int | None
    next: Release | None


def heartbeat(said: Heartbeat, *, actor: Actor) -> Heard:
    """Write down what a bot runs, and acknowledge its epoch when it is the first to name it.

    Raises NotAllowed for anybody but a bot, InvalidInput where what it says cannot be meant, Conflict for a bot that
    follows another service.
    """
    if not actor.is_bot:
        raise NotAllowed(f"{actor} is no bot: only a bot's token says what a bot runs.")
    world, now = _world(), timezone.now()
    _require_sense(said, world.service)
    known = Bot.objects.filter(name=actor.name, instance=said.instance)
    bot = next(iter(known.order_by().only("claim", "differs")), None)
    if bot is not None and bot.claim == said.claim and not bot.differs:
        Bot.objects.filter(pk=bot.pk).update(**_reported(said, now))
    else:
        _judge(said, bot, world, actor=actor, now=now)
    return Heard(world.epoch, pointer.announced() if world.has_candidate else None)


def _require_sense(said: Heartbeat, service: str) -> None:
    if said.service is not None and said.service != service:
        raise Conflict(
            f"This bot follows the service {said.service}, and this is {service}: their epochs are not comparable."
            " Give the bot this service's address, key and token, and a cache folder of its own."
        )
    running = said.running
    if said.epoch is None and (running.release is not None or running.line or running.bundles):
        raise InvalidInput("A bot that names no epoch runs no release and no bundles.", field="epoch")
    if said.epoch is not None and said.service is None:
        raise InvalidInput("Name the service whose epoch this is.", field="service")


def _reported(said: Heartbeat, now: datetime) -> dict[str, object]:
    """What may differ from one heartbeat to the next while the bot runs the same."""
    return {
        "client_version": said.client_version,
        "last_heard_at": now,
        "ready_for": said.ready_for,
        "last_error": said.last_error,
        "stale_since": said.stale_since,
    }


def _judge(said: Heartbeat, bot: Bot | None, world: _World, *, actor: Actor, now: datetime) -> None:
    """Hold what a bot says against what its epoch's release holds, and write down which it is."""
    expected = _expected(world.service, said.epoch)
    differs = _differs(said, expected)
    columns = {
        **_reported(said, now),
        "epoch": said.epoch,
        "line": said.running.line or "",
        "release_number": said.running.release,
        "bundles": dict(said.running.bundles),
        "claim": said.claim,
        "differs": differs,
    }
    with transaction.atomic():
        bot = _written(bot, columns, name=actor.name, instance=said.instance, now=now)
        if expected is not None and not differs:
            since = (now - expected.moved_at).total_seconds()
            row = Acknowledgement(bot=bot, move_id=expected.epoch, at=now, seconds=max(0.0, since))
            Acknowledgement.objects.bulk_create([row], ignore_conflicts=True)
    if differs:
        _record_mixture(bot, said, expected, differs, at=world.epoch or 0, actor=actor)


@dataclass(frozen=True)
class _Expected:
    """What one epoch said every bot must run. It never changes, so a process looks it up once."""

    epoch: int
    moved_at: datetime
    running: Running


def _expected(service: str, epoch: int | None) -> _Expected | None:
    """None without an epoch, and for one that this service never had."""
    try:
        return None if epoch is None else _of_the_epoch(service, epoch)
    except PointerMove.DoesNotExist:
        return None


@lru_cache(maxsize=64)
def _of_the_epoch(service: str, epoch: int) -> _Expected:
    """Raises PointerMove.DoesNotExist, which is not remembered: the epoch may come."""
    move = PointerMove.objects.select_related("release").get(pk=epoch)
    rows = ReleaseCoin.objects.filter(release=move.release, bundle__isnull=False)
    bundles = dict(rows.values_list("coin__symbol", "bundle__digest")) if move.release else {}
    line = move.release.line if move.release else None
    return _Expected(epoch, move.moved_at, Running(move.release_id, line, bundles))


def _differs(said: Heartbeat, expected: _Expected | None) -> str:
    if said.epoch is None:
        return ""
    if expected is None:
        return f"this service never had epoch {said.epoch}"
    return differences(said.running, expected.running)


def _written(
    bot: Bot | None, columns: Mapping[str, object], *, name: str, instance: str, now: datetime
) -> Bot:
    if bot is not None:
        Bot.objects.filter(pk=bot.pk).update(**columns)
        return bot
    if Bot.objects.filter(name=name).count() >= MOST_INSTANCES:
        raise Conflict(
            f"{name} has {MOST_INSTANCES} instances already. Give an instance one name that it keeps over restarts; one"
            " that is not heard of any more is forgotten in time."
        )
    known = {"name": name, "instance": instance}
    first = {**columns, **known, "first_heard_at": now}
    return Bot.objects.update_or_create(**known, defaults=columns, create_defaults=first)[0]


def _record_mixture(
    bot: Bot, said: Heartbeat, expected: _Expected | None, differs: str, *, at: int, actor: Actor
) -> None:
    """At most one event for each bot and epoch of the pointer (`at`), whatever it says how often."""
    unreported = Bot.objects.filter(pk=bot.pk).exclude(differed_at_epoch=at)
    if not unreported.exists():
        return
    with transaction.atomic():
        audit.lock_head()
        if unreported.update(differed_at_epoch=at):
            holds = dict(expected.running.bundles) if expected else {}
            audit.record(
                "bot.mixture",
                bot,
                actor=actor,
                reason=differs,
                detail={
                    "epoch": said.epoch,
                    "release": said.running.release,
                    "line": said.running.line,
                    "bundles": dict(said.running.bundles),
                    "expected": holds,
                    "client_version": said.client_version,
                },
            )


def watch_bots() -> None:
    """Write down when a move has converged, and forget bots that nobody has heard of for long."""
    record_convergence()
    forget()


def record_convergence() -> Convergence | None:
    """The pointer's epoch, once every live bot has acknowledged it: recorded once, with an event."""
    now = pointer.current()
    if now is None or Convergence.objects.filter(pk=now.epoch).exists():
        return None
    found = fleet.fleet(now, None)
    if not found.has_converged:
        return None
    slowest = slowest_seconds(now)
    with transaction.atomic():
        audit.lock_head()
        if Convergence.objects.filter(pk=now.epoch).exists():
            return None  # another reconciler was first
        made = Convergence.objects.create(
            move=now, at=timezone.now(), bots=found.live, slowest_seconds=slowest
        )
        detail = {"bots": found.live, "slowest_seconds": slowest}
        audit.record("pointer.converged", now, actor=GATE, reason=f"{found.live} bots run it", detail=detail)
    return made


def slowest_seconds(move: PointerMove) -> float | None:
    """The longest that a live bot took which was there when the pointer moved; None where there was none."""
    rows = Acknowledgement.objects.filter(
        move=move, bot__in=fleet.live(), bot__first_heard_at__lte=F("move__moved_at")
    )
    slowest: float | None = rows.aggregate(slowest=Max("seconds"))["slowest"]
    return slowest


def forget() -> None:
    """Bots that were not heard of for very long, and acknowledgements as old, go; those of the pointer's epoch stay."""
    before = timezone.now() - timedelta(seconds=settings.BOT_KEPT_SECONDS)
    last = PointerMove.objects.aggregate(epoch=Max("epoch"))["epoch"]
    for rows in (
        Acknowledgement.objects.filter(at__lt=before).exclude(move_id=last),
        Bot.objects.filter(last_heard_at__lt=before),
    ):
        if rows.exists():
            rows.delete()
