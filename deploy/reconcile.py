"""One pass of the reconciliation loop: send, advance, check and record what is due."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections
from django.utils import timezone

from deploy.alarms.reconcile_pass import record_pass
from deploy.alarms.record import record_alarms
from deploy.alarms.stored_files import check_stored_files
from deploy.bots.convergence import monitor_bots
from deploy.bots.live_gates import monitor_live_gates
from deploy.models import Release, ReleaseStatus
from deploy.pointer.fallback_monitor import watch_fallback
from deploy.prune import prune
from deploy.releases.settle import advance_quietly, stop_runs
from deploy.rules import ReleaseState
from deploy.serving.statements import sign_due
from gates.models import Measurement
from machines.control.look import control_machines
from studies.services.advance import advance_studies
from training.jobs.queue import resend
from training.models import Job, TrainingRun
from training.rules import JobState


def reconcile_once(steps: Sequence[Callable[[], object]] = ()) -> None:
    """Send lost messages again, advance releases, check fallback, files, bots and machines, and record alarms.

    `steps` take the place of STEPS: `crpbot` adds its own, and is not imported here. A step that fails keeps no other from
    its turn, least of all the alarms. Raises an ExceptionGroup of their errors; then the pass does not count as complete.
    """
    if errors := [error for step in steps or STEPS if (error := _run(step)) is not None]:
        raise ExceptionGroup("a pass of reconcile is not complete", errors)
    record_pass()


def resend_messages() -> None:
    """Send the messages of waiting jobs again: a lost or repeated one changes nothing (rule 19, docs/rules.md#19)."""
    now = timezone.now()
    resend_before = now - timedelta(seconds=settings.RESEND_SECONDS)
    jobs: tuple[type[Job], ...] = (TrainingRun, Measurement)
    for model in jobs:
        resend(model, model.objects.due(now, resend_after=resend_before))


def advance_releases() -> None:
    open_states = (ReleaseState.BUILDING, ReleaseState.LIVE)
    for release_id in ReleaseStatus.objects.filter(state__in=open_states).values_list("pk", flat=True):
        advance_quietly(release_id)


def stop_unneeded_runs() -> None:
    """A process died between a rejection and cancelling these runs: nobody needs them, and they cost money."""
    wanted = TrainingRun.objects.filter(
        state__in=[JobState.QUEUED, JobState.RUNNING], cancel_requested_at=None
    ).values("budget")
    rejected = Release.objects.filter(status__state=ReleaseState.REJECTED, budget__in=wanted)
    for release in rejected.select_related("status", "budget"):
        stop_runs(release, release.status.reason)


STEPS: Sequence[Callable[[], object]] = (
    resend_messages,
    advance_studies,
    advance_releases,
    stop_unneeded_runs,
    sign_due,
    watch_fallback,
    monitor_bots,
    monitor_live_gates,
    check_stored_files,
    prune,
    control_machines,
    record_alarms,
)


def _run(step: Callable[[], object]) -> Exception | None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 - raised at the end of the pass
        error.add_note(f"in the step {step.__name__}")
        if isinstance(error, DatabaseError | InterfaceError):
            close_old_connections()  # a broken one would fail every step that follows
        return error
    return None
