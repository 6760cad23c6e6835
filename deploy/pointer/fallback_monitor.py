"""The fallback monitor: the registered fallback is measured again whenever that is due.

`reconcile` calls it every few seconds. Several reconcilers may run at once: what is due is checked again under the lock.
"""

import logging
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from accounts.roles import GATE
from audit import services as audit
from deploy.models import ReleaseCoin
from deploy.outcomes import list_release_coins
from deploy.pointer import pointer
from gates.models import Measurement
from gates.services import judging, measuring, policies

logger = logging.getLogger(__name__)


def watch_fallback() -> list[Measurement]:
    """Request the measurements of the fallback that are due, and judge those that ended. Returns the requested ones."""
    release = pointer.get_fallback()
    if release is None:
        return []
    release_coins = [
        row for row in list_release_coins(release) if row.bundle is not None and row.coin.is_required
    ]
    for release_coin in release_coins:
        _judge_latest(release_coin)
    requested = [_measure_if_due(release_coin) for release_coin in release_coins]
    return [measurement for measurement in requested if measurement is not None]


def _judge_latest(release_coin: ReleaseCoin) -> None:
    """Judge the last measurement by the policy in force, for people to read. Once for each measurement."""
    latest = _find_latest(release_coin)
    if latest is not None and latest.has_ended and not latest.diagnoses.exists():
        judging.judge(latest, policies.policy_in_force())


def _measure_if_due(release_coin: ReleaseCoin) -> Measurement | None:
    if not _is_due(_find_latest(release_coin)):
        return None
    with audit.locked():
        if not _is_due(_find_latest(release_coin)):
            return None  # another reconciler was first
        bundle = release_coin.bundle
        assert bundle is not None
        return measuring.measure(bundle, release_coin.dataset, actor=GATE, again=True)


def _find_latest(release_coin: ReleaseCoin) -> Measurement | None:
    rows = Measurement.objects.filter(bundle=release_coin.bundle, dataset=release_coin.dataset)
    return rows.defer("body").order_by("-id").first()


def _is_due(latest: Measurement | None) -> bool:
    """Never while one waits or runs, nor at once after one that failed or that a worker of another version made."""
    if latest is None:
        return True
    now = timezone.now()
    retry_at = latest.created_at + timedelta(seconds=settings.FALLBACK_RETRY_SECONDS)
    if not latest.has_ended or latest.finished_at is None:
        return False
    if latest.state != "succeeded" or latest.code_version != settings.CODE_VERSION:
        return now >= retry_at
    return now >= latest.finished_at + timedelta(seconds=settings.FALLBACK_CHECK_SECONDS)
