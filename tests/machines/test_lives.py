"""Machines from the request to the bill, in a simulated cloud."""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from audit import services as audit
from audit.models import AuditEvent
from machines import services
from machines.cloud.protocol import CloudUnavailable
from machines.control.turn import take_turn
from machines.models import ControllerTurn, Machine, MachineUse
from machines.rules import STOP_MARGIN_SECONDS, MachineState, Market
from tests.machines.simulated_cloud import Fate, Killed, SimulatedCloud, lose_answers
from tests.machines.world import APPROVER, OPERATOR, World, configure, states, the_machine
from training.models import TrainingRun
from training.rules import JobState

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def runs_by_state() -> dict[str, int]:
    found: dict[str, int] = {}
    for state in TrainingRun.objects.values_list("state", flat=True):
        found[state] = found.get(state, 0) + 1
    return found


def detail(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(AuditEvent.objects.filter(kind=kind).latest("seq").body)["detail"]
    return found


@pytest.mark.postgresql
def test_a_machine_starts_for_waiting_runs_and_stops_when_idle(world: World) -> None:
    world.launch()
    world.run(1500)
    assert runs_by_state() == {JobState.SUCCEEDED: 3}
    assert states() == [MachineState.STOPPED]
    machine, (instance,) = the_machine(), world.cloud.instances
    assert machine.reason == "idle for 5 min"
    assert (machine.billed_seconds, machine.cost_usd) == (instance.seconds, instance.cost)
    assert (machine.market, machine.slot) == (Market.SPOT, None)
    assert audit.verify() == []


def test_without_waiting_runs_the_cloud_is_asked_only_now_and_then(world: World) -> None:
    world.run(1200)
    assert world.cloud.calls == ["look"], "an orphan from before is looked for once"
    ControllerTurn.objects.update(asked_at=ControllerTurn.objects.get().asked_at - timedelta(minutes=11))  # type: ignore[operator]
    world.look()
    assert world.cloud.calls == ["look", "look"]


@pytest.mark.postgresql
def test_its_bill_is_shared_by_the_runs_and_stands_in_the_audit(world: World) -> None:
    budget = world.launch()
    world.run(1500)
    machine = the_machine()
    shares = dict(MachineUse.objects.values_list("run", "share_usd"))
    assert len(shares) == 3
    assert sum(shares.values()) == machine.cost_usd > 0
    assert {run.pk: run.machine_usd for run in TrainingRun.objects.all()} == shares
    assert budget.machine_usd == machine.cost_usd
    told = detail("machine.stopped")
    assert (told["billed_seconds"], told["cost_usd"]) == (machine.billed_seconds, str(machine.cost_usd))
    assert Decimal(told["estimate_usd"]) == sum(run.spent_usd for run in TrainingRun.objects.all())


def test_a_launch_bounds_its_machine_in_time_and_money(world: World) -> None:
    world.launch(usd="0.20", is_endless=True)
    world.run(2400)
    machine, instance = Machine.objects.earliest("pk"), world.cloud.instances[0]
    assert machine.allowed_seconds == 1600, "for $0.20 at $0.45 an hour"
    assert machine.reason == "its bound: 26 min 40 s at most"
    assert 1600 - STOP_MARGIN_SECONDS <= instance.seconds <= 1600
    assert machine.cost_usd <= Decimal("0.20")
    assert states() == [MachineState.STOPPED], "what is left is too little for another"
    assert runs_by_state() == {JobState.FAILED: 3}
    (failure,) = set(TrainingRun.objects.values_list("failure", flat=True))
    assert failure.startswith("spending limit: this launch has $0.0")


@pytest.mark.slow
def test_the_plan_of_ninety_minutes_holds(world: World) -> None:
    world.launch(usd="10", is_endless=True)
    world.run(7200, every=60)
    assert sum(instance.seconds for instance in world.cloud.instances) <= 5400
    assert runs_by_state() == {JobState.FAILED: 3}


def test_runs_of_a_spent_launch_wait_where_another_worker_may_take_them(world: World) -> None:
    world.launch(usd="0.01")
    world.pass_time(20)
    world.cloud.instances.clear()
    from training.models import Worker

    Worker.objects.create(
        name="cpu@desk",
        queues="training",
        device="CPU",
        torch_version="2",
        code_version="0",
        rate_usd_per_hour=0,
        started_at=world.cloud.now,
        last_heard_at=world.cloud.now,
    )
    world.look()
    assert (runs_by_state(), states()) == ({JobState.QUEUED: 3}, [])
    Worker.objects.all().delete()
    world.look()
    assert (runs_by_state(), states()) == ({JobState.FAILED: 3}, [])


@pytest.mark.parametrize("hours", [-2, 2])
def test_no_run_fails_by_a_clock_that_is_wrong(world: World, hours: int) -> None:
    world.launch(usd="0.01")
    world.pass_time(20)
    world.shift = timedelta(hours=hours)
    world.look()
    assert runs_by_state() == {JobState.QUEUED: 3}
    world.shift = timedelta(0)
    world.look()
    assert runs_by_state() == {JobState.FAILED: 3}


def test_a_machine_that_starts_late_is_waited_for(world: World) -> None:
    world.cloud.choose_fate = lambda order: Fate(boots_after=500)
    world.launch()
    world.run(2000)
    assert (states(), runs_by_state()) == ([MachineState.STOPPED], {JobState.SUCCEEDED: 3})


def test_a_machine_without_a_worker_is_stopped_and_the_next_tried_later(world: World) -> None:
    fates = iter([Fate(has_worker=False), Fate(boots_after=10_000), Fate()])
    world.cloud.choose_fate = lambda order: next(fates)
    world.launch()
    world.run(3600)
    assert runs_by_state() == {JobState.SUCCEEDED: 3}
    rows = list(Machine.objects.order_by("pk"))
    assert [row.reason for row in rows[:2]] == ["no worker on it reported within 10 min"] * 2
    first, second = rows[0], rows[1]
    assert first.ended_at is not None and second.requested_at - first.ended_at >= timedelta(seconds=30)
    assert sum(row.cost_usd for row in rows) == sum(run.machine_usd or 0 for run in TrainingRun.objects.all())


def test_an_instance_that_fails_at_its_start_costs_a_minute(world: World) -> None:
    fates = iter([Fate(boots_after=20, fails=True), Fate()])
    world.cloud.choose_fate = lambda order: next(fates)
    world.launch()
    world.run(1800)
    assert (states(), runs_by_state()) == ([MachineState.STOPPED] * 2, {JobState.SUCCEEDED: 3})
    assert Machine.objects.earliest("pk").billed_seconds == 60


def test_a_reclaimed_machine_loses_no_run_and_the_next_is_on_demand(world: World) -> None:
    fates = iter([Fate(reclaimed_after=250), Fate()])
    world.cloud.choose_fate = lambda order: next(fates)
    world.launch()
    world.run(2400)
    first, second = Machine.objects.order_by("pk")
    assert first.is_reclaimed and not second.is_reclaimed
    assert (first.market, second.market) == (Market.SPOT, Market.ON_DEMAND)
    assert runs_by_state() == {JobState.SUCCEEDED: 3}
    for run in TrainingRun.objects.all():
        attempts = list(run.epoch_rows.values_list("attempt", flat=True))
        assert (len(attempts), set(attempts)) == (10, {1, 2}), (
            "the second attempt resumed after the first's epochs"
        )
        assert run.machine_uses.count() == 2


def test_without_spot_capacity_it_is_bought_on_demand_at_once(world: World) -> None:
    world.cloud.refuses = frozenset({Market.SPOT})
    world.launch()
    world.run(40)
    assert states() == [MachineState.FAILED, MachineState.STARTING]
    assert the_machine().market == Market.ON_DEMAND
    assert Machine.objects.earliest("pk").lacked_capacity


def test_without_any_capacity_the_pauses_grow(world: World) -> None:
    world.cloud.refuses = frozenset(Market)
    world.launch()
    world.run(3600)
    assert set(states()) == {MachineState.FAILED}
    assert 5 <= len(states()) <= 9
    assert "starts in a row failed" in ControllerTurn.objects.get().said


def test_a_lost_answer_to_a_start_yields_one_instance(world: World) -> None:
    world.launch()
    world.pass_time(20)
    lose_answers(world.cloud, "start")
    world.look()
    assert (states(), len(world.cloud.instances)) == ([MachineState.REQUESTED], 1)
    assert ControllerTurn.objects.get().problem == "the answer was lost"
    world.run(1200)
    assert (states(), len(world.cloud.instances)) == ([MachineState.STOPPED], 1)
    assert ControllerTurn.objects.get().problem == ""


@pytest.mark.parametrize("moment", ["before the order", "after the order", "after it was told to stop"])
def test_a_controller_that_is_killed_is_continued_by_the_next(world: World, moment: str) -> None:
    call = "stop" if "stop" in moment else "start"
    alive = [False]

    def kill(done: str) -> None:
        if done == call and not alive[0]:
            alive[0] = True
            raise Killed

    if moment == "before the order":
        world.cloud.before = kill
    else:
        world.cloud.after = kill
    world.launch()
    for _ in range(90):
        world.look_or_die()
        world.pass_time(20, step=20)
    assert alive[0]
    assert (states(), len(world.cloud.instances)) == ([MachineState.STOPPED], 1)
    assert the_machine().billed_seconds == world.cloud.instances[0].seconds
    assert runs_by_state() == {JobState.SUCCEEDED: 3}


def test_with_a_dead_controller_the_watchdog_ends_the_instance(world: World) -> None:
    world.launch(is_endless=True)
    world.run(600)
    world.pass_time(1800)
    (instance,) = world.cloud.instances
    assert instance.end_reason == "the watchdog heard nothing"
    assert instance.seconds <= 600 + 600 + 20
    world.look()
    first = Machine.objects.earliest("pk")
    assert (first.state, first.billed_seconds) == (MachineState.STOPPED, instance.seconds)


@pytest.mark.slow
@pytest.mark.long
def test_the_service_clock_does_not_move_the_bound(world: World) -> None:
    world.launch(usd="0.20", is_endless=True)
    world.run(300)
    for hours in (-5, 7, 0):
        world.shift = timedelta(hours=hours)
        world.run(300)
        assert states() == [MachineState.RUNNING]
    world.run(600)
    assert the_machine().reason.startswith("its bound")
    assert world.cloud.instances[0].seconds <= 1600


def test_an_instance_that_nobody_asked_for_is_stopped_and_billed(world: World) -> None:
    world.launch()
    world.run(60)
    row, (instance,) = the_machine(), world.cloud.instances
    forgotten = Machine.objects.filter(pk=row.pk)
    twin = world.cloud.instances[0].__class__("i-000000ff", instance.order, Fate(), world.cloud.now)
    world.cloud.instances.append(twin)
    world.look()
    assert forgotten.get().instance_id == instance.id
    found = Machine.objects.get(instance_id=twin.id)
    assert (found.state, found.slot, found.requested_by) == (MachineState.STOPPING, None, "the gate")
    world.run(60)
    found.refresh_from_db()
    assert (found.state, found.billed_seconds) == (MachineState.STOPPED, 60)
    assert AuditEvent.objects.filter(kind="machine.found").count() == 1
    assert [each.id for each in world.cloud.running] == [instance.id]


def test_an_instance_of_another_type_than_the_price_is_for_is_stopped(world: World) -> None:
    world.launch()
    world.run(60)
    (instance,) = world.cloud.instances
    object.__setattr__(instance.order, "instance_type", "p4d.24xlarge")
    world.run(30)
    assert "p4d.24xlarge and not the g5.xlarge" in the_machine().reason
    assert instance.ended_at is not None


def test_no_machine_starts_without_a_price(world: World, settings: Any) -> None:
    settings.MACHINE_TYPE = "g5.2xlarge"
    world.launch()
    world.run(60)
    assert (states(), world.cloud.instances) == ([], [])
    assert ControllerTurn.objects.get().said.startswith("no price is known")


@pytest.mark.slow
@pytest.mark.long
def test_the_monthly_limit_holds_over_all_launches(world: World, settings: Any) -> None:
    settings.MACHINE_MONTHLY_LIMIT_USD = "0.25"
    for _ in range(3):
        world.launch(epochs=50)
    world.run(7200, every=60)
    assert sum(instance.cost for instance in world.cloud.instances) <= Decimal("0.25")
    assert ControllerTurn.objects.get().said.startswith("the monthly limit is reached")
    assert JobState.QUEUED in runs_by_state()
    services.set_monthly_limit(Decimal(100), actor=APPROVER, reason="the desk wants it")
    world.run(7200, every=60)
    assert runs_by_state() == {JobState.SUCCEEDED: 9}


@pytest.mark.postgresql
def test_a_limit_that_is_lowered_stops_what_runs(world: World) -> None:
    world.launch(is_endless=True)
    world.run(300)
    services.set_monthly_limit(Decimal(0), actor=APPROVER, reason="enough")
    world.run(30)
    assert the_machine().reason == "the monthly limit is reached"
    assert world.cloud.running == []


def test_what_a_person_stopped_stays_stopped_until_the_next_launch(world: World) -> None:
    world.launch(is_endless=True)
    world.run(300)
    services.stop_machine(the_machine(), actor=OPERATOR, reason="the desk needs the quota")
    world.run(900)
    assert (states(), world.cloud.running) == ([MachineState.STOPPED], [])
    assert (the_machine().reason, the_machine().stop_asked_by) == ("the desk needs the quota", "olivia")
    world.launch()
    world.run(60)
    assert len(world.cloud.running) == 1


def test_a_machine_that_a_person_started_has_the_bounds_of_a_launch(world: World) -> None:
    machine = services.start_machine(actor=OPERATOR, reason="a rehearsal")
    assert (machine.state, machine.allowed_seconds, machine.budget) == (MachineState.REQUESTED, 5400, None)
    world.run(600)
    machine.refresh_from_db()
    assert (machine.state, machine.reason) == (MachineState.STOPPED, "idle for 5 min")


def test_a_given_instance_is_started_and_stopped_and_never_terminated(world: World, settings: Any) -> None:
    configure(settings, MACHINE_INSTANCE="i-0f09e5bb081e72ae1", MACHINE_TEMPLATE="")
    world.launch()
    world.run(20)
    assert the_machine().market == Market.ON_DEMAND, "it was bought once, whatever the markets say"


@pytest.mark.postgresql
def test_two_controllers_look_one_after_the_other(world: World) -> None:
    with take_turn(every_seconds=0) as first, take_turn(every_seconds=0) as second:
        assert first is not None and second is None
    with take_turn(every_seconds=3600) as third:
        assert third is None, "the last look was just now"
    ControllerTurn.objects.update(looked_at=world.cloud.now + timedelta(days=300), until=None)
    with take_turn(every_seconds=3600) as fourth:
        assert fourth is not None, "a look in the future was by a clock that was wrong"


@pytest.mark.postgresql
def test_a_cloud_that_does_not_answer_is_stored_and_asked_again(world: World) -> None:
    def fail(call: str) -> None:
        raise CloudUnavailable("EC2 does not answer: timed out")

    world.cloud.before = fail
    world.launch()
    world.run(60)
    turn = ControllerTurn.objects.get()
    assert (turn.problem, states()) == ("EC2 does not answer: timed out", [])
    assert turn.failing_since is not None
    world.cloud.before = lambda call: None
    world.run(60)
    assert (ControllerTurn.objects.get().failing_since, len(world.cloud.instances)) == (None, 1)


@pytest.mark.postgresql
def test_the_database_keeps_orders_and_final_bills(world: World) -> None:
    world.launch()
    world.run(1500)
    rows = Machine.objects.filter(pk=the_machine().pk)
    for change in ({"cost_usd": 0}, {"billed_seconds": 1}, {"state": "running"}, {"usd_per_hour": 0}):
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(**change)
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.delete()
    with pytest.raises(IntegrityError), transaction.atomic():
        Machine.objects.create(
            life="a", slot=1, instance_type="g5.xlarge", region="r", market="spot", usd_per_hour=1,
            allowed_seconds=1, requested_at=world.cloud.now, requested_by="x",
        )  # fmt: skip
        Machine.objects.create(
            life="b", slot=1, instance_type="g5.xlarge", region="r", market="spot", usd_per_hour=1,
            allowed_seconds=1, requested_at=world.cloud.now, requested_by="x",
        )  # fmt: skip


def test_without_a_configured_machine_nothing_is_asked(
    world: World, settings: Any, django_assert_num_queries: Any
) -> None:
    settings.MACHINE_REGION = ""
    world.launch()
    from machines.control.look import control_machines
    from machines.control.problems import find_limit_reached, find_overdue

    def connect(configuration: Any) -> SimulatedCloud:
        raise AssertionError("no cloud is asked")

    with django_assert_num_queries(0):
        control_machines(connect)
        assert (list(find_overdue()), find_limit_reached()) == ([], None)
