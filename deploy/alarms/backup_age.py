"""How old the newest backup is, by the audit history: the store of backups may be out of reach."""

from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from audit.models import AuditEvent
from deploy.models import PointerMove

CREATED = "backup.created"
"""The event of a backup that was read back and is complete."""
REMEDY = (
    "Run `manage.py backup create`, and find out why the schedule did not. CRPBOT_BACKUP_LATE_SECONDS says how old the"
    " newest may be."
)


def get_last_created_at() -> datetime | None:
    return AuditEvent.objects.filter(kind=CREATED).order_by("-seq").values_list("at", flat=True).first()


def find_problem() -> str | None:
    """Why there is no recent backup; None where there is, or where none is expected."""
    if not settings.BACKUP_LATE_SECONDS:
        return None
    oldest = timezone.now() - timedelta(seconds=settings.BACKUP_LATE_SECONDS)
    created_at = get_last_created_at()
    if created_at is None:
        first = PointerMove.objects.order_by("revision").values_list("moved_at", flat=True).first()
        return "No backup was ever made." if first is not None and first < oldest else None
    return f"The newest backup is of {created_at:%Y-%m-%d %H:%M}Z." if created_at < oldest else None
