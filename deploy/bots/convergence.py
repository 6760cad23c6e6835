"""Records when all live bots run a move, and deletes bots that have not reported for long."""

from datetime import timedelta

from django.conf import settings
from django.db.models import F, Max
from django.utils import timezone

from accounts.roles import GATE
from audit import services as audit
from deploy.bots import fleet
from deploy.models import Acknowledgement, Bot, Convergence, PointerMove
from deploy.pointer import pointer


def monitor_bots() -> None:
    """Record a convergence, and delete old bots. `reconcile` calls it."""
    record_convergence()
    delete_old_bots()


def record_convergence() -> None:
    """Record, once and with an event, that every live bot runs the pointer's revision."""
    move = pointer.get_current()
    if move is None or Convergence.objects.filter(pk=move.revision).exists():
        return
    counts = fleet.count_bots(move, None)
    if not counts.has_converged:
        return
    slowest = _compute_slowest_seconds(move)
    with audit.locked():
        if Convergence.objects.filter(pk=move.revision).exists():
            return  # another reconciler was first
        Convergence.objects.create(move=move, at=timezone.now(), bots=counts.live, slowest_seconds=slowest)
        audit.record(
            "pointer.converged",
            move,
            actor=GATE,
            reason=f"{counts.live} bot{'s run' if counts.live != 1 else ' runs'} it",
            detail={"bots": counts.live, "slowest_seconds": slowest},
        )


def _compute_slowest_seconds(move: PointerMove) -> float | None:
    """The longest time a live bot took to acknowledge, of those that were there when the pointer moved."""
    rows = Acknowledgement.objects.filter(
        move=move, bot__in=fleet.list_live_bots(), bot__first_heard_at__lte=F("move__moved_at")
    )
    slowest: float | None = rows.aggregate(slowest=Max("seconds"))["slowest"]
    return slowest


def delete_old_bots() -> None:
    """Delete bots that have not reported for very long. `prune` deletes acknowledgements as old."""
    old = Bot.objects.filter(last_heard_at__lt=timezone.now() - timedelta(seconds=settings.BOT_KEPT_SECONDS))
    if old.exists():
        old.delete()
