"""A cloud in memory, with a clock of its own, that starts late, refuses, takes back, and loses answers as it is told.

It knows the truth that the service must find: from when to when each instance was paid for.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from machines.cloud.protocol import CloudRefused, CloudUnavailable, Instance, Order, Sighting
from machines.cloud.user_data import compute_watchdog_seconds
from machines.rules import MINIMUM_BILLED_SECONDS, WATCHDOG_SECONDS, Market
from training.rules import compute_cost

START = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)


class Killed(BaseException):
    """The controller's process is killed here: nothing after this runs, and nothing is released."""


@dataclass
class Fate:
    """What becomes of one instance."""

    boots_after: float = 40.0
    fails: bool = False
    """It ends itself instead of booting."""
    has_worker: bool = True
    reclaimed_after: float | None = None
    listed_after: float = 0.0
    stops_within: float = 5.0


@dataclass
class SimulatedInstance:
    id: str
    order: Order
    fate: Fate
    started_at: datetime
    heard: str = ""
    heard_at: datetime | None = None
    stop_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str = ""
    is_reclaimed: bool = False

    @property
    def boots_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.fate.boots_after)

    @property
    def seconds(self) -> int:
        """What is paid for, by the cloud."""
        assert self.ended_at is not None
        return max(MINIMUM_BILLED_SECONDS, math.ceil((self.ended_at - self.started_at).total_seconds()))

    @property
    def cost(self) -> Decimal:
        return compute_cost(self.seconds, self.order.usd_per_hour)

    def is_up(self, at: datetime) -> bool:
        return self.ended_at is None and at >= self.boots_at and not self.fate.fails

    def live_until(self, at: datetime) -> None:
        """What happens to it by then: the first of its ends."""
        if self.ended_at is not None:
            return
        watchdog_at = self.boots_at + timedelta(seconds=WATCHDOG_SECONDS)
        if self.heard_at is not None:
            watchdog_at = max(self.boots_at, self.heard_at) + timedelta(seconds=WATCHDOG_SECONDS)
        longest = timedelta(seconds=compute_watchdog_seconds(self.order.allowed_seconds))
        ends = [
            (watchdog_at, "the watchdog heard nothing"),
            (max(self.boots_at, self.started_at + longest), "the watchdog's time was over"),
        ]
        if self.fate.fails:
            ends.append((self.boots_at, "Server.InternalError"))
        if self.fate.reclaimed_after is not None:
            ends.append(
                (
                    self.started_at + timedelta(seconds=self.fate.reclaimed_after),
                    "Server.SpotInstanceTermination",
                )
            )
        if self.stop_at is not None:
            ends.append((self.stop_at, "stopped by the service"))
        ended_at, reason = min(ends)
        if ended_at <= at:
            self.ended_at, self.end_reason = ended_at, reason
            self.is_reclaimed = reason == "Server.SpotInstanceTermination"

    def describe(self, at: datetime) -> Instance:
        return Instance(
            id=self.id,
            life=self.order.life,
            is_ours=True,
            instance_type=self.order.instance_type,
            market=self.order.market,
            is_running=self.ended_at is None and at >= self.boots_at,
            has_ended=self.ended_at is not None,
            started_at=self.started_at,
            ended_at=self.ended_at,
            end_reason=self.end_reason,
            is_reclaimed=self.is_reclaimed,
        )


@dataclass
class SimulatedCloud:
    """`choose_fate` says what becomes of each instance; `before` and `after` are called around every call, and may raise."""

    choose_fate: Callable[[Order], Fate] = lambda order: Fate()
    before: Callable[[str], None] = lambda call: None
    after: Callable[[str], None] = lambda call: None
    refuses: frozenset[Market] = frozenset()
    now: datetime = START
    instances: list[SimulatedInstance] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    forgets_after: float = 3600.0
    """An instance that ended so long ago is no longer listed."""
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        for instance in self.instances:
            instance.live_until(self.now)

    @property
    def running(self) -> list[SimulatedInstance]:
        return [each for each in self.instances if each.ended_at is None]

    def look(self) -> Sighting:
        self._enter("look")
        listed = [
            each.describe(self.now)
            for each in self.instances
            if (self.now - each.started_at).total_seconds() >= each.fate.listed_after
            and (each.ended_at is None or (self.now - each.ended_at).total_seconds() < self.forgets_after)
        ]
        self.after("look")
        return Sighting(self.now, listed)

    def start(self, order: Order) -> str:
        self._enter("start")
        if order.market in self.refuses:
            raise CloudRefused(f"InsufficientInstanceCapacity ({order.market})", lacks_capacity=True)
        found = next((each for each in self.instances if each.order.life == order.life), None)
        if found is None:  # as EC2 does it by the ClientToken
            found = SimulatedInstance(
                f"i-{next(self._numbers):08x}", order, self.choose_fate(order), self.now
            )
            self.instances.append(found)
        self.after("start")
        return found.id

    def stop(self, instance_id: str) -> None:
        self._enter("stop")
        instance = self.get(instance_id)
        if instance.stop_at is None:
            instance.stop_at = self.now + timedelta(seconds=instance.fate.stops_within)
        self.after("stop")

    def renew(self, instance_id: str, *, at: datetime, allowed_seconds: int) -> None:
        self._enter("renew")
        instance = self.get(instance_id)
        if instance.heard != str(at):
            instance.heard, instance.heard_at = str(at), self.now
        self.after("renew")

    def get(self, instance_id: str) -> SimulatedInstance:
        return next(each for each in self.instances if each.id == instance_id)

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        self.before(call)


def lose_answers(cloud: SimulatedCloud, call: str, times: int = 1) -> None:
    """The next calls of this kind are carried out, and their answers do not arrive."""
    left = [times]

    def after(done: str) -> None:
        if done == call and left[0] > 0:
            left[0] -= 1
            raise CloudUnavailable("the answer was lost")

    cloud.after = after
