"""The live windows of the bots: which breach a live gate under the current revision, and sums of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Sum
from django.utils import timezone

from deploy.bots import fleet
from deploy.bots.live_rules import is_majority, must_pin_fallback
from deploy.models import Bot, LiveWindow, PointerMove, Release, ReleaseCoin
from deploy.pointer import pointer
from deploy.rules import MoveKind
from gates.catalogue.live import RECENT_PREDICTIONS, Tally, count_needed_predictions
from gates.services import policies
from training.models import Coin

RECENT_WINDOWS = 20
"""At most so many windows count as recent: a bot that decides once an hour sends windows of one prediction."""
PREDICTS_WITHIN = timedelta(hours=24)
"""A bot that has sent no window for so long, under whichever revision, does not predict, and has no say."""
MAX_WINDOWS_IN_REASON = 3
MAX_CHART_WINDOWS = 500
MAX_FLAGGED_SHOWN = 10


@dataclass(frozen=True)
class LiveGateStatus:
    """The live bots on one revision, their newest windows that breach a live gate or warn, and their votes."""

    move: PointerMove
    predicting: Mapping[str, int]
    """By the name of a token's owner, its bots that predict. Empty while no window breaches: nobody votes then."""
    breaching: Sequence[LiveWindow]
    drifting: Sequence[LiveWindow]

    @property
    def breaching_bots(self) -> list[Bot]:
        """The bots of the breaching windows, each once."""
        return list({window.bot_id: window.bot for window in self.breaching}.values())

    @property
    def votes(self) -> Sequence[str]:
        """The owners most of whose predicting bots breach. Each owner has one vote, however many bots it runs."""
        breaching = Counter(bot.name for bot in self.breaching_bots)
        return [name for name, count in self.predicting.items() if is_majority(breaching[name], count)]

    @property
    def must_pin(self) -> bool:
        return must_pin_fallback(kind=self.move.kind, breaching=len(self.votes), voters=len(self.predicting))

    @property
    def reason(self) -> str:
        """Which bots breach which gates, with the figures of the first few."""
        shown = [
            f"{window.bot}: {window.coin} {window.breach}"
            for window in self.breaching[:MAX_WINDOWS_IN_REASON]
        ]
        rest = len(self.breaching) - len(shown)
        return (
            f"{len(self.breaching_bots)} of {sum(self.predicting.values())} bots that predict on revision"
            f" {self.move.revision} breach the live gates ({len(self.votes)} of {len(self.predicting)} owners): "
            + "; ".join(shown)
            + (f"; and {rest} more" if rest else "")
        )


def load_live_gate_status(move: PointerMove | None = None) -> LiveGateStatus | None:
    """The status under this move or the current one; None before the first.

    A bot counts if it is live, runs exactly the release of the revision, and has sent a window within PREDICTS_WITHIN.
    """
    move = move or pointer.get_current()
    if move is None:
        return None
    bots = fleet.list_live_bots().filter(revision=move.revision, mismatch="")
    windows = list(_list_flagged_windows(move).filter(bot__in=bots).order_by("bot", "coin"))
    return LiveGateStatus(
        move=move,
        predicting=_count_predicting(bots) if any(window.breach for window in windows) else {},
        breaching=[window for window in windows if window.breach],
        drifting=[window for window in windows if window.warning],
    )


def _count_predicting(bots: QuerySet[Bot]) -> dict[str, int]:
    since = timezone.now() - PREDICTS_WITHIN
    windows = LiveWindow.objects.filter(bot=OuterRef("pk"), received_at__gt=since)
    return dict(Counter(bots.filter(Exists(windows)).values_list("name", flat=True)))


def _list_flagged_windows(move: PointerMove) -> QuerySet[LiveWindow]:
    """The newest window of each bot and coin under this move's revision, if it breaches or warns."""
    windows = LiveWindow.objects.filter(move=move)
    later = windows.filter(bot=OuterRef("bot"), coin=OuterRef("coin"), pk__gt=OuterRef("pk"))
    return windows.filter(~Exists(later)).exclude(breach="", warning="").select_related("bot", "coin")


