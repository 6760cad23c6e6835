"""The live windows of the bots: which breach a live gate under the current revision, and sums of them."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet, Sum
from django.utils import timezone

from deploy.bots import fleet
from deploy.bots.live_rules import is_majority, must_pin_fallback
from deploy.models import Bot, LiveTotal, LiveWindow, PointerMove, Release, ReleaseCoin
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

TotalKey = tuple[int, int, int]
"""Bot, move and coin."""


@dataclass(frozen=True)
class LiveGateStatus:
    """The live bots on one revision, their newest windows that breach a live gate or warn, and their votes."""

    move: PointerMove
    predicting: Mapping[str, int]
    """By the name of a token's owner, its bots that predict. Empty while no window breaches: nobody votes then."""
    breaching: Sequence[LiveTotal]
    drifting: Sequence[LiveTotal]

    @property
    def breaching_bots(self) -> list[Bot]:
        """The breaching bots, each once."""
        return list({total.bot_id: total.bot for total in self.breaching}.values())

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
            f"{total.bot}: {total.coin} {total.breach}" for total in self.breaching[:MAX_WINDOWS_IN_REASON]
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
    flagged = list(_list_flagged(move).filter(bot__in=bots).order_by("bot", "coin"))
    predicting = _list_predicting(bots) if any(total.breach for total in flagged) else {}
    return LiveGateStatus(
        move=move,
        predicting=Counter(predicting.values()),
        breaching=[total for total in flagged if total.breach and total.bot_id in predicting],
        drifting=[total for total in flagged if total.warning],
    )


def _list_predicting(bots: QuerySet[Bot]) -> dict[int, str]:
    """The names of those that predict, by their key."""
    since = timezone.now() - PREDICTS_WITHIN
    totals = LiveTotal.objects.filter(bot=OuterRef("pk"), received_at__gt=since)
    return dict(bots.filter(Exists(totals)).values_list("pk", "name"))


def _list_flagged(move: PointerMove) -> QuerySet[LiveTotal]:
    """The bots and coins whose newest window under this move's revision breaches or warns."""
    rows = LiveTotal.objects.filter(move=move).exclude(breach="", warning="")
    return rows.select_related("bot", "coin")


def add_recent(total: LiveTotal, window: Tally) -> Tally:
    """The recent predictions of one bot and coin, with this window: what the tripwires look at."""
    recent = window
    for earlier in total.recent[: RECENT_WINDOWS - 1]:
        if recent.predictions >= RECENT_PREDICTIONS:
            break
        recent += _read_tally(earlier["tally"])
    return recent


def remember_window(total: LiveTotal, window: LiveWindow) -> None:
    """Make this window the newest one of its total, and drop those that no later window is judged with."""
    newest = {"first_at": window.first_at.isoformat(), "tally": list(astuple(window.tally))}
    kept, predictions = [newest], window.predictions
    for earlier in total.recent:
        # The next window adds at least one prediction.
        if predictions >= RECENT_PREDICTIONS - 1 or len(kept) == RECENT_WINDOWS - 1:
            break
        kept.append(earlier)
        predictions += earlier["tally"][0]
    total.recent, total.last_first_at, total.received_at = kept, window.first_at, window.received_at
    total.breach, total.warning = window.breach, window.warning


def _read_tally(stored: Sequence[Any]) -> Tally:
    predictions, non_finite, classes, confidence, *rest = stored
    return Tally(predictions, non_finite, tuple(classes), tuple(confidence), *rest)


def lock_totals(keys: Collection[TotalKey]) -> dict[TotalKey, LiveTotal]:
    """The totals of these bots, moves and coins, created where there is none, and locked in one order.

    Call it in a transaction. Where a total is deleted between its creation and the lock, it is created again.
    """
    now = timezone.now()
    bots, moves, coins = (set(each) for each in zip(*keys, strict=True))
    rows = LiveTotal.objects.filter(bot__in=bots, move__in=moves, coin__in=coins).order_by("pk")
    missing = set(keys)
    while missing:
        LiveTotal.objects.bulk_create(
            [
                LiveTotal(bot_id=bot, move_id=move, coin_id=coin, received_at=now)
                for bot, move, coin in sorted(missing)
            ],
            ignore_conflicts=True,
        )
        locked = {(row.bot_id, row.move_id, row.coin_id): row for row in rows.select_for_update()}
        missing = set(keys) - set(locked)
    return {key: locked[key] for key in keys}


def save_totals(totals: Collection[LiveTotal]) -> None:
    """Store the locked totals in one statement."""
    key, fields = (
        ("bot", "move", "coin"),
        [field for field in LiveTotal._meta.concrete_fields if field.name != "id"],
    )
    LiveTotal.objects.bulk_create(
        [LiveTotal(**{field.attname: getattr(total, field.attname) for field in fields}) for total in totals],
        update_conflicts=True,
        unique_fields=key,
        update_fields=[field.name for field in fields if field.name not in key],
    )


