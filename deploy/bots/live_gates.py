"""Live windows: what bots say of their own predictions is judged as it comes, and enough of them pin the fallback."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from accounts.rules import Actor
from audit import services as audit
from common.errors import Conflict, InvalidInput, NotAllowed
from common.reasons import REASON_LIMIT
from deploy.bots import live_windows
from deploy.bots.live_rules import LIVE_GATES
from deploy.models import Bot, LiveWindow, PointerMove, ReleaseCoin
from deploy.pointer import pointer
from deploy.pointer.fallback import check_fallback
from deploy.pointer.pinning import pin_in_transaction
from deploy.rules import MoveKind
from gates import services as gates
from gates.catalogue.live import LiveOutcome, Tally, judge_live
from gates.models import GatePolicy
from mlcore.constants import N_FEATURES
from mlcore.verdict import Verdict
from training.models import Coin

logger = logging.getLogger(__name__)

MOST_EVIDENCE = 30
"""Windows written into the event of a pin: enough to see what happened, of however many bots."""


@dataclass(frozen=True)
class Posted:
    """One window as a bot sends it."""

    instance: str
    revision: int
    coin: str
    first_at: datetime
    last_at: datetime
    tally: Tally


def receive_window(said: Posted, *, actor: Actor) -> LiveWindow:
    """Write down and judge one window; where most live bots now breach, pin the fallback at once.

    One that came before is answered and counts once. One of another revision than the pointer's is kept, but not judged.
    Raises NotAllowed for anybody but a bot, Conflict for an instance that has sent no heartbeat, InvalidInput where its
    figures cannot be.
    """
    if not actor.is_bot:
        raise NotAllowed(f"{actor} is no bot: only a bot's token says what a bot predicts.")
    _require_sense(said)
    bot = Bot.objects.filter(name=actor.name, instance=said.instance).first()
    if bot is None:
        raise Conflict(f"Nothing is known of {actor.name} ({said.instance}) yet. Send a heartbeat first.")
    move, coin = _subject(said)
    window, is_new = _written(bot, move, coin, said)
    if is_new and window.breach:
        hold_back_quietly()
    return window


def hold_back() -> PointerMove | None:
    """Pin the fallback where most live bots breach the live gates under the pointer's revision; at most once.

    The rules are those of every pin: offline when the fallback is not ready. The windows stand in the event.
    """
    if not _calls(live_windows.conduct()):
        return None  # hashing the fallback's files is for the moment when it is needed
    readiness = check_fallback()
    with audit.locked():
        now = live_windows.conduct()  # another may have pinned, or the pointer moved, meanwhile
        if now is None or not _calls(now):
            return None
        return pin_in_transaction(
            now.reason[:REASON_LIMIT],
            actor=LIVE_GATES,
            readiness=readiness,
            evidence=_evidence(now.breaching),
        )


def hold_back_quietly() -> None:
    """After a window is written: a failure is logged, and `reconcile` tries again within seconds."""
    try:
        hold_back()
    except Exception:
        logger.exception("the live gates could not pin the fallback; reconcile will try again")


def watch_live() -> None:
    """What `reconcile` does: the live bots may have become fewer, and those that breach most of them; old windows go."""
    hold_back_quietly()
    before = timezone.now() - timedelta(seconds=settings.BOT_KEPT_SECONDS)
    old = LiveWindow.objects.filter(received_at__lt=before)
    if old.exists():
        old.delete()


def _calls(conduct: live_windows.Conduct | None) -> bool:
    return conduct is not None and conduct.calls_for_a_pin


def _written(bot: Bot, move: PointerMove, coin: Coin, said: Posted) -> tuple[LiveWindow, bool]:
    policy, tally = gates.policy_in_force(), said.tally
    breach, warning = _judged(bot, move, coin, tally, policy)
    return LiveWindow.objects.get_or_create(
        bot=bot,
        move=move,
        coin=coin,
        first_at=said.first_at,
        defaults={
            "policy": policy,
            "last_at": said.last_at,
            "received_at": timezone.now(),
            "predictions": tally.predictions,
            "non_finite": tally.non_finite,
            **dict(zip(("down", "neutral", "up"), tally.classes, strict=True)),
            "confidence": list(tally.confidence),
            "logit_min": tally.least,
            "logit_max": tally.greatest,
            "out_of_range": tally.out_of_range if tally.ranged or not tally.finite else None,
            "breach": breach,
            "warning": warning,
        },
    )


def _judged(bot: Bot, move: PointerMove, coin: Coin, tally: Tally, policy: GatePolicy) -> tuple[str, str]:
    """What is held against this bot's predictions of this coin: what trips, and what wanders."""
    now = pointer.get_current()
    if now is None or now.revision != move.revision:
        return "", ""
    recent, whole = live_windows.tallies(bot, move, coin, tally)
    said = judge_live(recent, whole, policy.document, is_fallback=move.kind == MoveKind.PIN)
    against = [outcome for outcome in said if outcome.finding.verdict == Verdict.FAILED]
    return _told([o for o in against if o.is_tripwire]), _told([o for o in against if not o.is_tripwire])


def _told(outcomes: Sequence[LiveOutcome]) -> str:
    return ", ".join(f"{o.gate.replace('_', ' ')}: {o.finding.observed}" for o in outcomes)


def _subject(said: Posted) -> tuple[PointerMove, Coin]:
    move = PointerMove.objects.filter(pk=said.revision).first()
    if move is None:
        raise InvalidInput(f"This service never had revision {said.revision}.", field="revision")
    release_coin = ReleaseCoin.objects.filter(
        release=move.release_id, coin__symbol=said.coin, bundle__isnull=False
    )
    found = release_coin.select_related("coin").first()
    if found is None:
        raise InvalidInput(f"Revision {said.revision} holds no model for {said.coin}.", field="coin")
    return move, found.coin


def _require_sense(said: Posted) -> None:
    tally = said.tally
    if said.last_at < said.first_at:
        raise InvalidInput("A window ends no sooner than it begins.", field="last_at")
    if sum(tally.classes) != tally.finite:
        raise InvalidInput(
            "The three directions must add up to the finite predictions.", field="class_counts"
        )
    if sum(tally.confidence) != tally.finite:
        raise InvalidInput("The confidence counts must add up to the finite predictions.", field="confidence")
    if (tally.least is None) != (tally.greatest is None) or (tally.least is None) != (tally.finite == 0):
        raise InvalidInput("Give the least and greatest logit if any answer was finite.", field="logits")
    if tally.least is not None and tally.greatest is not None and tally.least > tally.greatest:
        raise InvalidInput("The least logit is greater than the greatest.", field="logits")
    if tally.out_of_range > N_FEATURES * tally.finite:
        raise InvalidInput(f"A prediction has {N_FEATURES} features.", field="out_of_range")


def _evidence(windows: Sequence[LiveWindow]) -> list[Mapping[str, object]]:
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
        for window in windows[:MOST_EVIDENCE]
    ]
