"""The state of the service as Prometheus reads it: from the database and from Redis, at the moment of a scrape."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import product
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, F, Max, Min, Q, Sum
from django.db.models.functions import Now
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from audit import services as audit
from common.metrics import time_redis
from deploy.alarms import backups
from deploy.bots import fleet
from deploy.models import Acknowledgement, Alarm, Convergence, PointerMove, ReconcilePass, ReleaseStatus
from deploy.pointer import notify, pointer
from deploy.rules import AlarmName, BackupKind, BackupState, BotState, MoveKind, ReleaseState, Severity
from gates.models import Diagnosis, GateResult, Measurement
from machines.configuration import get_configuration
from machines.control import costs
from machines.models import Machine
from machines.rules import MachineState
from mlcore.verdict import Verdict
from training.jobs.worker_registry import list_alive_workers
from training.models import Job, TrainingRun
from training.rules import JobState

SECONDS = 1.0
"""No query begins after this time."""
STATEMENT_SECONDS = 0.5
DIAGNOSES_COUNTED = 500
"""The newest ones: there are many results of gates, and to count them all would take longer with every release."""
QUEUES: Mapping[str, type[Job]] = {"training": TrainingRun, "gates": Measurement}
LIVE_STATES = (BotState.MIXTURE, BotState.BEHIND, BotState.SILENT, BotState.MOVING, BotState.CURRENT)


def read_database() -> list[Metric]:
    """The figures of the database. Raises DatabaseError, and TimeoutError when it takes too long."""
    deadline = time.monotonic() + SECONDS
    metrics: list[Metric] = []
    with _limit_statements():
        for read in _READERS:
            if time.monotonic() > deadline:
                raise TimeoutError("The database is too slow to be counted.")
            metrics += read()
    return metrics


@contextmanager
def _limit_statements() -> Iterator[None]:
    """On PostgreSQL. A transaction of SQLite would keep others from writing, and SQLite answers from this process."""
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {int(STATEMENT_SECONDS * 1000)}")
        yield


def read_redis() -> list[Metric]:
    """The messages that wait in the broker. Raises RedisError and OSError."""
    waiting = _gauge("crpbot_queue_messages", "Messages that wait in the broker, which are hints.", ["queue"])
    with time_redis("scrape"), notify.connect_briefly() as client:
        for queue in QUEUES:
            waiting.add_metric([queue], float(client.llen(queue)))
    return [waiting]


def _read_jobs() -> Iterator[Metric]:
    queued = _gauge("crpbot_jobs_queued", "Jobs that wait for a worker.", ["queue"])
    running = _gauge("crpbot_jobs_running", "Jobs that a worker holds.", ["queue"])
    oldest = _gauge("crpbot_queue_oldest_seconds", "For how long the oldest of them has waited.", ["queue"])
    ended = _counter("crpbot_jobs_ended", "Jobs that ended, by their final state.", ["queue", "state"])
    phases = _counter(
        "crpbot_job_phase_seconds",
        "Time of started jobs: waiting for their first worker, and worked on.",
        ["queue", "phase"],
    )
    started = _counter("crpbot_jobs_started", "Jobs that a worker began.", ["queue"])
    spent = _counter("crpbot_spend_usd", "What the machine time of all runs cost.", [])
    now = timezone.now()
    for queue, model in QUEUES.items():
        rows = {row["state"]: row for row in _sum_up(model)}
        count = {state: rows.get(state, {}).get("count", 0) for state in JobState}
        queued.add_metric([queue], count[JobState.QUEUED])
        running.add_metric([queue], count[JobState.RUNNING])
        since = rows.get(JobState.QUEUED, {}).get("oldest")
        oldest.add_metric([queue], max(0.0, (now - since).total_seconds()) if since else 0.0)
        for state in JobState:
            if state.has_ended:
                ended.add_metric([queue, state], count[state])
        started.add_metric([queue], sum(row["started"] for row in rows.values()))
        for phase in ("waiting", "working"):
            phases.add_metric([queue, phase], sum(_to_seconds(row[phase]) for row in rows.values()))
        if model is TrainingRun:
            spent.add_metric([], float(sum(row["spent"] or 0 for row in rows.values())))
    yield from (queued, running, oldest, started, ended, phases, spent)


def _sum_up(model: type[Job]) -> Iterable[Any]:
    """One row for each state that there is."""
    is_run = model is TrainingRun
    sums = {
        "count": Count("pk"),
        "oldest": Min("created_at"),
        "started": Count("started_at"),
        "waiting": Sum(F("started_at") - F("created_at")),
        "working": Sum("billed_seconds") if is_run else Sum(F("finished_at") - F("started_at")),
    }
    if is_run:
        sums["spent"] = Sum("spent_usd")
    return model._base_manager.order_by().values("state").annotate(**sums)


def _to_seconds(length: timedelta | float | None) -> float:
    return length.total_seconds() if isinstance(length, timedelta) else float(length or 0.0)


def _read_workers() -> Iterator[Metric]:
    alive = _gauge("crpbot_workers_alive", "Workers with a recent heartbeat.", ["queue"])
    workers = list_alive_workers()
    for queue in QUEUES:
        alive.add_metric([queue], sum(queue in worker.queues.split(",") for worker in workers))
    yield alive


def _read_machines() -> Iterator[Metric]:
    """Nothing where no machine is configured."""
    if get_configuration() is None:
        return
    counts = _count_by(Machine.objects, "state")
    yield _fill("crpbot_machines", "Lives of machines by their state.", "state", MachineState, counts)
    spent = _counter(
        "crpbot_machine_spend_usd", "What machines really cost, by the instances' own times.", []
    )
    spent.add_metric([], float(Machine.objects.aggregate(usd=Sum("cost_usd"))["usd"] or 0))
    month = _gauge("crpbot_machine_month_usd", "The same, of this month.", [])
    month.add_metric([], float(costs.sum_month(timezone.now())))
    limit = _gauge("crpbot_machine_month_limit_usd", "What machines may cost in a month.", [])
    limit.add_metric([], float(costs.get_monthly_limit()))
    yield from (spent, month, limit)


def _read_releases() -> Iterator[Metric]:
    counts = _count_by(ReleaseStatus.objects, "state")
    yield _fill("crpbot_releases", "Releases by their state.", "state", ReleaseState, counts)
    limit = _gauge("crpbot_release_spending_limit_usd", "What the runs of one launch may cost.", [])
    limit.add_metric([], float(settings.RELEASE_SPENDING_LIMIT_USD))
    yield limit


def _read_verdicts() -> Iterator[Metric]:
    diagnoses = _counter("crpbot_diagnoses", "Diagnoses by their verdict.", ["verdict"])
    counts = _count_by(Diagnosis.objects, "verdict")
    for verdict in Verdict:
        diagnoses.add_metric([verdict], counts.get(verdict, 0))
    yield diagnoses
    results = _gauge(
        "crpbot_gate_results", f"Results of the newest {DIAGNOSES_COUNTED} diagnoses.", ["gate", "verdict"]
    )
    newest = Diagnosis.objects.aggregate(newest=Max("pk"))["newest"] or 0
    rows = GateResult.objects.filter(diagnosis__gt=newest - DIAGNOSES_COUNTED).order_by()
    for gate, verdict, count in rows.values_list("gate", "verdict").annotate(Count("pk")):
        results.add_metric([gate, verdict], count)
    yield results


def _read_pointer_and_bots() -> Iterator[Metric]:
    move = pointer.get_current()
    revision = _gauge("crpbot_pointer_revision", "The revision of the pointer; 0 before the first.", [])
    revision.add_metric([], move.revision if move else 0)
    kinds = {move.kind: 1} if move else {}
    yield revision
    yield _fill("crpbot_pointer_kind", "1 for the kind of the last move.", "kind", MoveKind, kinds)
    if move is not None:
        yield from _read_flip(move)
    states = fleet.list_bots_with_state(move).order_by()
    rows = states.values_list("state").annotate(Count("pk"), Min("last_heard_at"))
    by_state = {state: (count, heard_at) for state, count, heard_at in rows}
    counts = {state: count for state, (count, _) in by_state.items()}
    yield _fill("crpbot_bots", "Bots by their state.", "state", BotState, counts)
    lag = _gauge(
        "crpbot_bot_heartbeat_lag_seconds",
        "Since the last heartbeat of the expected bot heard longest ago.",
        [],
    )
    heard = [by_state[state][1] for state in LIVE_STATES if state in by_state]
    lag.add_metric([], max(0.0, (timezone.now() - min(heard)).total_seconds()) if heard else 0.0)
    yield lag


def _read_flip(move: PointerMove) -> Iterator[Metric]:
    moved_at = _gauge("crpbot_pointer_moved_timestamp_seconds", "When the pointer moved last.", [])
    moved_at.add_metric([], move.moved_at.timestamp())
    converged = _gauge(
        "crpbot_pointer_converged", "1 once every live bot had acknowledged the last move.", []
    )
    converged.add_metric([], float(Convergence.objects.filter(pk=move.revision).exists()))
    was_there = Q(bot__first_heard_at__lte=F("move__moved_at"))
    flip = Acknowledgement.objects.filter(move=move).aggregate(
        count=Count("pk"), slowest=Max("seconds", filter=was_there)
    )
    acknowledged = _gauge("crpbot_flip_acknowledged_bots", "Bots that acknowledged the last move.", [])
    acknowledged.add_metric([], flip["count"])
    slowest = _gauge("crpbot_flip_slowest_seconds", "The longest time that a bot took for the last move.", [])
    slowest.add_metric([], flip["slowest"] or 0.0)
    yield from (moved_at, converged, acknowledged, slowest)


def _read_alarms() -> Iterator[Metric]:
    """Every kind, also at 0, so that a query finds it before it is raised for the first time."""
    alarms = _gauge("crpbot_alarm_raised", "1 for each alarm that is raised now.", ["alarm", "severity"])
    raised = set(Alarm.objects.filter(cleared_at=None).values_list("name", "severity"))
    for name, severity in product(AlarmName, Severity):
        alarms.add_metric([name, severity], float((name, severity) in raised))
    yield alarms
    row = ReconcilePass.objects.annotate(age=Now() - F("completed_at")).values_list("age", flat=True).first()
    if row is not None:
        age = _gauge("crpbot_reconcile_age_seconds", "Since reconcile last completed a pass.", [])
        age.add_metric([], max(0.0, row.total_seconds()))
        yield age
    yield from _read_backups()
    events = _counter("crpbot_audit_events", "Events of the audit chain.", [])
    events.add_metric([], audit.get_last_seq())
    yield events


def _read_backups() -> Iterator[Metric]:
    """Without a sample where there was none yet: an age since the beginning of time would be an alarm."""
    last = backups.load_last()
    made, passed, failed = (
        last.get(key)
        for key in (
            (BackupKind.BACKUP, BackupState.DONE),
            (BackupKind.DRILL, BackupState.DONE),
            (BackupKind.DRILL, BackupState.FAILED),
        )
    )
    created = _gauge("crpbot_backup_created_timestamp_seconds", "When the newest backup was begun.", [])
    if made is not None and made.started_at is not None:
        created.add_metric([], made.started_at.timestamp())
    drilled = _gauge("crpbot_backup_drilled_timestamp_seconds", "When the last drill that passed ended.", [])
    if passed is not None and passed.ended_at is not None:
        drilled.add_metric([], passed.ended_at.timestamp())
    outcome = _gauge("crpbot_backup_drill_passed", "1 where the last drill passed, 0 where it failed.", [])
    if passed or failed:
        outcome.add_metric([], float(passed is not None and (failed is None or failed.pk < passed.pk)))
    yield from (created, drilled, outcome)


_READERS: tuple[Callable[[], Iterable[Metric]], ...] = (
    _read_jobs,
    _read_workers,
    _read_machines,
    _read_releases,
    _read_verdicts,
    _read_pointer_and_bots,
    _read_alarms,
)


def _count_by(rows: Any, column: str) -> dict[str, int]:
    return dict(rows.order_by().values_list(column).annotate(Count("pk")))


def _fill(name: str, text: str, label: str, all_values: Iterable[str], counts: Mapping[str, float]) -> Metric:
    """A gauge with each of these values, also where none is counted."""
    gauge = _gauge(name, text, [label])
    for value in all_values:
        gauge.add_metric([value], counts.get(value, 0))
    return gauge


def _gauge(name: str, text: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _counter(name: str, text: str, labels: list[str]) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=labels)
