"""Heartbeats, written down many at a time.

One transaction for all of them, which takes no lock of the audit: a thousand bots acknowledge a move within seconds. A bot
that contradicts its revision's release becomes an event, once for each revision of the pointer.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Count, Q
from django.utils import timezone

from accounts.rules import Actor
from audit import services as audit
from common.errors import Conflict, DomainError, NotAllowed
from deploy.bots.heartbeat_checks import Heartbeat, Judged, Report, judged, require_sense
from deploy.models import Acknowledgement, Bot, Release
from deploy.pointer import pointer
from deploy.serving import snapshot

MOST_INSTANCES = 5_000
"""Of one token's user: made-up names fill no disk."""


# By hand, in one question: a thousand bots ask it within seconds of a move, and building three costs more than asking.
_WORLD = """SELECT (SELECT name FROM deploy_serviceidentity), (SELECT MAX(revision) FROM deploy_pointermove),
    EXISTS (SELECT 1 FROM deploy_releasestatus WHERE state = 'awaiting_approval')"""


@dataclass(frozen=True)
class _World:
    """What every heartbeat is held against."""

    service: str
    revision: int | None
    has_candidate: bool


def _world() -> _World:
    with connection.cursor() as cursor:
        cursor.execute(_WORLD)
        service, revision, has_candidate = cursor.fetchone()
    return _World(service or snapshot.get_service_name(), revision, bool(has_candidate))


@dataclass(frozen=True)
class Heard:
    """What a bot is told in return."""

    revision: int | None
    next: Release | None


def heartbeat(said: Heartbeat, *, actor: Actor) -> Heard:
    """Write down what one bot runs; as `heartbeats`, but a refusal is raised."""
    (outcome,) = heartbeats([Report(actor, said)])
    if isinstance(outcome, DomainError):
        raise outcome
    return outcome


def heartbeats(reports: Sequence[Report]) -> list[Heard | DomainError]:
    """Write down what these bots run, and acknowledge each one's revision where it is the first to name it: all or none.

    What each is told, in their order: NotAllowed for anybody but a bot, InvalidInput where what it says cannot be meant,
    Conflict for a bot that follows another service, and for one instance too many. A refused one leaves the others alone.
    """
    world, now = _world(), timezone.now()
    refusals = [_refusal(report, world.service) for report in reports]
    sound = [report for report, refusal in zip(reports, refusals, strict=True) if refusal is None]
    written = list[_Written]()
    with transaction.atomic(savepoint=False):
        for turn in _turns(sound):
            written += _write([judged(report, world.service) for report in turn], now)
    _record_mixtures([one for one in written if one.judged.mismatch], at=world.revision or 0)
    heard = Heard(world.revision, pointer.get_announced() if world.has_candidate else None)
    known = {one.judged.report.bot for one in written}
    return [
        refusal or (heard if report.bot in known else _crowded(report))
        for report, refusal in zip(reports, refusals, strict=True)
    ]


def _turns(reports: Sequence[Report]) -> list[list[Report]]:
    """One bot may have spoken twice meanwhile: then once in each turn, the first word first."""
    turns: list[dict[tuple[str, str], Report]] = []
    for report in reports:
        turn = next((turn for turn in turns if report.bot not in turn), None)
        if turn is None:
            turns.append(turn := {})
        turn[report.bot] = report
    return [list(turn.values()) for turn in turns]


def _refusal(report: Report, service: str) -> DomainError | None:
    try:
        if not report.actor.is_bot:
            raise NotAllowed(f"{report.actor} is no bot: only a bot's token says what a bot runs.")
        require_sense(report.said, service)
    except DomainError as refusal:
        return refusal
    return None


@dataclass(frozen=True)
class _Written:
    """A heartbeat that stands in its bot's row."""

    judged: Judged
    bot: Bot


def _write(turn: Sequence[Judged], now: datetime) -> list[_Written]:
    """Write one heartbeat a bot, in the caller's transaction; a new bot for which there is no room is left out."""
    before = _rows_of([one.report for one in turn])
    _update([one for one in turn if one.report.bot in before], before, now)
    bots = before | _made([one for one in turn if one.report.bot not in before], now)
    written = [_Written(one, bots[one.report.bot]) for one in turn if one.report.bot in bots]
    _acknowledge(
        [one for one in written if not one.judged.is_known_to(before.get(one.judged.report.bot))], now
    )
    return written