def list_newest_windows(totals: Iterable[LiveTotal]) -> list[LiveWindow]:
    """The newest window of each of these totals, in their order."""
    return [
        LiveWindow.objects.select_related("bot", "coin").get(
            bot=total.bot_id, move=total.move_id, coin=total.coin_id, first_at=total.last_first_at
        )
        for total in totals
        if total.last_first_at is not None
    ]


def delete_old_windows(before: datetime, limit: int) -> int:
    """Delete at most `limit` windows received before this time, and take them out of the totals. Returns how many."""
    with transaction.atomic():
        rows = LiveWindow.objects.filter(received_at__lt=before).order_by("received_at", "pk")
        keys = dict(rows.values_list("pk", "bot")[:limit])
        totals = LiveTotal.objects.filter(bot__in=set(keys.values())).order_by("pk")
        locked = list(totals.select_for_update())
        # Read under the lock: another process may have deleted some of these windows meanwhile, and taken them out.
        old = LiveWindow.objects.filter(pk__in=list(keys))
        windows = dict[TotalKey, list[LiveWindow]]()
        for window in old:
            windows.setdefault((window.bot_id, window.move_id, window.coin_id), []).append(window)
        for total in locked:
            if gone := windows.get((total.bot_id, total.move_id, total.coin_id)):
                _take_out(total, gone)
        old.delete()
    return sum(map(len, windows.values()))


def _take_out(total: LiveTotal, gone: Sequence[LiveWindow]) -> None:
    if any(window.first_at == total.last_first_at for window in gone):  # the newest: nothing is left
        total.delete()
        return
    names = {window.first_at.isoformat() for window in gone}
    tally = add_tallies(gone)
    down, neutral, up = tally.classes
    total.predictions -= tally.predictions
    total.non_finite -= tally.non_finite
    total.down, total.neutral, total.up = total.down - down, total.neutral - neutral, total.up - up
    total.out_of_range -= tally.out_of_range
    total.ranged -= tally.ranged
    total.recent = [earlier for earlier in total.recent if earlier["first_at"] not in names]
    total.save()


@dataclass(frozen=True)
class LiveCoinSummary:
    """What bots predicted of one coin of a release, as far as windows are kept."""

    coin: Coin
    predictions: int
    bots: int
    last_at: datetime
    flagged: Sequence[LiveTotal]
    """The bots whose newest window under the release's last revision breaches or warns."""
    judged_bots: int
    """Bots with enough predictions under that revision for every live gate."""
    most: int
    """The most predictions of one bot under that revision."""
    needed: int
    """Predictions of one bot that every live gate has a result for."""


def summarize_live_coins(release: Release) -> list[LiveCoinSummary]:
    """A summary for each coin that bots have predicted with this release."""
    last = PointerMove.objects.filter(release=release).first()
    if last is None:
        return []
    policy = policies.policy_in_force().document
    needed = count_needed_predictions(policy, is_fallback=last.kind == MoveKind.PIN)
    under_last = Q(move=last)
    rows = (  # one reading of all totals: there is one for each bot
        LiveTotal.objects.filter(move__in=_list_moves(release))
        .order_by("coin__symbol")
        .values_list("coin")
        .annotate(
            Sum("predictions"),
            Count("bot", distinct=True),
            Max("received_at"),
            judged=Count("pk", filter=under_last & Q(predictions__gte=needed)),
            most=Max("predictions", filter=under_last),
        )
    )
    coins = Coin.objects.in_bulk([row[0] for row in rows])
    flagged: dict[int, list[LiveTotal]] = {}
    for total in _list_flagged(last).order_by("bot"):
        flagged.setdefault(total.coin_id, []).append(total)
    return [
        LiveCoinSummary(
            coins[coin],
            predictions,
            bots,
            last_at,
            flagged.get(coin, [])[:MAX_FLAGGED_SHOWN],
            judged_bots=judged,
            most=most or 0,
            needed=needed,
        )
        for coin, predictions, bots, last_at, judged, most in rows
    ]


def _list_moves(release: Release) -> list[int]:
    return list(PointerMove.objects.filter(release=release).values_list("pk", flat=True))


def list_recent_windows(release_coin: ReleaseCoin) -> list[LiveWindow]:
    """The last windows of this coin under this release, the oldest first."""
    moves = _list_moves(release_coin.release)
    rows = LiveWindow.objects.filter(move__in=moves, coin=release_coin.coin_id)
    return list(rows.order_by("-pk")[:MAX_CHART_WINDOWS])[::-1]


def add_tallies(windows: Iterable[LiveWindow]) -> Tally:
    return sum((window.tally for window in windows), Tally())
