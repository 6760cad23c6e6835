"""Recording which alarms began and which ended."""

import logging
from collections.abc import Iterable, Mapping

from django.utils import timezone

from accounts.roles import GATE
from audit import services as audit
from deploy.alarms import detect
from deploy.models import Alarm
from deploy.pointer.fallback import check_fallback_cached
from deploy.rules import AlarmName

logger = logging.getLogger(__name__)


def record_alarms() -> None:
    """Raise each alarm that began, and clear each that ended, with an event. The same condition is raised once."""
    now = {alarm.name: alarm for alarm in detect.detect_alarms(check_fallback_cached())}
    if not any(_compare_recorded(now)):  # without the lock: nearly always nothing has changed
        return
    with audit.locked():
        over, begun = _compare_recorded(now)
        for alarm in over:
            _clear_alarm(alarm)
        for alarm in begun:
            _raise_alarm(alarm)


def record_silent_reconcile(detected: Iterable[Alarm]) -> None:
    """Raise the alarm about reconcile if it is among these: a web process calls it. Reconcile's next passes clear it."""
    found = next((alarm for alarm in detected if alarm.name == AlarmName.RECONCILE), None)
    raised = Alarm.objects.filter(name=AlarmName.RECONCILE, cleared_at=None)
    if found is None or raised.exists():
        return
    with audit.locked():
        if not raised.exists():
            _raise_alarm(found)


def _compare_recorded(now: Mapping[str, Alarm]) -> tuple[list[Alarm], list[Alarm]]:
    """The recorded alarms that are over, and those that begin now."""
    recorded = {alarm.name: alarm for alarm in Alarm.objects.filter(cleared_at=None)}
    over = [alarm for alarm in recorded.values() if not _matches(alarm, now.get(alarm.name))]
    begun = [alarm for alarm in now.values() if not _matches(alarm, recorded.get(alarm.name))]
    return over, begun


def _matches(alarm: Alarm, other: Alarm | None) -> bool:
    return other is not None and (alarm.severity, alarm.sentence) == (other.severity, other.sentence)


def _raise_alarm(alarm: Alarm) -> None:
    alarm.raised_at = timezone.now()
    alarm.save(force_insert=True)
    detail = {"name": alarm.name, "severity": alarm.severity, "remedy": alarm.remedy}
    audit.record("alarm.raised", alarm, actor=GATE, reason=alarm.sentence, detail=detail)
    logger.error("alarm: %s %s", alarm.sentence, alarm.remedy)


def _clear_alarm(alarm: Alarm) -> None:
    alarm.cleared_at = timezone.now()
    alarm.save(update_fields=["cleared_at"])
    audit.record(
        "alarm.cleared", alarm, actor=GATE, reason=f"over: {alarm.sentence}", detail={"name": alarm.name}
    )
    logger.warning("alarm over: %s", alarm.sentence)
