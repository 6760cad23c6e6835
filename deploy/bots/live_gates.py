"""Receiving live windows: each is judged as it arrives. If most live bots breach a live gate, the fallback is pinned."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from accounts.roles import Actor
from audit import services as audit
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed
from common.reasons import REASON_LIMIT
from deploy.bots import live_windows
from deploy.bots.heartbeats import BotKey, find_bots
from deploy.bots.live_rules import LIVE_GATES
from deploy.models import Bot, LiveWindow, PointerMove, ReleaseCoin
from deploy.pointer import pointer
from deploy.pointer.fallback import check_fallback
from deploy.pointer.pin import pin_in_transaction
from deploy.rules import MoveKind
from gates.catalogue.live import Tally, judge_live
from gates.services import policies
from mlcore.constants import N_FEATURES
from mlcore.verdict import Verdict
from training.models import Coin

logger = logging.getLogger(__name__)

MAX_EVIDENCE_WINDOWS = 30
"""Windows in the event of a pin: enough to see what happened, however many bots there are."""
"""Old windows that one look of reconcile deletes: more than 1,000 bots send between two looks."""

WindowKey = tuple[int, int, int, datetime]
"""Bot, move, coin and beginning."""


@dataclass(frozen=True)
class PostedWindow:
    """One window as a bot sends it."""

    instance: str
    revision: int
    coin: str
    window: LiveWindow
    """Not saved yet: its times and counts alone."""


@dataclass(frozen=True)
class ReceivedWindow:
    """A window, and the owner of the token it came with."""

    actor: Actor
    posted: PostedWindow


def receive_window(posted: PostedWindow, *, actor: Actor) -> LiveWindow:
    """Store one window; as `receive_windows`, but a refusal is raised."""
    (outcome,) = receive_windows([ReceivedWindow(actor, posted)])
    if isinstance(outcome, DomainError):
        raise outcome
    return outcome


def receive_windows(batch: Sequence[ReceivedWindow]) -> list[LiveWindow | DomainError]:
    """Store and judge windows; if most live bots now breach a live gate, pin the fallback at once, once for the batch.

    All are stored or none. Returns the stored windows in the same order; a refused one does not affect the others. A
    repeated window is answered and counts once. A window of an older revision is stored, but not judged. NotAllowed: not
    a bot. Conflict: an instance that has sent no heartbeat. InvalidInput: impossible figures.
    """
    outcomes = _prepare_windows(batch)
    windows = [outcome for outcome in outcomes if isinstance(outcome, LiveWindow)]
    if not windows:
        return outcomes
    with transaction.atomic():
        stored = _store_windows(windows)
    if any(window.breach for window in stored.values()):
        try_to_pin()
    return [
        stored[_get_window_key(outcome)] if isinstance(outcome, LiveWindow) else outcome
        for outcome in outcomes
    ]


def _prepare_windows(batch: Sequence[ReceivedWindow]) -> list[LiveWindow | DomainError]:
    """Each window with its bot, move and coin, or why it is refused."""
    bots = find_bots((received.actor.name, received.posted.instance) for received in batch)
    moves = PointerMove.objects.in_bulk({received.posted.revision for received in batch})
    rows = ReleaseCoin.objects.filter(
        release__in={move.release_id for move in moves.values()}, bundle__isnull=False
    )
    coins: dict[tuple[int | None, str], Coin] = {
        (row.release_id, row.coin.symbol): row.coin for row in rows.select_related("coin")
    }
    policy, now = policies.policy_in_force(), timezone.now()
    prepared = list[LiveWindow | DomainError]()
    for received in batch:
        try:
            window = _prepare_window(received, bots, moves, coins)
        except DomainError as refusal:
            prepared.append(refusal)
        else:
            window.policy, window.received_at = policy, now
            prepared.append(window)
    return prepared


def _prepare_window(
    received: ReceivedWindow,
    bots: Mapping[BotKey, Bot],
    moves: Mapping[int, PointerMove],
    coins: Mapping[tuple[int | None, str], Coin],
) -> LiveWindow:
    """Raises NotAllowed, Conflict, InvalidInput."""
    actor, posted = received.actor, received.posted
    if not actor.is_bot:
        raise NotAllowed(f"{actor} is not a bot: live windows need a bot's token.")
    window = posted.window
    _validate_window(window)
    bot = bots.get((actor.name, posted.instance))
    if bot is None:
        raise Conflict(f"{actor.name} ({posted.instance}) is not known yet. Send a heartbeat first.")
    move = moves.get(posted.revision)
    if move is None:
        raise InvalidInput(f"This service never had revision {posted.revision}.", field="revision")
    coin = coins.get((move.release_id, posted.coin))
    if coin is None:
        raise InvalidInput(f"Revision {posted.revision} has no model for {posted.coin}.", field="coin")
    window.bot, window.move, window.coin = bot, move, coin
    return window


def _store_windows(windows: Sequence[LiveWindow]) -> dict[WindowKey, LiveWindow]:
    """Store the new windows and their totals, in the caller's transaction. A repeated window is the one stored before."""
    totals = live_windows.lock_totals({_get_total_key(window) for window in windows})
    stored = _find_stored(windows)
    current = pointer.get_current()
    new = list[LiveWindow]()
    for window in windows:
        key = _get_window_key(window)
        if key not in stored:
            total = totals[window.bot_id, window.move_id, window.coin_id]
            recent = live_windows.add_recent(total, window.tally)
            total.add(window)
            if current is not None and current.revision == window.move_id:
                window.breach, window.warning = _judge_window(window, recent, total.whole)
            live_windows.remember_window(total, window)
            stored[key] = window
            new.append(window)
    LiveWindow.objects.bulk_create(new)
    live_windows.save_totals([totals[key] for key in {_get_total_key(window) for window in new}])
    return stored


