"""How old the newest backup and the last drill are, by the rows of the database: the store may be out of reach."""

from collections.abc import Mapping
from datetime import timedelta

from django.conf import settings
from django.db.models import Max
from django.utils import timezone

from deploy.models import BackupJournal, BackupTask, PointerMove
from deploy.rules import BackupKind, BackupState

REMEDY = (
    "Look at the page Backups, or run `manage.py backup list`: the last failure says why. Then make one with `manage.py"
    " backup create`."
)
DRILL_REMEDY = (
    "Run `manage.py backup drill`: it says what is wrong. Of an encrypted backup, somebody with an identity runs it:"
    " `manage.py backup drill --identity FILE`."
)
JOURNAL_GRACE = timedelta(minutes=10)
"""A store that is away for a moment is no alarm: the journal is written as soon as it is back."""
DRILL_GRACE = timedelta(days=1)


def load_last() -> dict[tuple[str, str], BackupTask]:
    """The last task of each kind and state that ended, in one query."""
    ended = BackupTask.objects.exclude(ended_at=None).order_by()
    last = ended.values("kind", "state").annotate(last=Max("pk")).values("last")
    return {(task.kind, task.state): task for task in BackupTask.objects.filter(pk__in=last)}


def find_last(kind: BackupKind, state: BackupState = BackupState.DONE) -> BackupTask | None:
    return BackupTask.objects.filter(kind=kind, state=state).order_by("-pk").first()


def find_problems() -> tuple[str | None, str | None]:
    """Why there is no recent backup or no journal beside it, and why nobody knows that the backups can be restored.

    None where all is well, or where none is expected.
    """
    last = load_last()
    found = [_find_backup_problem(last.get((BackupKind.BACKUP, BackupState.DONE))), _find_journal_problem()]
    return " ".join(filter(None, found)) or None, _find_drill_problem(last)


def _find_backup_problem(last: BackupTask | None) -> str | None:
    if not settings.BACKUP_LATE_SECONDS:
        return None
    oldest = timezone.now() - timedelta(seconds=settings.BACKUP_LATE_SECONDS)
    if last is None or last.started_at is None:
        first = PointerMove.objects.order_by("revision").values_list("moved_at", flat=True).first()
        return "No backup was ever made." if first is not None and first < oldest else None
    return f"The newest backup is of {last.started_at:%Y-%m-%d %H:%M}Z." if last.started_at < oldest else None


def _find_journal_problem() -> str | None:
    if not settings.BACKUP_HOURS:
        return None
    row = BackupJournal.objects.first()
    if row is None or row.failing_since is None or timezone.now() - row.failing_since < JOURNAL_GRACE:
        return None
    return f"The journal beside the backups cannot be written since {row.failing_since:%Y-%m-%d %H:%M}Z."


def _find_drill_problem(last: Mapping[tuple[str, str], BackupTask]) -> str | None:
    passed = last.get((BackupKind.DRILL, BackupState.DONE))
    failed = last.get((BackupKind.DRILL, BackupState.FAILED))
    if failed is not None and (passed is None or passed.pk < failed.pk):
        return f"The last drill failed: {failed.reason}"
    if not settings.BACKUP_DRILL_DAYS:
        return None
    oldest = timezone.now() - timedelta(days=settings.BACKUP_DRILL_DAYS) - DRILL_GRACE
    if passed is not None and passed.ended_at is not None:
        return f"The last drill was on {passed.ended_at:%Y-%m-%d}." if passed.ended_at < oldest else None
    backups = BackupTask.objects.filter(kind=BackupKind.BACKUP, state=BackupState.DONE)
    return "No backup was ever drilled." if backups.filter(ended_at__lt=oldest).exists() else None
