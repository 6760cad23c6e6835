"""What a machine costs, and which run pays which part of it."""

from datetime import UTC, datetime
from decimal import Decimal

from django.conf import settings
from django.db.models import Q, Sum
from django.utils import timezone

from machines.cloud.user_data import WORKER_PREFIX
from machines.models import Machine, MachinePrice, MachineUse, MonthlyLimit
from machines.rules import Market, count_billed_seconds, share_out
from training.models import TrainingRun
from training.rules import JobState, compute_cost


def find_price(instance_type: str, region: str, market: Market) -> Decimal | None:
    """Per hour, as it was set last. A spot machine without a price of its own may cost as much as one on demand."""
    rows = MachinePrice.objects.filter(instance_type=instance_type, region=region)
    for asked in dict.fromkeys((market, Market.ON_DEMAND)):
        price = rows.filter(market=asked).values_list("usd_per_hour", flat=True).first()
        if price is not None:
            return price
    return None


def get_monthly_limit() -> Decimal:
    """As it was set last, else as the settings say."""
    limit = MonthlyLimit.objects.values_list("usd", flat=True).first()
    return Decimal(settings.MACHINE_MONTHLY_LIMIT_USD) if limit is None else limit


def sum_month(at: datetime) -> Decimal:
    """The cost of the machines that were requested in this month."""
    since = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    spent = Machine.objects.filter(requested_at__gte=since).aggregate(usd=Sum("cost_usd"))["usd"]
    return spent or Decimal(0)


def compute_month_left(at: datetime) -> Decimal:
    return get_monthly_limit() - sum_month(at)


def compute_bill(machine: Machine, until: datetime) -> tuple[int, Decimal]:
    """Billed seconds and cost from its start until then; nothing for one that never started."""
    if machine.started_at is None:
        return 0, Decimal(0)
    seconds = count_billed_seconds(machine.started_at, until)
    return seconds, compute_cost(seconds, machine.usd_per_hour)


def list_held_runs(machine: Machine) -> list[TrainingRun]:
    """The runs that its worker holds now."""
    held = TrainingRun.objects.filter(worker_name=get_worker_name(machine), state=JobState.RUNNING)
    return list(held.filter(lease_until__gte=timezone.now()))


def get_worker_name(machine: Machine) -> str:
    return f"{WORKER_PREFIX}{machine.instance_id}"


def record_uses(machine: Machine) -> None:
    """Store how much of each run was done on this machine."""
    if not machine.instance_id:
        return
    uses = {use.run_id: use for use in machine.uses.all()}
    # A given instance has the same name in each of its lives: what ended in an earlier one is not of this one.
    earlier = MachineUse.objects.filter(machine__instance_id=machine.instance_id).exclude(machine=machine)
    is_here = Q(pk__in=list(uses)) | ~Q(pk__in=earlier.values("run"))
    is_here |= Q(state=JobState.RUNNING, lease_until__gte=timezone.now())
    runs = TrainingRun.objects.filter(is_here, worker_name=get_worker_name(machine), attempt__gt=0)
    for run in runs.exclude(started_at=None):
        use = uses.get(run.pk) or _begin_use(machine, run)
        use.seconds = max(0.0, run.billed_seconds - use.seconds_before)
        use.estimate_usd = max(Decimal(0), run.spent_usd - use.usd_before)
        use.save(update_fields=["seconds", "estimate_usd"])


def _begin_use(machine: Machine, run: TrainingRun) -> MachineUse:
    """With what the run had taken elsewhere: on another machine, or in attempts before this one."""
    before = run.machine_uses.order_by("-pk").first()
    if before is not None:
        seconds, usd = before.seconds_before + before.seconds, before.usd_before + before.estimate_usd
    elif run.attempt > 1:
        seconds, usd = run.billed_seconds, run.spent_usd
    else:
        seconds, usd = 0.0, Decimal(0)
    return MachineUse.objects.create(machine=machine, run=run, seconds_before=seconds, usd_before=usd)


def share_bill(machine: Machine) -> dict[int, Decimal]:
    """Store each run's part of the cost so far, by its time here; the parts add up to it.

    A machine on which no run worked is paid for in equal parts by the launch that wanted it.
    """
    uses = {use.run_id: use for use in machine.uses.all()}
    if not uses and machine.has_ended and machine.budget is not None:
        runs = machine.budget.runs.all()
        uses = {run.pk: _begin_use(machine, run) for run in runs} if machine.cost_usd else {}
    shares = share_out(machine.cost_usd, {run: use.seconds for run, use in uses.items()})
    for run, usd in shares.items():
        if uses[run].share_usd != usd or machine.has_ended:
            MachineUse.objects.filter(pk=uses[run].pk).update(share_usd=usd)
            total = MachineUse.objects.filter(run=run).aggregate(usd=Sum("share_usd"))["usd"]
            TrainingRun.objects.filter(pk=run).update(machine_usd=total)
    return shares
