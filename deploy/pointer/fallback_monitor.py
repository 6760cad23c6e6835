"""Keeping the fallback ready: measured again when that is due, and an alarm when it is not.

Called by `reconcile` every few seconds, by several of them at once if need be: each look finds what is due under the
lock, and what another has done already is due no more.
"""

import logging
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from accounts.rules import GATE
from audit import services as audit
from deploy.models import ReleaseCoin
from deploy.outcomes import places_of
from deploy.pointer import pointer
from gates import services as gates
from gates.models import Measurement

logger = logging.getLogger(__name__)


def watch_fallback() -> list[Measurement]:
    """Ask for the measurements of the fallback that are due, and judge those that ended; what was asked for."""
    release = pointer.fallback()
    if release is None:
        return []
    places = [place for place in places_of(release) if place.bundle is not None and place.coin.is_required]
    for place in places:
        _judge(place)
    return [asked for place in places if (asked := _measure_if_due(place)) is not None]


def _judge(place: ReleaseCoin) -> None:
    """The word of the policy in force on the last measurement, for people to read. One a measurement, whoever asks."""
    latest = _latest(place)
    if latest is not None and latest.has_ended and not latest.diagnoses.exists():
        gates.judge(latest, gates.policy_in_force())


def _measure_if_due(place: ReleaseCoin) -> Measurement | None:
    if not _is_due(_latest(place)):
        return None
    with audit.locked():
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
