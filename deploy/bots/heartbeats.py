"""Storing heartbeats, many at a time.

One transaction for all of them, without the lock of the audit chain: a thousand bots acknowledge a move within seconds. A
bot that contradicts its revision's release becomes an audit event, once for each revision of the pointer.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import connection, transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from accounts.roles import Actor
from audit import services as audit
from common import correlation
from common.errors import Conflict, DomainError
from common.metrics import FLIP_SECONDS
from deploy.bots.heartbeat_checks import (
    CheckedHeartbeat,
    Expected,
    Heartbeat,
    ReceivedHeartbeat,
    check_heartbeat,
    find_refusal,
)
from deploy.models import Acknowledgement, Bot, Release
from deploy.pointer import pointer
from deploy.serving import snapshot

CLOCK_ERROR = timedelta(minutes=1)
"""A stored time that is further ahead comes from a clock that was wrong, and no longer counts as later."""
MAX_INSTANCES = 5_000
"""For each user with a bot token: invented instance names must not fill the disk."""

BotKey = tuple[str, str]
_Stored = tuple[CheckedHeartbeat, Bot]
"""A heartbeat, and its bot's row that it is stored in."""

# Raw SQL, in one query: a thousand bots need it within seconds of a move, and building three ORM queries costs more.
_SERVICE_STATE = """SELECT (SELECT name FROM deploy_serviceidentity), (SELECT MAX(revision) FROM deploy_pointermove),
    EXISTS (SELECT 1 FROM deploy_releasestatus WHERE state = 'awaiting_approval')"""


class _Flip(NamedTuple):
    bot: str
    expected: Expected
    seconds: float


class HeartbeatAnswer(NamedTuple):
    revision: int | None
    next: Release | None


def receive_heartbeat(heartbeat: Heartbeat, *, actor: Actor) -> HeartbeatAnswer:
    """Store one heartbeat; as `receive_heartbeats`, but a refusal is raised."""
    (outcome,) = receive_heartbeats([ReceivedHeartbeat(actor, heartbeat)])
    if isinstance(outcome, DomainError):
        raise outcome
    return outcome


def receive_heartbeats(batch: Sequence[ReceivedHeartbeat]) -> list[HeartbeatAnswer | DomainError]:
    """Store what these bots run, and the acknowledgements of those that report a revision for the first time.

    All are stored or none. Returns the answers in the same order; a refused heartbeat does not affect the others.
    NotAllowed: not a bot. InvalidInput: contradictory fields. Conflict: a bot of another service, or too many instances.
    """
    with connection.cursor() as cursor:
        cursor.execute(_SERVICE_STATE)
        name, revision, has_candidate = cursor.fetchone()
    service, now = name or snapshot.get_service_name(), timezone.now()
    refusals = [find_refusal(received, service) for received in batch]
    accepted = [received for received, refusal in zip(batch, refusals, strict=True) if refusal is None]
    stored = list[_Stored]()
    with transaction.atomic(savepoint=False):
        for round_ in _split_into_rounds(accepted):
            stored += _store_round([check_heartbeat(received, service) for received in round_], now)
    _record_mismatches({bot.pk: (checked, bot) for checked, bot in stored if checked.mismatch}, revision or 0)
    answer = HeartbeatAnswer(revision, pointer.get_announced() if has_candidate else None)
    known = {checked.bot_key for checked, _ in stored}
    return [
        refusal or (answer if received.bot_key in known else _refuse_instance(received))
        for received, refusal in zip(batch, refusals, strict=True)
    ]


def _split_into_rounds(batch: Sequence[ReceivedHeartbeat]) -> list[list[ReceivedHeartbeat]]:
    """At most one heartbeat a bot in each round, the earlier ones first: a bot may occur twice in a batch."""
    rounds, earlier = defaultdict[int, list[ReceivedHeartbeat]](list), Counter[BotKey]()
    for received in batch:
        rounds[earlier[received.bot_key]].append(received)
        earlier[received.bot_key] += 1
    return list(rounds.values())


def _store_round(round_: Sequence[CheckedHeartbeat], now: datetime) -> list[_Stored]:
    """Store one heartbeat a bot, in the caller's transaction. A new bot beyond MAX_INSTANCES is left out."""
    rows = _lock_rows(round_)
    _update_rows([checked for checked in round_ if checked.bot_key in rows], rows, now)
    bots = rows | _create_rows([checked for checked in round_ if checked.bot_key not in rows], now)
    stored = [(checked, bots[checked.bot_key]) for checked in round_ if checked.bot_key in bots]
    _acknowledge([row for row in stored if not row[0].repeats(rows.get(row[0].bot_key))], rows, now)
    return stored


def _lock_rows(batch: Sequence[ReceivedHeartbeat]) -> dict[BotKey, Bot]:
    """The rows of the known bots, locked in one order: another process may be writing to the same rows."""
    rows = _filter_bots(received.bot_key for received in batch).order_by("pk").select_for_update(no_key=True)
    return {
        (row.name, row.instance): row for row in rows.only("name", "instance", "reported_digest", "mismatch")
    }


