"""Whether reconcile still works: it stores when it last completed a pass, and every web process looks at that."""

from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now
from django.utils import timezone

from deploy.models import PointerMove, ReconcilePass

REMEDY = (
    "Start `manage.py reconcile` again, and read its log for a step that fails. Until then no live gate acts, no release"
    " settles, no lost message is sent again, and no other alarm is recorded."
)


def record_pass() -> None:
    """Store that a pass is complete, by the database's clock: that of this machine may be wrong."""
    if not ReconcilePass.objects.filter(pk=1).update(completed_at=Now()):
        ReconcilePass.objects.get_or_create(pk=1, defaults={"completed_at": Now()})


def find_problem() -> str | None:
    """Why reconcile counts as silent; None where it completed a pass lately, or there is no pointer yet."""
    late = timedelta(seconds=settings.RECONCILE_LATE_SECONDS)
    row = ReconcilePass.objects.filter(pk=1).annotate(now=Now()).values_list("completed_at", "now").first()
    if row is None:
        first = PointerMove.objects.order_by("revision").values_list("moved_at", flat=True).first()
        is_late = first is not None and abs(timezone.now() - first) > late
        return "Reconcile has never completed a pass on this database." if is_late else None
    completed_at, now = row
    # A pass in the future is of a clock that was wrong: one that works replaces it within seconds.
    if abs(now - completed_at) <= late:
        return None
    return f"Reconcile has completed no pass since {completed_at:%Y-%m-%d %H:%M:%S}Z."
