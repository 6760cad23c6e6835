"""When backups are made and drilled, and by which process: one at a time, asked for by reconcile or by a person.

Level-triggered: each pass of reconcile looks at the rows as they are. A task is a row, waiting until a process claims it.
That process reports every few seconds; one that falls silent has failed, and a later pass asks again.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, IntegrityError, connection
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from accounts.decisions import decision
from accounts.roles import GATE, Actor, Role
from audit import services as audit
from common.errors import Conflict, DomainError
from crpbot.backup import create, drill, retention, store
from deploy.alarms import backups
from deploy.models import BackupTask
from deploy.rules import BackupKind, BackupState

REPORT_SECONDS = 10.0
LOOK_SECONDS = 1.0
"""Between two looks whether the task under way has ended."""
SILENT_AFTER = timedelta(seconds=60)
RETRY_AFTER = timedelta(hours=1)
"""A failed backup or drill is repeated by itself after this long."""

logger = logging.getLogger(__name__)
_child: subprocess.Popen[bytes] | None = None
"""The process that carries out the task, where this one started it."""


def request(kind: BackupKind, *, actor: Actor, reason: str) -> BackupTask:
    """Ask for a backup or a drill, as an administrator; reconcile carries it out.

    Raises NotAllowed, InvalidInput, and Conflict while another one is under way.
    """
    to = f"make a {kind} now"
    with decision(
        f"{kind}.request", BackupTask(kind=kind), actor=actor, role=Role.ADMINISTRATOR, to=to, reason=reason
    ) as reason:
        return _create(kind, requested_by=str(actor), reason=reason)


def look() -> None:
    """Give up on a silent process, and ask for what is due. `reconcile` calls it."""
    _end_silent()
    if (
        not (settings.BACKUP_HOURS or settings.BACKUP_DRILL_DAYS)
        or BackupTask.objects.filter(slot=1).exists()
    ):
        return
    last, now = backups.load_last(), timezone.now()
    kind = next((kind for kind in BackupKind if _is_due(kind, last, now)), None)
    if kind is not None and not store.list_newer_migrations():  # else the newer version's reconcile makes it
        try:
            _create(kind, requested_by=str(GATE), reason="it is due")
        except Conflict:  # another process asked at this moment
            return


def start_waiting() -> None:
    """Start a process for the task that waits, unless one of this process still runs. It does not wait for it."""
    global _child
    if _child is not None and _child.poll() is None:
        return
    if not BackupTask.objects.filter(state=BackupState.WAITING).exists():
        return
    environment = {**os.environ, "CRPBOT_BACKUP_DIR": str(settings.BACKUP_DIR)}
    command = [sys.executable, "manage.py", "backup", "carry-out"]
    _child = subprocess.Popen(command, cwd=settings.BASE_DIR, env=environment, stdout=subprocess.DEVNULL)


def carry_out_waiting() -> BackupTask | None:
    """Carry out the task that waits, in this process; None where there is none, or another process was faster."""
    task = BackupTask.objects.filter(state=BackupState.WAITING).first()
    if task is None or not _claim(task):
        return None
    _carry_out(task)
    return task


def run_now(kind: BackupKind, *, requested_by: str, wait_seconds: float = 0.0, **access: str) -> BackupTask:
    """Carry out a backup or a drill in this process, for whom has its shell; for so long it waits for one under way.

    `access` is what a drill needs: name, public_key, identity_file. Raises Conflict, which names the task that is still
    under way after that, and what the backup or the drill raises.
    """
    task = _take_slot(kind, requested_by, time.monotonic() + wait_seconds)
    _carry_out(task, **access)
    return task


def _take_slot(kind: BackupKind, requested_by: str, deadline: float) -> BackupTask:
    """A running task. Nobody sees it waiting: reconcile would carry it out."""
    is_said = False
    while True:
        _end_silent()
        try:
            with audit.locked():
                task = _create(kind, requested_by=requested_by, reason="asked for in a shell")
                _claim(task)
                return task
        except Conflict as taken:
            if time.monotonic() >= deadline:
                raise
            if not is_said:
                logger.warning("%s It is waited for.", taken.message)
        is_said = True
        time.sleep(LOOK_SECONDS)


def _is_due(kind: BackupKind, last: Mapping[tuple[str, str], BackupTask], now: datetime) -> bool:
    done, failed = last.get((kind, BackupState.DONE)), last.get((kind, BackupState.FAILED))
    if failed is not None and failed.ended_at is not None and now - failed.ended_at < RETRY_AFTER:
        return False
    if kind == BackupKind.BACKUP:
        every = timedelta(hours=settings.BACKUP_HOURS)
        return bool(every) and audit.get_last_seq() > 0 and _is_older(done, now - every)
    every, newest = (
        timedelta(days=settings.BACKUP_DRILL_DAYS),
        last.get((BackupKind.BACKUP, BackupState.DONE)),
    )
    if (
        not every or newest is None or newest.result.get("is_encrypted")
    ):  # that takes somebody with an identity
        return False
    return _is_older(done, now - every)


def _is_older(task: BackupTask | None, than: datetime) -> bool:
    return task is None or task.started_at is None or task.started_at <= than


def _create(kind: BackupKind, *, requested_by: str, reason: str) -> BackupTask:
    task = BackupTask(kind=kind, requested_by=requested_by, reason=reason)
    try:
        with audit.locked():
            task.save(force_insert=True)
            audit.record("backuptask.requested", task, actor=requested_by, reason=reason)
    except IntegrityError:
        raise Conflict(f"{_describe_open()}: there is one at a time.") from None
    return task


def _describe_open() -> str:
    """Which task is under way, since when, and for whom."""
    task = BackupTask.objects.filter(slot=1).first()
    if task is None:
        return "Another one ended at this moment"
    since = task.started_at or task.requested_at
    return (
        f"{str(task).capitalize()} is {task.state} since {since:%H:%M:%S}Z, asked for by {task.requested_by}"
    )


def _claim(task: BackupTask) -> bool:
    """Whether this process is the one that carries it out."""
    try:
        audit.transition(
            task,
            BackupState.RUNNING,
            actor=task.requested_by,
            reason=task.reason,
            started_at=timezone.now(),
            heard_at=Now(),
        )
    except Conflict:
        return False
    task.refresh_from_db()
    return True


def _carry_out(task: BackupTask, **access: str) -> None:
    """Raises what failed, once that is recorded."""
    with _reporting(task):
        try:
            name, result = _make_backup() if task.kind == BackupKind.BACKUP else _drill(**access)
        except Exception as failure:
            reason = (
                failure.message
                if isinstance(failure, DomainError)
                else f"{type(failure).__name__}: {failure}"
            )
            _end(task, BackupState.FAILED, reason=reason)
            raise
    _end(task, BackupState.DONE, reason=task.reason, backup=name, result=result)


def _make_backup() -> tuple[str, dict[str, Any]]:
    manifest = create.create_backup()
    result: dict[str, Any] = {
        "seq": manifest.head.seq,
        "size": manifest.size,
        "files": len(manifest.files),
        "lost": manifest.lost,
        "is_encrypted": bool(manifest.recipients),
    }
    try:
        result["removed"] = retention.prune()
    except DomainError as refusal:  # such as a lock on the bucket, which keeps them from everybody
        logger.warning("old backups could not be removed: %s", refusal.message)
        result["not_removed"] = refusal.message
    return manifest.name, result


def _drill(*, name: str = "", public_key: str = "", identity_file: str = "") -> tuple[str, dict[str, Any]]:
    found = drill.drill(name, public_key=public_key, identity_file=identity_file)
    return found["name"], found


def _end(task: BackupTask, state: BackupState, *, reason: str, **columns: Any) -> None:
    detail: Mapping[str, Any] = {
        name: value for name, value in columns.items() if value and name in ("backup", "result")
    }
    audit.transition(
        task,
        state,
        actor=task.requested_by,
        reason=reason,
        detail=detail,
        slot=None,
        ended_at=timezone.now(),
        **columns,
    )


def _end_silent() -> None:
    running = BackupTask.objects.filter(state=BackupState.RUNNING)
    for task in running.annotate(silence=Now() - F("heard_at")):
        if task.silence > SILENT_AFTER:
            try:
                _end(task, BackupState.FAILED, reason="Its process ended without a word.")
            except Conflict:  # it ended at this moment
                continue


@contextmanager
def _reporting(task: BackupTask) -> Iterator[None]:
    """Say every few seconds that this process still works on it."""
    done = threading.Event()

    def report() -> None:
        try:
            while not done.wait(REPORT_SECONDS):
                try:
                    BackupTask.objects.filter(pk=task.pk, state=BackupState.RUNNING).update(heard_at=Now())
                except DatabaseError:
                    logger.warning("the %s could not report", task, exc_info=True)
        finally:
            connection.close()

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        done.set()
        reporter.join()