def find_bots(keys: Iterable[BotKey]) -> dict[BotKey, Bot]:
    """The known ones of these bots."""
    return {(bot.name, bot.instance): bot for bot in _filter_bots(keys).only("name", "instance")}


def _filter_bots(keys: Iterable[BotKey]) -> QuerySet[Bot]:
    """By a list of pairs: as many alternatives, one for each owner, cost PostgreSQL more to plan than to find."""
    chosen = sorted(set(keys))
    if not chosen:
        return Bot.objects.none()
    pairs = ", ".join(["(%s, %s)"] * len(chosen))
    return Bot.objects.extra(
        where=[f"(deploy_bot.name, deploy_bot.instance) IN (VALUES {pairs})"],
        params=[text for key in chosen for text in key],
    )


def _update_rows(known: Sequence[CheckedHeartbeat], rows: Mapping[BotKey, Bot], now: datetime) -> None:
    """One update for all that report the same; never over a later heartbeat that another process stored."""
    groups = dict[tuple[object, ...], list[CheckedHeartbeat]]()
    for checked in known:
        groups.setdefault(checked.group_key, []).append(checked)
    for group in groups.values():
        bots = Bot.objects.filter(pk__in=[rows[checked.bot_key].pk for checked in group])
        is_earlier = Q(last_heard_at__lte=now) | Q(last_heard_at__gt=now + CLOCK_ERROR)
        bots.filter(is_earlier).update(**group[0].build_row(now))


def _create_rows(new: Sequence[CheckedHeartbeat], now: datetime) -> dict[BotKey, Bot]:
    """Rows of new bots, also in one order. A row that another process just created is updated."""
    if not new:
        return {}
    names = {checked.actor.name for checked in new}
    counts = Bot.objects.filter(name__in=names).order_by().values_list("name").annotate(Count("pk"))
    free = dict.fromkeys(names, MAX_INSTANCES) | {name: MAX_INSTANCES - count for name, count in counts}
    created = dict[BotKey, Bot]()
    for checked in sorted(new, key=lambda checked: checked.bot_key):
        name, instance = checked.bot_key
        if free[name] > 0:
            free[name] -= 1
            row = checked.build_row(now)
            created[name, instance] = Bot(name=name, instance=instance, first_heard_at=now, **row)
    Bot.objects.bulk_create(
        created.values(),
        update_conflicts=True,
        unique_fields=["name", "instance"],
        update_fields=list(new[0].build_row(now)),
    )
    return created


def _acknowledge(new: Sequence[_Stored], known: Collection[BotKey], now: datetime) -> None:
    rows, flips = list[Acknowledgement](), list[_Flip]()
    for checked, bot in new:
        if checked.expected is not None and not checked.mismatch:
            seconds = max(0.0, (now - checked.expected.moved_at).total_seconds())
            if checked.bot_key in known:
                flips.append(_Flip(str(bot), checked.expected, seconds))
            rows.append(Acknowledgement(bot=bot, move_id=checked.expected.revision, at=now, seconds=seconds))
    Acknowledgement.objects.bulk_create(rows, ignore_conflicts=True)
    transaction.on_commit(lambda: _observe(flips, now), robust=True)


def _observe(flips: Iterable[_Flip], now: datetime) -> None:
    for bot, expected, seconds in flips:
        FLIP_SECONDS.observe(seconds)
        correlation.record_span(
            "bot.acknowledge",
            expected.origin,
            began_at=expected.moved_at,
            ended_at=max(now, expected.moved_at),
            bot=bot,
            revision=expected.revision,
        )


def _refuse_instance(received: ReceivedHeartbeat) -> Conflict:
    return Conflict(
        f"{received.actor.name} has {MAX_INSTANCES} instances already. Give each instance a name that it keeps over"
        " restarts; instances that no longer report are deleted in time."
    )


def _record_mismatches(mismatched: Mapping[int, _Stored], revision: int) -> None:
    """At most one event for each bot and revision of the pointer, however often and whatever it reports."""
    unrecorded = Bot.objects.exclude(mismatch_revision=revision)
    keys = list(unrecorded.filter(pk__in=mismatched).values_list("pk", flat=True)) if mismatched else []
    if not keys:
        return
    with audit.locked():
        for key in keys:
            if unrecorded.filter(pk=key).update(mismatch_revision=revision):
                _record_mismatch(*mismatched[key])


def _record_mismatch(checked: CheckedHeartbeat, bot: Bot) -> None:
    heartbeat, expected = checked.heartbeat, checked.expected
    audit.record(
        "bot.mixture",
        bot,
        actor=checked.actor,
        reason=checked.mismatch,
        detail={
            "revision": heartbeat.revision,
            "release": heartbeat.running.release,
            "line": heartbeat.running.line,
            "bundles": dict(heartbeat.running.bundles),
            "expected": dict(expected.running.bundles) if expected else {},
            "client_version": heartbeat.client_version,
        },
    )
