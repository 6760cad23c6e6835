"""What is really running: every bot against what it must run, as the database has it at this moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import (
    Case,
    CharField,
    Count,
    Exists,
    F,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.utils import timezone

from accounts.models import ApiToken
from accounts.rules import Scope
from deploy.models import Acknowledgement, Bot, PointerMove, Release
from deploy.rules import HEARTBEATS_MISSED, BotState


@dataclass(frozen=True)
class Fleet:
    """The live bots, counted."""

    revision: int | None
    live: int
    current: int
    announced: Release | None
    ready: int
    """How many of them hold the announced release loaded."""
    fallback: Release | None = None
    holding: int = 0
    """How many of them hold the fallback loaded: a pin costs them no download."""

    @property
    def has_converged(self) -> bool:
        return self.live > 0 and self.current == self.live

    @property
    def are_ready(self) -> bool:
        return self.live > 0 and self.ready == self.live

    @property
    def can_be_pinned(self) -> bool:
        """Whether a pin would reach every live bot without a download."""
        return self.live > 0 and self.holding == self.live


def fleet(now: PointerMove | None, announced: Release | None, fallback: Release | None = None) -> Fleet:
    """The live bots against this move, and how many have at hand what awaits approval, and what a pin leads to."""
    counts = live().aggregate(
        live=Count("pk"),
        current=Count("pk", filter=_is_on(now)),
        ready=Count(
            "pk", filter=Q(prefetched_next=announced.pk if announced else 0)
        ),  # no release is number 0
        holding=Count("pk", filter=Q(prefetched_fallback=fallback.pk if fallback else 0)),
    )
    return Fleet(revision=now.revision if now else None, announced=announced, fallback=fallback, **counts)


def live() -> QuerySet[Bot]:
    """The bots that were heard of within three heartbeats."""
    return Bot.objects.filter(last_heard_at__gt=_live_since(timezone.now()))


def standing(at: PointerMove | None) -> QuerySet[Any]:
    """Every bot with its `state` (a BotState) at this moment, where `at` is where the pointer stands.

    `acknowledged_seconds` is how long it took to acknowledge that move; None where it has not, or came after it.
    """
    now = timezone.now()
    is_live = Q(last_heard_at__gt=_live_since(now))
    is_awaited = Q(last_heard_at__gt=now - timedelta(seconds=settings.BOT_GONE_SECONDS)) & _holds_a_token(now)
    late_since = now - timedelta(seconds=settings.BOT_LATE_SECONDS)
    has_moved_lately = Q(first_heard_at__gt=late_since)
    if at is not None and at.moved_at > late_since:
        has_moved_lately |= Q(pk__isnull=False)
    return Bot.objects.annotate(
        state=Case(
            When(~is_live & ~is_awaited, then=Value(BotState.GONE.value)),
            When(~Q(mismatch=""), then=Value(BotState.MIXTURE.value)),
            When(~is_live, then=Value(BotState.SILENT.value)),
            When(_is_on(at), then=Value(BotState.CURRENT.value)),
            When(has_moved_lately, then=Value(BotState.MOVING.value)),
            default=Value(BotState.BEHIND.value),
            output_field=CharField(),
        ),
        acknowledged_seconds=Subquery(_in_time(at).values("seconds")[:1]),
    )


def _in_time(at: PointerMove | None) -> QuerySet[Acknowledgement]:
    """The acknowledgement of this move by a bot that was there when it was made."""
    rows = Acknowledgement.objects.filter(bot=OuterRef("pk"), move=at)
    return rows.filter(bot__first_heard_at__lte=F("move__moved_at"))


def worst_first(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Rows of `standing`, what troubles somebody before what does not."""
    ranks = [When(state=state.value, then=Value(rank)) for rank, state in enumerate(BotState)]
    return rows.order_by(Case(*ranks, output_field=IntegerField()), "name", "instance")


def troubled(at: PointerMove | None) -> dict[BotState, Sequence[str]]:
    """The bots that are an alarm, by what is wrong with them, named."""
    late_since = timezone.now() - timedelta(seconds=settings.BOT_LATE_SECONDS)
    rows = standing(at).filter(
        Q(state__in=(BotState.MIXTURE.value, BotState.BEHIND.value))
        | Q(state=BotState.SILENT.value, last_heard_at__lte=late_since)
    )
    found: dict[BotState, list[str]] = {}
    for state, name, instance in rows.values_list("state", "name", "instance"):
        found.setdefault(BotState(state), []).append(f"{name} ({instance})")
    return {state: sorted(names) for state, names in found.items()}


def _is_on(at: PointerMove | None) -> Q:
    """Whether a bot says that it runs this move's release, the whole of it; nothing, before the first pointer."""
    return Q(revision=at.revision if at else None, mismatch="")


def _live_since(now: datetime) -> datetime:
    return now - timedelta(seconds=HEARTBEATS_MISSED * settings.BOT_HEARTBEAT_SECONDS)


def _holds_a_token(now: datetime) -> Q:
    """Whether it could report if it ran: a bot is retired by revoking its token."""
    tokens = ApiToken.objects.filter(
        user__username=OuterRef("name"), user__is_active=True, scope=Scope.BOT.value, revoked_at=None
    )
    return Q(Exists(tokens.exclude(expires_at__lte=now)))