def _get_total_key(window: LiveWindow) -> live_windows.TotalKey:
    return window.bot_id, window.move_id, window.coin_id


def _get_window_key(window: LiveWindow) -> tuple[int, int, int, datetime]:
    """What names a window: one sent again has the same."""
    return *_get_total_key(window), window.first_at


def _find_stored(windows: Sequence[LiveWindow]) -> dict[WindowKey, LiveWindow]:
    """Those of these windows that were stored before."""
    rows = LiveWindow.objects.filter(
        bot__in={window.bot_id for window in windows}, first_at__in={window.first_at for window in windows}
    )
    return {_get_window_key(row): row for row in rows}


def pin_if_breached() -> PointerMove | None:
    """Pin the fallback if most live bots breach a live gate under the current revision; at most once.

    The rules are those of every pin: offline if the fallback is not ready. The event contains the windows.
    """
    if _load_status_to_pin() is None:
        return None  # the fallback's files are hashed only when that is needed
    readiness = check_fallback()
    with audit.locked():
        status = _load_status_to_pin()  # the pointer may have moved meanwhile
        if status is None:
            return None
        return pin_in_transaction(
            status.reason[:REASON_LIMIT],
            actor=LIVE_GATES,
            readiness=readiness,
            evidence=_describe_windows(
                live_windows.list_newest_windows(status.breaching[:MAX_EVIDENCE_WINDOWS])
            ),
        )


def try_to_pin() -> None:
    """As `pin_if_breached`, but a failure is logged: `reconcile` tries again within seconds."""
    try:
        pin_if_breached()
    except Exception:
        logger.exception("the live gates could not pin the fallback; reconcile will try again")


def monitor_live_gates() -> None:
    """Pin if fewer bots are live now and those that breach are the majority. `reconcile` calls it."""
    try_to_pin()


def _load_status_to_pin() -> live_windows.LiveGateStatus | None:
    status = live_windows.load_live_gate_status()
    return status if status is not None and status.must_pin else None


def _judge_window(window: LiveWindow, recent: Tally, whole: Tally) -> tuple[str, str]:
    """The breaches and the warnings of this bot's predictions of this coin, as text."""
    is_pinned = window.move.kind == MoveKind.PIN
    texts: dict[bool, list[str]] = {True: [], False: []}
    for outcome in judge_live(recent, whole, window.policy.document, is_fallback=is_pinned):
        if outcome.finding.verdict == Verdict.FAILED:
            text = f"{outcome.gate.replace('_', ' ')}: {outcome.finding.observed}"
            texts[outcome.is_tripwire].append(text)
    return ", ".join(texts[True]), ", ".join(texts[False])


def _validate_window(window: LiveWindow) -> None:
    tally = window.tally
    if window.last_at < window.first_at:
        raise InvalidInput("A window cannot end before it begins.", field="last_at")
    if sum(tally.classes) != tally.finite:
        raise InvalidInput("The class counts must add up to the finite predictions.", field="class_counts")
    if sum(tally.confidence) != tally.finite:
        raise InvalidInput("The confidence counts must add up to the finite predictions.", field="confidence")
    if (tally.least is None) != (tally.greatest is None) or (tally.least is None) != (tally.finite == 0):
        raise InvalidInput("Give min and max if any answer was finite, and only then.", field="logits")
    if tally.least is not None and tally.greatest is not None and tally.least > tally.greatest:
        raise InvalidInput("min is greater than max.", field="logits")
    if tally.out_of_range > N_FEATURES * tally.finite:
        raise InvalidInput(f"A prediction has {N_FEATURES} features.", field="out_of_range")


def _describe_windows(windows: Sequence[LiveWindow]) -> list[Mapping[str, object]]:
    return [
        {
            "window": window.pk,
            "bot": str(window.bot),
            "coin": window.coin.symbol,
            "first_at": window.first_at.isoformat(),
            "last_at": window.last_at.isoformat(),
            "predictions": window.predictions,
            "non_finite": window.non_finite,
            "class_counts": [window.down, window.neutral, window.up],
            "confidence": window.confidence,
            "logits": [window.logit_min, window.logit_max],
            "out_of_range": window.out_of_range,
            "breach": window.breach,
        }
        for window in windows
    ]
