"""What is wanted: launches whose runs wait for a machine, and what their limits leave."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models import Q, QuerySet, Sum
from django.utils import timezone

from accounts.roles import GATE
from common.errors import Conflict
from common.formatting import format_duration, format_usd
from machines.control.decide import Demand
from machines.models import Machine, MachineUse
from training.jobs import leases
from training.jobs.worker_registry import list_alive_workers
from training.models import Budget, TrainingRun
from training.rules import JobState

CLOCK_LIMIT = timedelta(seconds=60)
WAIT = timedelta(seconds=10)
"""A run that a worker on another machine takes does not wait for so long."""


def list_waiting_runs() -> QuerySet[TrainingRun]:
    """Runs that no worker has taken, or whose worker is gone; in the order of their launches.

    A person who stopped the machine stopped it for what waited then: only later runs count.
    """
    now = timezone.now()
    queued = Q(state=JobState.QUEUED) & (Q(created_at__lte=now - WAIT) | Q(created_at__gt=now))
    abandoned = Q(state=JobState.RUNNING, lease_until__lt=now)
    rows = TrainingRun.objects.filter(queued | abandoned).order_by("pk")
    last = Machine.objects.filter(slot=None).order_by("-pk").first()
    if last is not None and last.stop_asked_at is not None:
        rows = rows.filter(created_at__gt=last.stop_asked_at)
    return rows


def list_demands() -> list[Demand]:
    """The launches that these runs are of, the longest waiting first."""
    budgets = dict.fromkeys(list_waiting_runs().values_list("budget_id", flat=True))
    return [measure_left(budget) for budget in Budget.objects.in_bulk(budgets).values()] if budgets else []


def measure_left(budget: Budget) -> Demand:
    """What the limits leave of money and machine time, after its machines and its runs on other workers."""
    lives = budget.machines.aggregate(usd=Sum("cost_usd"), seconds=Sum("billed_seconds"))
    runs = budget.runs.values_list("pk", "spent_usd")
    here = dict(
        MachineUse.objects.filter(run__budget=budget)
        .order_by()
        .values_list("run")
        .annotate(estimate=Sum("estimate_usd"))
    )
    elsewhere = sum((max(Decimal(0), spent - here.get(run, Decimal(0))) for run, spent in runs), Decimal(0))
    return Demand(
        budget_id=budget.pk,
        usd=budget.spending_limit_usd - (lives["usd"] or Decimal(0)) - elsewhere,
        seconds=budget.time_limit_seconds - (lives["seconds"] or 0),
    )


def fail_exhausted(budget_ids: Iterable[int], demands: Iterable[Demand], *, at: datetime) -> None:
    """End the waiting runs of launches whose limits are spent, unless a worker elsewhere may still take them (rule 20).

    Never while this clock differs from the cloud's: runs and workers that are well would seem to be gone.
    """
    left = {demand.budget_id: demand for demand in demands}
    wanted = [budget_id for budget_id in budget_ids if budget_id in left]
    is_clock_wrong = abs(timezone.now() - at) > CLOCK_LIMIT
    if not wanted or is_clock_wrong or list_alive_workers("training"):
        return
    for run in list_waiting_runs().filter(budget__in=wanted):
        demand = left[run.budget_id]
        failure = (
            f"spending limit: this launch has {format_usd(max(demand.usd, Decimal(0)))} and"
            f" {format_duration(max(demand.seconds, 0.0))} of machine time left, too little to start a machine"
        )
        try:
            leases.end(run, JobState.FAILED, actor=GATE, reason=failure, failure=failure)
        except Conflict:
            continue  # a worker has just taken it
