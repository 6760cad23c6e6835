"""Keeping the fallback ready: measured again when that is due, and an alarm when it is not.

Called by `reconcile` every few seconds, by several of them at once if need be: each look finds what is due under the
lock, and what another has done already is due no more.
"""

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from accounts.rules import GATE
from audit import services as audit
from deploy import alarms, pointer
from deploy.alarms import Trouble
from deploy.models import Alarm, ReleaseCoin
from deploy.outcomes import places_of
from deploy.readiness import readiness
from deploy.services.convergence import watch_bots
from deploy.services.live import watch_live
from gates import services as gates
from gates.models import Measurement

logger = logging.getLogger(__name__)


def watch_once() -> None:
    """Have the fallback measured where that is due, see where the bots stand, write down which alarms began and ended."""
    watch_fallback()
    watch_bots()
    watch_live()
    record_alarms()


def watch_fallback() -> list[Measurement]:
    """Ask for the measurements of the fallback that are due, and judge those that ended; what was asked for."""
    release = pointer.fallback()
    if release is None:
        return []
    places = [place for place in places_of(release) if place.bundle is not None and place.coin.is_required]
    for place in places:
        _judge(place)
    return [asked for place in places if (asked := _measure_if_due(place)) is not None]


def record_alarms() -> None:
    """Raise each alarm that began, and clear each that ended, with an event. The same trouble is raised once."""
    found = {str(trouble.name): trouble for trouble in alarms.found(readiness())}
    if _is_recorded(found):
        return
    with transaction.atomic():
        audit.lock_head()
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


def _judge(place: ReleaseCoin) -> None:
    """The word of the policy in force on the last measurement, for people to read. One a measurement, whoever asks."""
    latest = _latest(place)
    if latest is not None and latest.has_ended and not latest.diagnoses.exists():
        gates.judge(latest, gates.policy_in_force())


def _measure_if_due(place: ReleaseCoin) -> Measurement | None:
    if not _is_due(_latest(place)):
        return None
    with transaction.atomic():
        audit.lock_head()
        if not _is_due(_latest(place)):
            return None  # another reconciler was first
        bundle = place.bundle
        assert bundle is not None
        return gates.measure(bundle, place.dataset, actor=GATE, baseline=bundle, again=True)


def _latest(place: ReleaseCoin) -> Measurement | None:
    rows = Measurement.objects.filter(bundle=place.bundle, dataset=place.dataset)
    return rows.defer("body").order_by("-id").first()


def _is_due(latest: Measurement | None) -> bool:
    """Never while one waits or runs, nor again at once after one that came to nothing, or that an old worker made."""
    if latest is None:
        return True
    now = timezone.now()
    retry_at = latest.created_at + timedelta(seconds=settings.FALLBACK_RETRY_SECONDS)
    if not latest.has_ended or latest.finished_at is None:
        return False
    if latest.state != "succeeded" or latest.code_version != settings.CODE_VERSION:
        return now >= retry_at
    return now >= latest.finished_at + timedelta(seconds=settings.FALLBACK_CHECK_SECONDS)