def load_tallies(window: LiveWindow) -> tuple[Tally, Tally]:
    """The recent predictions, and those of the whole revision, of one bot and coin, with this window, not saved yet.

    The whole has only what its gates need: counts, no confidence and no logits.
    """
    rows = LiveWindow.objects.filter(bot=window.bot, move=window.move, coin=window.coin)
    columns = ("predictions", "non_finite", "down", "neutral", "up", "out_of_range")
    is_ranged = Q(out_of_range__isnull=False)
    sums = rows.aggregate(
        **{f"all_{name}": Sum(name, default=0) for name in columns},
        all_ranged=Sum(F("predictions") - F("non_finite"), filter=is_ranged, default=0),
    )
    predictions, non_finite, down, neutral, up, out_of_range, ranged = sums.values()
    before = Tally(predictions, non_finite, (down, neutral, up), out_of_range=out_of_range, ranged=ranged)
    recent = window.tally
    if recent.predictions < RECENT_PREDICTIONS:
        for earlier in rows.order_by("-pk")[: RECENT_WINDOWS - 1]:
            recent += earlier.tally
            if recent.predictions >= RECENT_PREDICTIONS:
                break
    return recent, before + window.tally


@dataclass(frozen=True)
class LiveCoinSummary:
    """What bots predicted of one coin of a release, as far as windows are kept."""

    coin: Coin
    predictions: int
    bots: int
    last_at: datetime
    flagged: Sequence[LiveWindow]
    """The newest window of each bot under the release's last revision, if it breaches or warns."""
    judged_bots: int
    """Bots with enough predictions under that revision for every live gate."""
    most: int
    """The most predictions of one bot under that revision."""
    needed: int
    """Predictions of one bot that every live gate has a result for."""


def summarize_live_coins(release: Release) -> list[LiveCoinSummary]:
    """A summary for each coin that bots have predicted with this release."""
    rows = (
        LiveWindow.objects.filter(move__release=release)
        .order_by("coin__symbol")
        .values_list("coin")
        .annotate(Sum("predictions"), Count("bot", distinct=True), Max("received_at"))
    )
    coins = Coin.objects.in_bulk([row[0] for row in rows])
    last = PointerMove.objects.filter(release=release).first()
    if last is None or not coins:
        return []
    flagged: dict[int, list[LiveWindow]] = {}
    for window in _list_flagged_windows(last).order_by("bot"):
        flagged.setdefault(window.coin_id, []).append(window)
    by_bot = LiveWindow.objects.filter(move=last).order_by().values_list("coin", "bot")
    counts: dict[int, list[int]] = {}
    for coin, _, count in by_bot.annotate(Sum("predictions")):
        counts.setdefault(coin, []).append(count)
    policy = policies.policy_in_force().document
    needed = count_needed_predictions(policy, is_fallback=last.kind == MoveKind.PIN)
    return [
        LiveCoinSummary(
            coins[coin],
            predictions,
            bots,
            last_at,
            flagged.get(coin, [])[:MAX_FLAGGED_SHOWN],
            judged_bots=sum(count >= needed for count in counts.get(coin, [])),
            most=max(counts.get(coin, [0])),
            needed=needed,
        )
        for coin, predictions, bots, last_at in rows
    ]


def list_recent_windows(release_coin: ReleaseCoin) -> list[LiveWindow]:
    """The last windows of this coin under this release, the oldest first."""
    rows = LiveWindow.objects.filter(move__release=release_coin.release_id, coin=release_coin.coin_id)
    return list(rows.order_by("-pk")[:MAX_CHART_WINDOWS])[::-1]


def add_tallies(windows: Iterable[LiveWindow]) -> Tally:
    return sum((window.tally for window in windows), Tally())
