"""One look of the controller: what the cloud has, what the runs want, and the one step that follows.

Level-triggered: each look begins with the world as it is, so a look that was cut short anywhere is made good by the next.
A machine is stored before the cloud is asked for it, and asked for by the same token until the answer is known.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import takewhile

from django.db import IntegrityError
from django.db.models import F
from django.db.models.functions import Coalesce, Now

from accounts.roles import GATE
from audit import services as audit
from machines.cloud.protocol import Cloud, CloudRefused, CloudUnavailable, Sighting
from machines.configuration import Configuration, get_configuration
from machines.control import costs, demand, lives
from machines.control.decide import Decision, Demand, Life, Limits, Past, Step, decide
from machines.control.turn import take_turn
from machines.models import ControllerTurn, Machine
from machines.rules import MachineState, Market

SWEEP = timedelta(minutes=10)
"""How often the cloud is asked while nothing is wanted: an instance that nobody asked for is found within this time."""
REFUSED = timedelta(minutes=30)
"""For so long after a refusal or a reclaim the next market is tried first."""
REMEMBERED = 12
"""Ended lives that count as the past."""

logger = logging.getLogger(__name__)


def control_machines(connect: Callable[[Configuration], Cloud] | None = None) -> None:
    """Look once, if a machine is configured and it is time. A cloud that does not answer is stored, not raised."""
    configuration = get_configuration()
    if configuration is None:
        return
    with take_turn(every_seconds=configuration.look_seconds) as turn:
        if turn is not None:
            _look(turn, configuration, connect or _connect)


def _connect(configuration: Configuration) -> Cloud:
    from machines.cloud.ec2 import Ec2  # boto3 takes a second to load, which only this process needs

    return Ec2(configuration)


def _look(
    turn: ControllerTurn, configuration: Configuration, connect: Callable[[Configuration], Cloud]
) -> None:
    open_lives = list(lives.list_open())
    if not open_lives and not _is_sweep_due(turn) and not demand.list_waiting_runs().exists():
        _say(turn, "no run waits")
        return
    try:
        cloud = connect(configuration)
        sighting = cloud.look()
        said = _Look(configuration, cloud, sighting).act(open_lives)
    except (CloudUnavailable, CloudRefused) as problem:
        logger.warning("machines: %s", problem)
        ControllerTurn.objects.filter(pk=turn.pk).update(
            problem=str(problem)[:1000], failing_since=Coalesce(F("failing_since"), Now())
        )
        return
    _say(turn, said)
    ControllerTurn.objects.filter(pk=turn.pk).update(asked_at=Now(), problem="", failing_since=None)


def _is_sweep_due(turn: ControllerTurn) -> bool:
    return turn.asked_at is None or turn.looked_at is None or turn.looked_at - turn.asked_at >= SWEEP


def _say(turn: ControllerTurn, said: str) -> None:
    if turn.said != said:
        ControllerTurn.objects.filter(pk=turn.pk).update(said=said)


class _Look:
    def __init__(self, configuration: Configuration, cloud: Cloud, sighting: Sighting) -> None:
        self.configuration, self.cloud, self.sighting = configuration, cloud, sighting

    def act(self, open_lives: Sequence[Machine]) -> str:
        """Follow every life, stop what nobody asked for, and do what is decided; returns what that was."""
        for machine in open_lives:
            lives.follow(machine, self.sighting)
        for orphan in lives.find_orphans(open_lives, self.sighting):
            found = lives.adopt_orphan(self.configuration, orphan, self.sighting.at)
            logger.warning("machines: %s", found.reason)
            self.cloud.stop(orphan.id)
        for machine in open_lives:
            if machine.slot is None and machine.state == MachineState.STOPPING:
                self.cloud.stop(machine.instance_id)  # one that was found, and has not ended yet
        current = next((m for m in open_lives if m.slot is not None and not m.has_ended), None)
        return self._start() if current is None else self._continue(current)

    def _start(self) -> str:
        demands = demand.list_demands()
        limits = self._read_limits()
        decision = decide(None, demands, self._read_past(), limits)
        demand.fail_exhausted(decision.exhausted, demands, at=self.sighting.at)
        if decision.step != Step.START or decision.market is None:
            return decision.reason
        try:
            machine = lives.request(
                self.configuration,
                market=decision.market,
                usd_per_hour=limits.usd_per_hour[decision.market],
                allowed_seconds=decision.allowed_seconds,
                actor=GATE,
                reason=decision.reason,
                budget_id=decision.budget_id,
                at=self.sighting.at,
            )
        except IntegrityError:  # the slot is taken
            return "a person has asked for one at this moment"
        return self._order(machine, decision)

    def _continue(self, machine: Machine) -> str:
        demands: list[Demand] = []
        is_wanted = demand.list_waiting_runs().exists()
        if is_wanted:
            demands = [Demand(machine.budget_id or 0, machine.usd_per_hour, machine.allowed_seconds)]
        decision = decide(self._read_life(machine), demands, Past(), self._read_limits())
        if decision.step == Step.STOP:
            return self._stop(machine, decision)
        if machine.state == MachineState.REQUESTED:
            return self._order(machine, decision)
        self.cloud.renew(machine.instance_id, at=self.sighting.at, allowed_seconds=machine.allowed_seconds)
        return decision.reason

    def _order(self, machine: Machine, decision: Decision) -> str:
        lives.note_order(self.configuration, machine, self.sighting)
        try:
            instance_id = self.cloud.start(lives.build_order(machine))
        except CloudRefused as refusal:
            lives.fail(machine, str(refusal), self.sighting.at, lacked_capacity=refusal.lacks_capacity)
            return f"the cloud refused: {refusal}"
        lives.begin(machine, instance_id)
        return decision.reason

    def _stop(self, machine: Machine, decision: Decision) -> str:
        if machine.state == MachineState.REQUESTED:
            # An instance that comes all the same belongs to no open life, and is found and stopped.
            lives.fail(machine, decision.reason, self.sighting.at)
            return decision.reason
        if machine.state != MachineState.STOPPING:
            audit.transition(
                machine,
                MachineState.STOPPING,
                actor=machine.stop_asked_by or GATE,
                reason=decision.reason,
                stop_reason=decision.reason,
            )
        self.cloud.stop(machine.instance_id)
        return decision.reason

    def _read_life(self, machine: Machine) -> Life:
        at = self.sighting.at
        used_at = [each for each in (machine.busy_at, machine.worker_heard_at) if each is not None]
        return Life(
            state=MachineState(machine.state),
            allowed_seconds=machine.allowed_seconds,
            age_seconds=(at - machine.started_at).total_seconds() if machine.started_at else 0.0,
            waited_seconds=(at - machine.ordered_at).total_seconds() if machine.ordered_at else 0.0,
            idle_seconds=(at - max(used_at)).total_seconds() if used_at else 0.0,
            has_worker=machine.worker_heard_at is not None,
            stop_reason=machine.stop_reason,
        )

    def _read_past(self) -> Past:
        rows = list(Machine.objects.filter(slot=None).exclude(ended_at=None).order_by("-pk")[:REMEMBERED])
        # Where the cloud had no instance, the next market is tried at once; only after the last one it is a failure.
        last_market = self.configuration.markets[-1]
        counted = [row for row in rows if not row.lacked_capacity or row.market == last_market]
        failed = [*takewhile(lambda row: row.worker_heard_at is None and not row.stop_asked_by, counted)]
        return Past(
            failures=len(failed),
            seconds_ago=min(
                (self._count_seconds_since(row.ended_at) for row in failed), default=float("inf")
            ),
            refused_markets=frozenset(
                Market(row.market)
                for row in rows
                if (row.lacked_capacity or row.is_reclaimed)
                and self._count_seconds_since(row.ended_at) < REFUSED.total_seconds()
            ),
        )

    def _count_seconds_since(self, at: datetime | None) -> float:
        return (self.sighting.at - at).total_seconds() if at is not None else float("inf")

    def _read_limits(self) -> Limits:
        configuration = self.configuration
        prices = {
            market: costs.find_price(configuration.instance_type, configuration.region, market)
            for market in configuration.markets
        }
        return Limits(
            markets=configuration.markets,
            usd_per_hour={market: price for market, price in prices.items() if price is not None},
            idle_seconds=configuration.idle_seconds,
            start_seconds=configuration.start_seconds,
            month_usd=costs.compute_month_left(self.sighting.at),
        )
