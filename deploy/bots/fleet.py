"""Every bot compared with what it must run, from the database at this moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Case, Count, Exists, F, OuterRef, Q, QuerySet, Subquery, Value, When
from django.utils import timezone

from accounts.models import ApiToken
from accounts.roles import Scope
from audit.models import AuditEvent
from deploy.models import Acknowledgement, Bot, PointerMove, Release
from deploy.rules import HEARTBEATS_MISSED, BotState


@dataclass(frozen=True)
class Fleet:
    """Counts of the bots that are live, and of those that are silent though they could report."""

    revision: int | None
    live: int
    silent: int
    """Of these it is not known what they run."""
    current: int
    announced: Release | None
    prefetched_next: int
    """How many of them have the announced release loaded."""
    fallback: Release | None = None
    prefetched_fallback: int = 0
    """How many of them have the fallback loaded: a pin costs them no download."""

    @property
    def has_converged(self) -> bool:
        return self.live > 0 and self.current == self.live

    @property
    def known(self) -> int:
        return self.live + self.silent

    @property
    def all_have_next(self) -> bool:
        return 0 < self.known == self.prefetched_next

    @property
    def all_have_fallback(self) -> bool:
        return 0 < self.known == self.prefetched_fallback


def count_bots(move: PointerMove | None, announced: Release | None, fallback: Release | None = None) -> Fleet:
    """How many live bots run this move, and have the announced release and the fallback loaded; how many are silent."""
    now = timezone.now()
    is_live = _is_live(now)
    counts = Bot.objects.filter(is_live | _is_expected(now)).aggregate(
        live=Count("pk", filter=is_live),
        silent=Count("pk", filter=~is_live),
        current=Count("pk", filter=is_live & _runs_move(move)),
        # No release has the number 0.
        prefetched_next=Count("pk", filter=is_live & Q(prefetched_next=announced.pk if announced else 0)),
        prefetched_fallback=Count(
            "pk", filter=is_live & Q(prefetched_fallback=fallback.pk if fallback else 0)
        ),
    )
    return Fleet(revision=move.revision if move else None, announced=announced, fallback=fallback, **counts)


def list_live_bots() -> QuerySet[Bot]:
    """The bots that sent a heartbeat within the last three heartbeat intervals, and did not stop on purpose."""
    return Bot.objects.filter(_is_live(timezone.now()))


def list_bots_with_state(move: PointerMove | None) -> QuerySet[Any]:
    """Every bot with its `state` (a BotState) at this moment, compared with the current move.

    `is_awaited` tells whether it does not report though it is expected to: it can be retired. `acknowledged_seconds` is
    how long it took to acknowledge the move; None if it has not, or was first heard later.
    """
    now = timezone.now()
    is_live, is_awaited = _is_live(now), ~_is_live(now) & _is_expected(now)
    late_since = now - timedelta(seconds=settings.BOT_LATE_SECONDS)
    is_recent = Q(first_heard_at__gt=late_since)
    if move is not None and move.moved_at > late_since:
        is_recent |= Q(pk__isnull=False)
    acknowledgements = Acknowledgement.objects.filter(
        bot=OuterRef("pk"), move=move, bot__first_heard_at__lte=F("move__moved_at")
    )
    return Bot.objects.annotate(
        state=Case(
            When(~is_live & ~_is_expected(now), then=Value(BotState.GONE.value)),
            When(~Q(mismatch=""), then=Value(BotState.MIXTURE.value)),
            When(~is_live, then=Value(BotState.SILENT.value)),
            When(_runs_move(move), then=Value(BotState.CURRENT.value)),
            When(is_recent, then=Value(BotState.MOVING.value)),
            default=Value(BotState.BEHIND.value),
        ),
        is_awaited=Case(When(is_awaited, then=Value(True)), default=Value(False)),
        acknowledged_seconds=Subquery(acknowledgements.values("seconds")[:1]),
    )


def order_by_urgency(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Rows of `list_bots_with_state`, problems first."""
    ranks = [When(state=state.value, then=Value(rank)) for rank, state in enumerate(BotState)]
    return rows.order_by(Case(*ranks), "name", "instance")


def list_problem_bots(move: PointerMove | None) -> dict[BotState, Sequence[str]]:
    """The names of the bots that cause an alarm, by their state."""
    late_since = timezone.now() - timedelta(seconds=settings.BOT_LATE_SECONDS)
    rows = list_bots_with_state(move).filter(
        Q(state__in=(BotState.MIXTURE.value, BotState.BEHIND.value))
        | Q(state=BotState.SILENT.value, last_heard_at__lte=late_since)
    )
    names: dict[BotState, list[str]] = {}
    for state, name, instance in rows.values_list("state", "name", "instance"):
        names.setdefault(BotState(state), []).append(f"{name} ({instance})")
    return {state: sorted(names_in_state) for state, names_in_state in names.items()}


def list_bots_ahead_of_chain() -> Sequence[str]:
    """The bots that saw a signed audit head which the audit chain does not hold: it was cut short or rewritten."""
    events = AuditEvent.objects.filter(seq=OuterRef("audit_seq"), hash=OuterRef("audit_hash"))
    rows = Bot.objects.filter(~Exists(events), audit_seq__isnull=False).order_by("name", "instance")
    return [f"{name} ({instance})" for name, instance in rows.values_list("name", "instance")]


def _runs_move(move: PointerMove | None) -> Q:
    """Whether a bot reports exactly this move's release; before the first move, no revision at all."""
    return Q(revision=move.revision if move else None, mismatch="")


def _is_live(now: datetime) -> Q:
    live_since = now - timedelta(seconds=HEARTBEATS_MISSED * settings.BOT_HEARTBEAT_SECONDS)
    return Q(last_heard_at__gt=live_since, is_stopped=False)


def _is_expected(now: datetime) -> Q:
    """Whether a bot that is not live counts as silent, and not as gone."""
    gone_since = now - timedelta(seconds=settings.BOT_GONE_SECONDS)
    return Q(last_heard_at__gt=gone_since, is_stopped=False) & _has_valid_token(now)


def _has_valid_token(now: datetime) -> Q:
    """Whether the bot could report at all."""
    tokens = ApiToken.objects.filter(
        user__username=OuterRef("name"), user__is_active=True, scope=Scope.BOT.value, revoked_at=None
    )
    return Q(Exists(tokens.exclude(expires_at__lte=now)))
