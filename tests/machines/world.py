"""A desk with a machine in the cloud, in simulated time: the controller, the workers on instances, and their runs.

The rows, leases and audit events are real; what is simulated is the cloud, the time, and the training itself.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from accounts.roles import Actor, Role
from machines import services
from machines.control.look import control_machines
from machines.control.turn import LEASE_SECONDS
from machines.models import ControllerTurn, Machine
from tests import factories, scenarios
from tests.machines.simulated_cloud import Killed, SimulatedCloud, SimulatedInstance
from training.jobs import leases
from training.models import Budget, Epoch, TrainingRun, Worker
from training.rules import JobState, compute_cost
from training.services import runs

APPROVER = Actor("anna", frozenset({Role.VIEWER, Role.APPROVER}))
OPERATOR = factories.OPERATOR
PRICES = {"spot": Decimal("0.45"), "on-demand": Decimal("1.006")}
EPOCHS = 10
WORKER_RATE = Decimal("0.3354")
HEARTBEAT_SECONDS = 5


def configure(settings: Any, **changes: Any) -> None:
    """A machine in the settings, with every look due at once."""
    values = {
        "MACHINE_REGION": "us-east-1",
        "MACHINE_TEMPLATE": "crpbot-worker",
        "MACHINE_INSTANCE": "",
        "MACHINE_MARKETS": ["spot", "on-demand"],
        "MACHINE_LOOK_SECONDS": 0.0,
        "MACHINE_IDLE_SECONDS": 300.0,
        "MACHINE_START_SECONDS": 600.0,
        "MACHINE_MONTHLY_LIMIT_USD": "1000",
        "LEASE_SECONDS": 90.0,  # simulated workers renew it once in a step of up to a minute
        **changes,
    }
    for name, value in values.items():
        setattr(settings, name, value)


def set_prices(**prices: Decimal) -> None:
    for market, usd in (prices or PRICES).items():
        services.set_price(
            instance_type="g5.xlarge",
            region="us-east-1",
            market=market.replace("_", "-"),
            usd_per_hour=usd,
            actor=APPROVER,
            reason="the price list",
        )


@dataclass
class World:
    """`pass_time` moves the cloud, its instances and their workers; `look` is one pass of the controller."""

    cloud: SimulatedCloud
    shift: timedelta = timedelta(0)
    """By how much the clock of the service is wrong."""
    epoch_seconds: float = 40.0
    _worked: dict[int, float] = field(default_factory=dict)
    """Of each run, the seconds of work towards its next epoch; lost with its worker."""

    def read_clock(self) -> datetime:
        return self.cloud.now + self.shift

    def launch(
        self,
        coins: int = 3,
        *,
        usd: str = "1.50",
        seconds: int = 5400,
        epochs: int = EPOCHS,
        is_endless: bool = False,
    ) -> Budget:
        """The queued runs of one launch; endless ones never finish an epoch."""
        if is_endless:
            self.epoch_seconds = float("inf")
        budget = Budget.objects.create(
            spending_limit_usd=Decimal(usd), time_limit_seconds=seconds, runs_expected=coins
        )
        for coin in scenarios.coins()[:coins]:
            runs.launch_run(
                coin=coin,
                dataset=scenarios.dataset(coin),
                line="v7_fixed",
                parameters={"epochs": epochs},
                seed=1,
                budget=budget,
                actor=OPERATOR,
                is_sent=False,
            )
        return budget

    def look(self) -> None:
        control_machines(lambda configuration: self.cloud)

    def look_or_die(self) -> bool:
        """The same; False where the controller was killed at it. Its lease stays."""
        try:
            self.look()
        except Killed:
            return False
        return True

    def pass_time(self, seconds: float, *, step: float = 10.0) -> None:
        """Without a look of the controller."""
        while seconds > 0:
            length = min(step, seconds)
            self.cloud.advance(length)
            _age_lease(length)
            for instance in self.cloud.instances:
                self._work_on(instance, length)
            seconds -= length

    def run(self, seconds: float, *, every: float | None = None) -> None:
        """Looks and time in turn; over a long time a look every half minute is enough."""
        every = every or (10.0 if seconds <= 600 else 30.0)
        while seconds > 0:
            self.look()
            self.pass_time(every, step=every)
            seconds -= every

    def _work_on(self, instance: SimulatedInstance, seconds: float) -> None:
        """What the worker on this instance does meanwhile. Its clock is the instance's, which is right."""
        name = f"worker@{instance.id}"
        if not instance.is_up(self.cloud.now) or not instance.fate.has_worker:
            return
        before, self.shift = self.shift, timedelta(0)
        try:
            Worker.objects.update_or_create(
                name=name,
                defaults={
                    "queues": "training",
                    "slots": 3,
                    "device": "NVIDIA A10G",
                    "torch_version": "2.13.0",
                    "code_version": "0.1.0",
                    "rate_usd_per_hour": WORKER_RATE,
                    "started_at": instance.boots_at,
                    # As the service's clock reads it: what compares the two is tested elsewhere.
                    "last_heard_at": self.cloud.now + before,
                },
            )
            self._take_runs(name)
            for run in TrainingRun.objects.filter(state=JobState.RUNNING, worker_name=name):
                self._train(run, seconds)
        finally:
            self.shift = before

    def _take_runs(self, worker: str) -> None:
        held = TrainingRun.objects.filter(
            state=JobState.RUNNING, worker_name=worker, lease_until__gte=self.cloud.now
        )
        free = [
            run
            for run in TrainingRun.objects.filter(state__in=("queued", "running")).order_by("pk")
            if leases.is_free(run)
        ]
        for run in free[: 3 - held.count()]:
            leases.claim(TrainingRun, run.pk, worker_name=worker, rate_usd_per_hour=WORKER_RATE)
            self._worked[run.pk] = 0.0

    def _train(self, run: TrainingRun, seconds: float) -> None:
        billed = run.billed_seconds + seconds
        columns: dict[str, Any] = {"billed_seconds": billed, "spent_usd": compute_cost(billed, WORKER_RATE)}
        leases.write(run, lease_until=leases.compute_lease_end(), **columns)
        self._worked[run.pk] = self._worked.get(run.pk, 0.0) + seconds
        done = run.epoch_rows.count()
        while self._worked[run.pk] >= self.epoch_seconds and done < run.epochs:
            self._worked[run.pk] -= self.epoch_seconds
            done += 1
            Epoch.objects.create(
                run=run, number=done, attempt=run.attempt, seconds=40, rows_per_second=1000, is_best=True
            )
        if done >= run.epochs:
            leases.finish(run, JobState.SUCCEEDED, **columns)


def _age_lease(seconds: float) -> None:
    """The lease of the controller is by the database's clock, which a test cannot turn: it ages here instead."""
    turn = ControllerTurn.objects.filter(pk=1).exclude(until=None).first()
    if turn is not None and turn.until is not None:
        ControllerTurn.objects.filter(pk=1).update(
            until=turn.until - timedelta(seconds=min(seconds, LEASE_SECONDS))
        )


@pytest.fixture
def world(db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    """A configured machine with prices, and nothing that waits."""
    configure(settings)
    built = World(SimulatedCloud())
    monkeypatch.setattr(timezone, "now", built.read_clock)
    set_prices()
    return built


def the_machine() -> Machine:
    return Machine.objects.latest("pk")


def states() -> list[str]:
    return list(Machine.objects.order_by("pk").values_list("state", flat=True))
