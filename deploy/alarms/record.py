"""Writing down which alarms began and which ended. The same trouble is raised once."""

import logging
from datetime import datetime

from django.utils import timezone

from accounts.rules import GATE
from audit import services as audit
from deploy.alarms import detect
from deploy.alarms.detect import Trouble
from deploy.models import Alarm
from deploy.pointer.fallback import readiness

logger = logging.getLogger(__name__)


def record_alarms() -> None:
    """Raise each alarm that began, and clear each that ended, with an event. The same trouble is raised once."""
    found = {str(trouble.name): trouble for trouble in detect.found(readiness())}
    if _is_recorded(found):
        return
    with audit.locked():
        now, kept = timezone.now(), set()
        for alarm in Alarm.objects.filter(cleared_at=None):
            if _is_of(alarm, found.get(alarm.name)):
                kept.add(alarm.name)
            else:
                _clear(alarm, now)
        for trouble in found.values():
            if trouble.name not in kept:
                _raise(trouble, now)


def _is_recorded(found: dict[str, Trouble]) -> bool:
    """Without the lock: nothing changes in nearly every look."""
    is_open = list(Alarm.objects.filter(cleared_at=None))
    return len(is_open) == len(found) and all(_is_of(alarm, found.get(alarm.name)) for alarm in is_open)


def _is_of(alarm: Alarm, trouble: Trouble | None) -> bool:
    return trouble is not None and (alarm.severity, alarm.sentence) == (trouble.severity, trouble.sentence)


def _raise(trouble: Trouble, now: datetime) -> None:
    alarm = Alarm.objects.create(
        name=trouble.name,
        severity=trouble.severity,
        sentence=trouble.sentence,
        remedy=trouble.remedy,
        raised_at=now,
    )
    detail = {"name": trouble.name, "severity": trouble.severity, "remedy": trouble.remedy}
    audit.record("alarm.raised", alarm, actor=GATE, reason=trouble.sentence, detail=detail)
    logger.error("alarm: %s %s", trouble.sentence, trouble.remedy)


def _clear(alarm: Alarm, now: datetime) -> None:
    alarm.cleared_at = now
    alarm.save(update_fields=["cleared_at"])
    audit.record(
        "alarm.cleared", alarm, actor=GATE, reason=f"over: {alarm.sentence}", detail={"name": alarm.name}
    )
    logger.warning("alarm over: %s", alarm.sentence)
