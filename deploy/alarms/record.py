"""Recording which alarms began and which ended."""

import logging
from datetime import datetime

from django.utils import timezone

from accounts.rules import GATE
from audit import services as audit
from deploy.alarms import detect
from deploy.alarms.detect import AlarmCondition
from deploy.models import Alarm
from deploy.pointer.fallback import check_fallback_cached

logger = logging.getLogger(__name__)


def record_alarms() -> None:
    """Raise each alarm that began, and clear each that ended, with an event. The same condition is raised once."""
    conditions = {str(c.name): c for c in detect.detect_conditions(check_fallback_cached())}
    if _is_recorded(conditions):
        return
    with audit.locked():
        now, kept = timezone.now(), set()
        for alarm in Alarm.objects.filter(cleared_at=None):
            if _matches(alarm, conditions.get(alarm.name)):
                kept.add(alarm.name)
            else:
                _clear_alarm(alarm, now)
        for condition in conditions.values():
            if condition.name not in kept:
                _raise_alarm(condition, now)


def _is_recorded(conditions: dict[str, AlarmCondition]) -> bool:
    """Without the lock: nearly always nothing has changed."""
    is_open = list(Alarm.objects.filter(cleared_at=None))
    return len(is_open) == len(conditions) and all(
        _matches(alarm, conditions.get(alarm.name)) for alarm in is_open
    )


def _matches(alarm: Alarm, condition: AlarmCondition | None) -> bool:
    return condition is not None and (alarm.severity, alarm.sentence) == (
        condition.severity,
        condition.sentence,
    )


def _raise_alarm(condition: AlarmCondition, now: datetime) -> None:
    alarm = Alarm.objects.create(
        name=condition.name,
        severity=condition.severity,
        sentence=condition.sentence,
        remedy=condition.remedy,
        raised_at=now,
    )
    detail = {"name": condition.name, "severity": condition.severity, "remedy": condition.remedy}
    audit.record("alarm.raised", alarm, actor=GATE, reason=condition.sentence, detail=detail)
    logger.error("alarm: %s %s", condition.sentence, condition.remedy)


def _clear_alarm(alarm: Alarm, now: datetime) -> None:
    alarm.cleared_at = now
    alarm.save(update_fields=["cleared_at"])
    audit.record(
        "alarm.cleared", alarm, actor=GATE, reason=f"over: {alarm.sentence}", detail={"name": alarm.name}
    )
    logger.warning("alarm over: %s", alarm.sentence)
