from datetime import datetime
from decimal import Decimal
from typing import ClassVar

from django.db import models

from machines.rules import MACHINE_TRANSITIONS, MachineState, Market
from training.models import Budget, TrainingRun

THE_ONE = 1


class Machine(models.Model):
    """One life of an instance, from the request to its end. All times are by the cloud's clock."""

    TRANSITIONS: ClassVar = MACHINE_TRANSITIONS

    life = models.CharField(max_length=36, unique=True, help_text="the token that makes a repeated start one")
    slot = models.PositiveSmallIntegerField(
        null=True, unique=True, help_text="1 until it has ended, so that there is one at a time"
    )
    state = models.CharField(
        max_length=12, default=MachineState.REQUESTED, choices=[(s.value, s.value) for s in MachineState]
    )
    reason = models.TextField(blank=True, help_text="why it is in this state")
    budget = models.ForeignKey(
        Budget,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="machines",
        help_text="of the launch whose limits bound it; none where a person started it",
    )
    requested_by = models.CharField(max_length=150)
    instance_id = models.CharField(max_length=32, blank=True, db_index=True)
    instance_type = models.CharField(max_length=32)
    region = models.CharField(max_length=32)
    market = models.CharField(max_length=12, choices=[(m.value, m.value) for m in Market])
    usd_per_hour = models.DecimalField(max_digits=10, decimal_places=4)
    allowed_seconds = models.PositiveIntegerField(help_text="its bound: it never runs longer")
    requested_at = models.DateTimeField()
    ordered_at = models.DateTimeField(
        null=True, blank=True, help_text="when the cloud was first asked for it"
    )
    previous_start_at = models.DateTimeField(
        null=True, blank=True, help_text="of a given instance: when it was started before"
    )
    started_at = models.DateTimeField(null=True, blank=True, help_text="by the instance itself")
    worker_heard_at = models.DateTimeField(null=True, blank=True, help_text="its worker's first report")
    busy_at = models.DateTimeField(null=True, blank=True, help_text="when its worker last held a run")
    seen_at = models.DateTimeField(null=True, blank=True, help_text="the last look at it")
    ended_at = models.DateTimeField(null=True, blank=True, help_text="by the instance itself")
    is_end_exact = models.BooleanField(default=True, help_text="false where the cloud named no time")
    is_reclaimed = models.BooleanField(default=False, help_text="the cloud took a spot instance back")
    lacked_capacity = models.BooleanField(default=False, help_text="the cloud had no such instance")
    stop_asked_at = models.DateTimeField(null=True, blank=True)
    stop_asked_by = models.CharField(max_length=150, blank=True)
    stop_reason = models.TextField(blank=True)
    billed_seconds = models.PositiveIntegerField(default=0)
    cost_usd = models.DecimalField(max_digits=12, decimal_places=6, default=Decimal(0))

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"machine {self.pk} ({self.instance_id or self.instance_type})"

    @property
    def has_ended(self) -> bool:
        return MachineState(self.state).has_ended

    @property
    def age_seconds(self) -> float:
        """Since its start, at the last look."""
        if self.started_at is None or self.seen_at is None:
            return 0.0
        return max(0.0, (self.seen_at - self.started_at).total_seconds())


class MachineUse(models.Model):
    """What one run took of one machine, and its part of the bill."""

    machine = models.ForeignKey(Machine, on_delete=models.PROTECT, related_name="uses")
    run = models.ForeignKey(TrainingRun, on_delete=models.PROTECT, related_name="machine_uses")
    seconds_before = models.FloatField(help_text="machine time of the run when it came here")
    usd_before = models.DecimalField(max_digits=12, decimal_places=6)
    seconds = models.FloatField(default=0, help_text="machine time of the run here; its weight")
    estimate_usd = models.DecimalField(max_digits=12, decimal_places=6, default=Decimal(0))
    share_usd = models.DecimalField(max_digits=12, decimal_places=6, default=Decimal(0))

    class Meta:
        ordering = ["run_id"]
        constraints = [models.UniqueConstraint(fields=["machine", "run"], name="a_run_uses_a_machine_once")]

    def __str__(self) -> str:
        return f"{self.run} on {self.machine}"


class MachinePrice(models.Model):
    """The price of an instance type in a region. The newest row counts; earlier ones stay."""

    instance_type = models.CharField(max_length=32)
    region = models.CharField(max_length=32)
    market = models.CharField(max_length=12, choices=[(m.value, m.value) for m in Market])
    usd_per_hour = models.DecimalField(max_digits=10, decimal_places=4)
    set_by = models.CharField(max_length=150)
    set_at = models.DateTimeField(auto_now_add=True)
    reason = models.TextField()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["instance_type", "region", "market", "id"])]

    def __str__(self) -> str:
        return f"{self.instance_type} in {self.region}, {self.market}"


class MonthlyLimit(models.Model):
    """What all machines may cost in a month. The newest row counts; earlier ones stay."""

    usd = models.DecimalField(max_digits=10, decimal_places=2)
    set_by = models.CharField(max_length=150)
    set_at = models.DateTimeField(auto_now_add=True)
    reason = models.TextField()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"monthly limit {self.pk}"


class ControllerTurn(models.Model):
    """The lease of the controller, one row: who looks now, and what it found last."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=THE_ONE)
    holder = models.CharField(max_length=40, blank=True)
    until = models.DateTimeField(null=True, blank=True, help_text="by the database's clock")
    looked_at = models.DateTimeField(null=True, blank=True, help_text="by the database's clock")
    asked_at = models.DateTimeField(
        null=True, blank=True, help_text="when the cloud last answered, by the database's clock"
    )
    said = models.TextField(blank=True, help_text="what was decided")
    problem = models.TextField(blank=True, help_text="why the cloud could not be asked")
    failing_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=THE_ONE), name="one_controller_turn")]

    def __str__(self) -> str:
        return "the controller's turn"

    def is_free(self, now: datetime, *, lease_seconds: float) -> bool:
        """Whether nobody holds it. An end further away than a lease is of a clock that was wrong."""
        return self.until is None or not 0 < (self.until - now).total_seconds() <= lease_seconds

    def is_due(self, now: datetime, *, every_seconds: float) -> bool:
        """Whether the last look is long enough ago, or in a future that a clock was wrong about."""
        return self.looked_at is None or not 0 <= (now - self.looked_at).total_seconds() < every_seconds
