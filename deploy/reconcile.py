"""One pass of the reconciliation loop: send, advance, check and record what is due."""

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from deploy.alarms.record import record_alarms
from deploy.bots.convergence import monitor_bots
from deploy.bots.live_gates import monitor_live_gates
from deploy.models import ReleaseCoin, ReleaseStatus
from deploy.pointer.fallback_monitor import watch_fallback
from deploy.releases.settle import advance_quietly, stop_runs
from deploy.rules import ReleaseState
from gates.models import Measurement
from training.jobs.queue import enqueue
from training.models import Job, TrainingRun
from training.rules import JobState


def reconcile_once() -> None:
    """Send lost messages again, advance releases, check the fallback and the bots, and record alarms."""
    now = timezone.now()
    resend_before = now - timedelta(seconds=settings.RESEND_SECONDS)
    jobs: tuple[type[Job], ...] = (TrainingRun, Measurement)
    for model in jobs:
        for job in model.objects.due(now, resend_after=resend_before):
            enqueue(job)
    open_states = (ReleaseState.BUILDING, ReleaseState.LIVE)
    for release_id in ReleaseStatus.objects.filter(state__in=open_states).values_list("pk", flat=True):
        advance_quietly(release_id)
    # A process died between the rejection and cancelling these runs: nobody needs them, and they cost money.
    unended = [JobState.QUEUED, JobState.RUNNING]
    for release_coin in ReleaseCoin.objects.filter(
        release__status__state=ReleaseState.REJECTED,
        run__state__in=unended,
        run__cancel_requested_at=None,
    ).select_related("release__status"):
        stop_runs(release_coin.release, release_coin.release.status.reason)
    watch_fallback()
    monitor_bots()
    monitor_live_gates()
    record_alarms()
