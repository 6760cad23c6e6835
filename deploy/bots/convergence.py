"""The moment at which all bots had followed a move; and forgetting those that nobody has heard of for long."""

from datetime import timedelta

from django.conf import settings
from django.db.models import F, Max
from django.utils import timezone

from accounts.rules import GATE
from audit import services as audit
from deploy.bots import fleet
from deploy.models import Acknowledgement, Bot, Convergence, PointerMove
from deploy.pointer import pointer


def watch_bots() -> None:
    """Write down when a move has converged, and forget bots that nobody has heard of for long."""
    record_convergence()
    forget()


def record_convergence() -> Convergence | None:
    """The pointer's revision, once every live bot has acknowledged it: recorded once, with an event."""
    now = pointer.get_current()
    if now is None or Convergence.objects.filter(pk=now.revision).exists():
        return None
    found = fleet.fleet(now, None)
    if not found.has_converged:
        return None
    slowest = slowest_seconds(now)
    with audit.locked():
        if Convergence.objects.filter(pk=now.revision).exists():
            return None  # another reconciler was first
        made = Convergence.objects.create(
            move=now, at=timezone.now(), bots=found.live, slowest_seconds=slowest
        )
        detail = {"bots": found.live, "slowest_seconds": slowest}
        audit.record(
            "pointer.converged",
            now,
            actor=GATE,
            reason=f"{found.live} bot{'s run' if found.live != 1 else ' runs'} it",
            detail=detail,
        )
    return made


def slowest_seconds(move: PointerMove) -> float | None:
    """The longest that a live bot took which was there when the pointer moved; None where there was none."""
    rows = Acknowledgement.objects.filter(
        move=move, bot__in=fleet.live(), bot__first_heard_at__lte=F("move__moved_at")
    )
    slowest: float | None = rows.aggregate(slowest=Max("seconds"))["slowest"]
    return slowest


def forget() -> None:
    """Bots that were not heard of for very long, and acknowledgements as old, go; those of the pointer's revision stay."""
    before = timezone.now() - timedelta(seconds=settings.BOT_KEPT_SECONDS)
    last = PointerMove.objects.aggregate(revision=Max("revision"))["revision"]
    for rows in (
        Acknowledgement.objects.filter(at__lt=before).exclude(move_id=last),
        Bot.objects.filter(last_heard_at__lt=before),
    ):
        if rows.exists():
            rows.delete()