def _rows_of(reports: Sequence[Report]) -> dict[tuple[str, str], Bot]:
    """The known bots, locked in one order: another process may be writing to the same rows."""
    instances = dict[str, list[str]]()
    for report in reports:
        instances.setdefault(report.actor.name, []).append(report.said.instance)
    named = Q(pk=None)
    for name, these in instances.items():
        named |= Q(name=name, instance__in=these)
    rows = Bot.objects.filter(named).order_by("pk").select_for_update(no_key=True)
    return {
        (row.name, row.instance): row for row in rows.only("name", "instance", "reported_digest", "mismatch")
    }


def _update(known: Sequence[Judged], rows: Mapping[tuple[str, str], Bot], now: datetime) -> None:
    """One write for all that say the same; never over what another process heard later."""
    alike = dict[tuple[object, ...], list[Judged]]()
    for one in known:
        alike.setdefault(one.likeness, []).append(one)
    for these in alike.values():
        found = Bot.objects.filter(pk__in=[rows[one.report.bot].pk for one in these])
        found.filter(last_heard_at__lte=now).update(**these[0].columns(now))


def _made(news: Sequence[Judged], now: datetime) -> dict[tuple[str, str], Bot]:
    """Rows for those heard of for the first time, in one order too; one that another process has just made is it."""
    if not news:
        return {}
    room = _room({one.report.actor.name for one in news})
    made = dict[tuple[str, str], Bot]()
    for one in sorted(news, key=lambda one: one.report.bot):
        name, instance = one.report.bot
        if room[name] > 0:
            room[name] -= 1
            made[name, instance] = Bot(name=name, instance=instance, first_heard_at=now, **one.columns(now))
    Bot.objects.bulk_create(
        made.values(),
        update_conflicts=True,
        unique_fields=["name", "instance"],
        update_fields=list(news[0].columns(now)),
    )
    return made


def _room(names: Collection[str]) -> dict[str, int]:
    """How many more instances each of these tokens' users may have."""
    counted = Bot.objects.filter(name__in=names).order_by().values_list("name").annotate(Count("pk"))
    return dict.fromkeys(names, MOST_INSTANCES) | {name: MOST_INSTANCES - held for name, held in counted}


def _acknowledge(news: Sequence[_Written], now: datetime) -> None:
    Acknowledgement.objects.bulk_create(
        [
            Acknowledgement(
                bot=one.bot,
                move_id=expected.revision,
                at=now,
                seconds=max(0.0, (now - expected.moved_at).total_seconds()),
            )
            for one in news
            if (expected := one.judged.expected) is not None and not one.judged.mismatch
        ],
        ignore_conflicts=True,
    )


def _crowded(report: Report) -> Conflict:
    return Conflict(
        f"{report.actor.name} has {MOST_INSTANCES} instances already. Give an instance one name that it keeps over restarts;"
        " one that is not heard of any more is forgotten in time."
    )


def _record_mixtures(mixed: Sequence[_Written], *, at: int) -> None:
    """At most one event for each bot and revision of the pointer (`at`), whatever it says how often."""
    found = {one.bot.pk: one for one in mixed}
    unreported = Bot.objects.exclude(mismatch_revision=at)
    news = list(unreported.filter(pk__in=found).values_list("pk", flat=True)) if found else []
    if not news:
        return
    with audit.locked():
        for key in news:
            if unreported.filter(pk=key).update(mismatch_revision=at):
                _record_mixture(found[key])


def _record_mixture(one: _Written) -> None:
    said, expected = one.judged.report.said, one.judged.expected
    audit.record(
        "bot.mixture",
        one.bot,
        actor=one.judged.report.actor,
        reason=one.judged.mismatch,
        detail={
            "revision": said.revision,
            "release": said.running.release,
            "line": said.running.line,
            "bundles": dict(said.running.bundles),
            "expected": dict(expected.running.bundles) if expected else {},
            "client_version": said.client_version,
        },
    )
