"""What the bots' predictions look like under the pointer's revision, as the database has it at this moment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import add

from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Sum

from deploy.bots import fleet
from deploy.bots.live_rules import must_hold_back
from deploy.models import Bot, LiveWindow, PointerMove, Release, ReleaseCoin
from deploy.pointer import pointer
from gates.catalogue.live import RECENT_PREDICTIONS, Tally
from training.models import Coin

RECENT_WINDOWS = 20
"""A bot that decides once an hour sends windows of one prediction: so many are looked at, at most."""
REASON_NAMES = 3
WINDOWS_DRAWN = 500
AGAINST_SHOWN = 10


@dataclass(frozen=True)
class Conduct:
    """The live bots on the pointer's revision, and what is held against their predictions."""

    move: PointerMove
    live: int
    breaching: Sequence[LiveWindow]
    """The newest window of each of them and each coin, where it tripped."""
    wandering: Sequence[LiveWindow]

    @property
    def bots(self) -> list[Bot]:
        """Those whose predictions breach, each once."""
        return list({window.bot_id: window.bot for window in self.breaching}.values())

    @property
    def calls_for_a_pin(self) -> bool:
        return must_hold_back(kind=self.move.kind, breaching=len(self.bots), live=self.live)

    @property
    def reason(self) -> str:
        """Who breaches what, with the figures of the first few."""
        bots = self.bots
        told = [f"{window.bot}: {window.coin} {window.breach}" for window in self.breaching[:REASON_NAMES]]
        rest = len(self.breaching) - len(told)
        return (
            f"{len(bots)} of {self.live} live bots on revision {self.move.revision} breach the live gates: "
            + "; ".join(told)
            + (f"; and {rest} more" if rest else "")
        )


def conduct(move: PointerMove | None = None) -> Conduct | None:
    """Under this move, or where the pointer stands; None before the first.

    A bot counts when it is live, on the revision, and runs what that holds.
    """
    move = move or pointer.get_current()
    if move is None:
        return None
    bots = fleet.live().filter(revision=move.revision, mismatch="")
    spoken = newest_of(move).exclude(breach="", warning="").filter(bot__in=bots)
    found = list(spoken.select_related("bot", "coin").order_by("bot", "coin"))
    return Conduct(
        move=move,
        live=bots.count() if found else 0,  # nobody asks how many they are while nothing is held against any
        breaching=[window for window in found if window.breach],
        wandering=[window for window in found if window.warning],
    )


def newest_of(move: PointerMove) -> QuerySet[LiveWindow]:
    """The last window of each bot and coin under this move's revision."""
    later = LiveWindow.objects.filter(
        move=move, bot=OuterRef("bot"), coin=OuterRef("coin"), pk__gt=OuterRef("pk")
    )
    return LiveWindow.objects.filter(~Exists(later), move=move)


def tallies(bot: Bot, move: PointerMove, coin: Coin, newest: Tally) -> tuple[Tally, Tally]:
    """What this bot predicted of this coin lately, and under the whole revision, both with the newest window.

    The whole is added up as far as its gates need it: counts, not confidence or logits.
    """
    rows = LiveWindow.objects.filter(bot=bot, move=move, coin=coin)
    columns = ("predictions", "non_finite", "down", "neutral", "up", "out_of_range")
    is_ranged = Q(out_of_range__isnull=False)
    sums = rows.aggregate(
        **{f"all_{name}": Sum(name, default=0) for name in columns},
        all_ranged=Sum(F("predictions") - F("non_finite"), filter=is_ranged, default=0),
    )
    before = Tally(
        sums["all_predictions"],
        sums["all_non_finite"],
        (sums["all_down"], sums["all_neutral"], sums["all_up"]),
        out_of_range=sums["all_out_of_range"],
        ranged=sums["all_ranged"],
    )
    return _recent(newest, rows.order_by("-pk")[: RECENT_WINDOWS - 1]), before + newest


def _recent(newest: Tally, earlier: Iterable[LiveWindow]) -> Tally:
    found = newest
    for window in earlier if found.predictions < RECENT_PREDICTIONS else ():
        found += window.tally
        if found.predictions >= RECENT_PREDICTIONS:
            break
    return found


@dataclass(frozen=True)
class CoinLive:
    """What bots said of one coin of a release, as far as windows are kept."""

    coin: Coin
    predictions: int
    bots: int
    last_at: datetime
    against: Sequence[LiveWindow]
    """The newest of each bot under the release's last revision, where it trips or wanders."""


def of_release(release: Release) -> list[CoinLive]:
    """Each coin that bots have predicted with this release."""
    rows = (
        LiveWindow.objects.filter(move__release=release)
        .order_by("coin__symbol")
        .values("coin")
        .annotate(
            all_predictions=Sum("predictions"), bots=Count("bot", distinct=True), last_at=Max("received_at")
        )
    )
    coins = Coin.objects.in_bulk([row["coin"] for row in rows])
    last = PointerMove.objects.filter(release=release).first()
    against: dict[int, list[LiveWindow]] = {}
    if last is not None and coins:
        spoken = newest_of(last).exclude(breach="", warning="").select_related("bot")
        for window in spoken.order_by("bot"):
            against.setdefault(window.coin_id, []).append(window)
    return [
        CoinLive(
            coins[row["coin"]],
            row["all_predictions"],
            row["bots"],
            row["last_at"],
            against.get(row["coin"], [])[:AGAINST_SHOWN],
        )
        for row in rows
    ]


def newest_windows(release_coin: ReleaseCoin) -> list[LiveWindow]:
    """The last windows of this coin under this release, the oldest first."""
    rows = LiveWindow.objects.filter(move__release=release_coin.release_id, coin=release_coin.coin_id)
    return list(rows.order_by("-pk")[:WINDOWS_DRAWN])[::-1]


def added(windows: Iterable[LiveWindow]) -> Tally:
    return reduce(add, (window.tally for window in windows), Tally())
