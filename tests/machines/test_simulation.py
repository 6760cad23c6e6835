"""Random lives of machines in a cloud that fails in every way, with a fixed seed.

Whatever happens: no instance runs beyond its bound, no run is lost, and the bill equals the instances' seconds.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import pytest

from audit import services as audit
from audit.models import AuditEvent
from machines.cloud.protocol import CloudUnavailable, Order
from machines.control.lives import list_open
from machines.models import Machine
from machines.rules import MachineState, Market
from tests.machines.simulated_cloud import Fate, Killed
from tests.machines.world import World
from training.models import Budget, TrainingRun
from training.rules import JobState

SEED = 12
SHORT, LONG = 6, 200
STEP_SECONDS = 30.0
DONE = (JobState.SUCCEEDED, JobState.FAILED)


@dataclass
class Trouble:
    """What goes wrong, by chance; and how often it did."""

    chance: random.Random
    world: World
    counts: Counter[str] = field(default_factory=Counter)
    dead_until: float = 0.0
    wrong_until: float = 0.0
    time: float = 0.0

    def happens(self, name: str, share: float) -> bool:
        if self.chance.random() >= share:
            return False
        self.counts[name] += 1
        return True

    def choose_fate(self, order: Order) -> Fate:
        fate = Fate(
            boots_after=self.chance.uniform(20, 90),
            stops_within=self.chance.uniform(2, 40),
            listed_after=self.chance.choice([0, 0, 15, 60]),
        )
        kind = self.chance.random()
        if kind < 0.15:
            self.counts["late"] += 1
            fate.boots_after = self.chance.uniform(120, 480)
        elif kind < 0.25:
            self.counts["fails at its start"] += 1
            fate.fails = True
        elif kind < 0.32:
            self.counts["without a worker"] += 1
            fate.has_worker = False
        elif kind < 0.55 and order.market == Market.SPOT:
            self.counts["reclaimed"] += 1
            fate.reclaimed_after = self.chance.uniform(30, 1500)
        return fate

    def disturb(self, call: str) -> None:
        """Before and after each call of the cloud."""
        if self.happens("controller killed", 0.01):
            self.dead_until = self.time + self.chance.choice([0, 60, 300, 1500])
            raise Killed
        if self.happens("answer lost", 0.02):
            raise CloudUnavailable("the answer was lost")

    def begin_step(self) -> None:
        self.world.cloud.refuses = frozenset({Market.SPOT}) if self.chance.random() < 0.1 else frozenset()
        if self.time >= self.wrong_until:
            self.world.shift = timedelta(0)
            if self.happens("clock jumps", 0.004):
                self.world.shift = timedelta(
                    seconds=self.chance.choice([-1, 1]) * self.chance.uniform(60, 7200)
                )
                self.wrong_until = self.time + self.chance.uniform(60, 900)

    @property
    def has_controller(self) -> bool:
        return self.time >= self.dead_until


def simulate(world: World, lives: int) -> Counter[str]:
    """Launches one after another until so many instances have lived; then until all is at rest."""
    trouble = Trouble(random.Random(SEED), world)
    cloud = world.cloud
    cloud.choose_fate, cloud.before, cloud.after = trouble.choose_fate, trouble.disturb, trouble.disturb
    while not _is_at_rest() or len(cloud.instances) < lives:
        if len(cloud.instances) < lives and _may_launch(trouble.chance):
            trouble.counts["launches"] += 1
            usd, epochs = trouble.chance.choice(["1.50", "1.50", "0.60"]), trouble.chance.choice([5, 15, 30])
            world.launch(trouble.chance.choice([1, 3]), usd=usd, epochs=epochs)
        trouble.begin_step()
        if trouble.has_controller:
            world.look_or_die()
        world.pass_time(STEP_SECONDS, step=STEP_SECONDS)
        trouble.time += STEP_SECONDS
        assert trouble.time < lives * 14_400, "a run waits without end"
    return trouble.counts


def _may_launch(chance: random.Random) -> bool:
    waiting = TrainingRun.objects.exclude(state__in=DONE).count()
    return waiting == 0 or (waiting < 4 and chance.random() < 0.01)


def _is_at_rest() -> bool:
    return not list_open().exists() and not TrainingRun.objects.exclude(state__in=DONE).exists()


def check(world: World) -> None:
    """What must hold once all is at rest."""
    instances = world.cloud.instances
    beyond = [each for each in instances if each.seconds > each.order.allowed_seconds]
    assert [(each.id, each.seconds, each.order.allowed_seconds, each.end_reason) for each in beyond] == []

    by_id = {row.instance_id: row for row in Machine.objects.exclude(instance_id="")}
    billed = {each.id: by_id[each.id].billed_seconds for each in instances}
    assert billed == {each.id: each.seconds for each in instances}
    assert len(by_id) == Machine.objects.exclude(instance_id="").count(), "no instance is billed twice"

    runs = list(TrainingRun.objects.all())
    assert {run.state for run in runs} <= set(DONE)
    assert [run.failure for run in runs if run.state == JobState.FAILED and "limit" not in run.failure] == []
    for run in runs:
        if run.state == JobState.SUCCEEDED:
            assert list(run.epoch_rows.values_list("number", flat=True)) == list(range(1, run.epochs + 1))
    for budget in Budget.objects.all():
        paid = sum((machine.cost_usd for machine in budget.machines.all()), Decimal(0))
        assert paid <= budget.spending_limit_usd
        assert sum(machine.billed_seconds for machine in budget.machines.all()) <= budget.time_limit_seconds

    ended = Machine.objects.filter(state__in=(MachineState.STOPPED, MachineState.FAILED))
    assert ended.count() == Machine.objects.count()
    # What was found belongs to no launch, and is paid for by the runs on it, if any.
    shared = sum((run.machine_usd or Decimal(0) for run in runs), Decimal(0))
    unshared = sum((m.cost_usd for m in ended.filter(uses=None)), Decimal(0))
    assert shared + unshared == sum((machine.cost_usd for machine in ended), Decimal(0))
    assert AuditEvent.objects.filter(kind="machine.stopped").count() == ended.filter(state="stopped").count()
    assert audit.verify() == []


@pytest.mark.django_db
@pytest.mark.slow
@pytest.mark.long
def test_a_few_random_lives_keep_bound_run_and_bill(world: World) -> None:
    simulate(world, SHORT)
    check(world)


@pytest.mark.django_db
@pytest.mark.soak
def test_two_hundred_random_lives_keep_bound_run_and_bill(
    world: World, record: Callable[[str], None]
) -> None:
    counts = simulate(world, LONG)
    check(world)
    for trouble in (
        "late",
        "fails at its start",
        "reclaimed",
        "controller killed",
        "clock jumps",
        "answer lost",
    ):
        assert counts[trouble] >= 3, trouble
    record(
        f"{len(world.cloud.instances)} instances; "
        + ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    )


@pytest.fixture
def record(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Say what happened, also where the test passes."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return say
