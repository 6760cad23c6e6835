"""Receiving live windows: each is judged as it arrives, and if most live bots breach a live gate, the fallback is pinned."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.roles import Actor
from audit import services as audit
from common.errors import Conflict, InvalidInput, NotAllowed
from common.reasons import REASON_LIMIT
from deploy.bots import live_windows
from deploy.bots.live_rules import LIVE_GATES
from deploy.models import Bot, LiveWindow, PointerMove, ReleaseCoin
from deploy.pointer import pointer
from deploy.pointer.fallback import check_fallback
from deploy.pointer.pin import pin_in_transaction
from deploy.rules import MoveKind
from gates.catalogue.live import judge_live
from gates.services import policies
from mlcore.constants import N_FEATURES
from mlcore.verdict import Verdict
from training.models import Coin

logger = logging.getLogger(__name__)

MAX_EVIDENCE_WINDOWS = 30
"""Windows in the event of a pin: enough to see what happened, however many bots there are."""


@dataclass(frozen=True)
class PostedWindow:
    """One window as a bot sends it."""

    instance: str
    revision: int
    coin: str
    window: LiveWindow
    """Not saved yet: its times and counts alone."""


def receive_window(posted: PostedWindow, *, actor: Actor) -> LiveWindow:
    """Store and judge one window; if most live bots now breach a live gate, pin the fallback at once.

    A repeated window is answered and counts once. A window of an older revision is stored, but not judged. Raises NotAllowed
    for anyone but a bot, Conflict for an instance that has sent no heartbeat, InvalidInput for impossible figures.
    """
    if not actor.is_bot:
        raise NotAllowed(f"{actor} is not a bot: live windows need a bot's token.")
    window = posted.window
    _validate_window(window)
    bot = Bot.objects.filter(name=actor.name, instance=posted.instance).first()
    if bot is None:
        raise Conflict(f"{actor.name} ({posted.instance}) is not known yet. Send a heartbeat first.")
    window.bot = bot
    window.move, window.coin = _find_move_and_coin(posted)
    window.policy, window.received_at = policies.policy_in_force(), timezone.now()
    window.breach, window.warning = _judge_window(window)
    try:
        with transaction.atomic():
            window.save(force_insert=True)
    except IntegrityError:
        return LiveWindow.objects.get(bot=bot, move=window.move, coin=window.coin, first_at=window.first_at)
    if window.breach:
        try_to_pin()
    return window


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
            evidence=_describe_windows(status.breaching),
        )


def try_to_pin() -> None:
    """As `pin_if_breached`, but a failure is logged: `reconcile` tries again within seconds."""
    try:
        pin_if_breached()
    except Exception:
        logger.exception("the live gates could not pin the fallback; reconcile will try again")


def monitor_live_gates() -> None:
    """Pin if fewer bots are live now and those that breach are the majority; delete old windows. `reconcile` calls it."""
    try_to_pin()
    before = timezone.now() - timedelta(seconds=settings.BOT_KEPT_SECONDS)
    old = LiveWindow.objects.filter(received_at__lt=before)
    if old.exists():
        old.delete()


def _load_status_to_pin() -> live_windows.LiveGateStatus | None:
    status = live_windows.load_live_gate_status()
    return status if status is not None and status.must_pin else None


def _judge_window(window: LiveWindow) -> tuple[str, str]:
    """The breaches and the warnings of this bot's predictions of this coin, as text."""
    current, is_pinned = pointer.get_current(), window.move.kind == MoveKind.PIN
    if current is None or current.revision != window.move.revision:
        return "", ""
    texts: dict[bool, list[str]] = {True: [], False: []}
    recent, whole = live_windows.load_tallies(window)
    for outcome in judge_live(recent, whole, window.policy.document, is_fallback=is_pinned):
        if outcome.finding.verdict == Verdict.FAILED:
            text = f"{outcome.gate.replace('_', ' ')}: {outcome.finding.observed}"
            texts[outcome.is_tripwire].append(text)
    return ", ".join(texts[True]), ", ".join(texts[False])


def _find_move_and_coin(posted: PostedWindow) -> tuple[PointerMove, Coin]:
    move = PointerMove.objects.filter(pk=posted.revision).first()
    if move is None:
        raise InvalidInput(f"This service never had revision {posted.revision}.", field="revision")
    release_coins = ReleaseCoin.objects.filter(
        release=move.release_id, coin__symbol=posted.coin, bundle__isnull=False
    )
    release_coin = release_coins.select_related("coin").first()
    if release_coin is None:
        raise InvalidInput(f"Revision {posted.revision} has no model for {posted.coin}.", field="coin")
    return move, release_coin.coin


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
        for window in windows[:MAX_EVIDENCE_WINDOWS]
    ]
