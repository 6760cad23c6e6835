"""What to do about the machine now: a pure function of what waits, what runs, and the limits. No clock, database or cloud.

All times are by the cloud's clock, which no correction of this machine's clock changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from common.formatting import format_duration, format_usd
from machines.rules import STOP_MARGIN_SECONDS, MachineState, Market, compute_affordable_seconds

LEAST_SECONDS = 600
"""A machine that may run no longer than this is not started: it takes minutes until its worker takes the first run."""
RETRY_SECONDS = 30
RETRY_AT_MOST_SECONDS = 1800


class Step(StrEnum):
    """What the controller does next."""

    WAIT = "wait"
    START = "start"
    STOP = "stop"


@dataclass(frozen=True)
class Demand:
    """A launch whose runs wait for a machine, and what its limits leave."""

    budget_id: int
    usd: Decimal
    seconds: float

    def compute_bound(self, usd_per_hour: Decimal) -> int:
        """How long a machine may run for it."""
        return int(min(self.seconds, compute_affordable_seconds(self.usd, usd_per_hour)))


@dataclass(frozen=True)
class Life:
    """The machine that has been requested and has not ended."""

    state: MachineState
    allowed_seconds: int
    age_seconds: float = 0.0
    """Since the instance started; 0 until it has."""
    waited_seconds: float = 0.0
    """Since it was requested."""
    idle_seconds: float = 0.0
    """Since its worker last held a run."""
    has_worker: bool = False
    """Whether its worker has ever reported."""
    stop_reason: str = ""
    """Why a person, or the service, wants it stopped."""


@dataclass(frozen=True)
class Past:
    """The lives that ended last."""

    failures: int = 0
    """In a row, without a worker that reported."""
    seconds_ago: float = float("inf")
    """Since the last of them ended."""
    refused_markets: frozenset[Market] = field(default_factory=frozenset)
    """Where the cloud lately had no instance, or took one back."""


@dataclass(frozen=True)
class Limits:
    """What the configuration and the month allow."""

    markets: Sequence[Market]
    usd_per_hour: Mapping[Market, Decimal]
    idle_seconds: float
    start_seconds: float
    month_usd: Decimal
    """What the month leaves."""


@dataclass(frozen=True)
class Decision:
    step: Step
    reason: str
    budget_id: int | None = None
    market: Market | None = None
    allowed_seconds: int = 0
    exhausted: tuple[int, ...] = ()
    """Launches whose own limits leave no time for a machine."""


def decide(life: Life | None, demands: Sequence[Demand], past: Past, limits: Limits) -> Decision:
    """The next step. `demands` are in the order in which their runs began to wait."""
    return _decide_start(demands, past, limits) if life is None else _decide_stop(life, bool(demands), limits)


def _decide_stop(life: Life, is_wanted: bool, limits: Limits) -> Decision:
    if life.state == MachineState.STOPPING:
        return Decision(Step.STOP, "it was told to stop, and has not yet")
    if life.stop_reason:
        return Decision(Step.STOP, life.stop_reason)
    if limits.month_usd <= 0:
        return Decision(Step.STOP, "the monthly limit is reached")
    if life.age_seconds >= life.allowed_seconds - STOP_MARGIN_SECONDS:
        return Decision(Step.STOP, f"its bound: {format_duration(life.allowed_seconds)} at most")
    if not life.has_worker and life.waited_seconds >= limits.start_seconds:
        return Decision(Step.STOP, f"no worker on it reported within {format_duration(limits.start_seconds)}")
    if life.has_worker and not is_wanted and life.idle_seconds >= limits.idle_seconds:
        return Decision(Step.STOP, f"idle for {format_duration(limits.idle_seconds)}")
    return Decision(Step.WAIT, "it runs" if life.has_worker else "it starts")


def _decide_start(demands: Sequence[Demand], past: Past, limits: Limits) -> Decision:
    if not demands:
        return Decision(Step.WAIT, "no run waits")
    market = choose_market(past, limits)
    if market is None:
        return Decision(Step.WAIT, "no price is known for it, so its cost has no limit: set one")
    usd_per_hour = limits.usd_per_hour[market]
    exhausted = tuple(
        demand.budget_id for demand in demands if demand.compute_bound(usd_per_hour) < LEAST_SECONDS
    )
    fitting = [demand for demand in demands if demand.budget_id not in exhausted]
    if not fitting:
        return Decision(
            Step.WAIT, "the limits of every launch that waits are nearly spent", exhausted=exhausted
        )
    month_seconds = compute_affordable_seconds(limits.month_usd, usd_per_hour)
    if month_seconds < LEAST_SECONDS:
        left = format_usd(max(limits.month_usd, Decimal(0)))
        return Decision(
            Step.WAIT, f"the monthly limit is reached: {left} of it are left", exhausted=exhausted
        )
    pause = compute_pause(past.failures)
    if past.seconds_ago < pause:
        reason = (
            f"{past.failures} starts in a row failed: the next is {format_duration(pause)} after the last"
        )
        return Decision(Step.WAIT, reason, exhausted=exhausted)
    chosen = fitting[0]
    return Decision(
        Step.START,
        "runs wait",
        budget_id=chosen.budget_id,
        market=market,
        allowed_seconds=min(chosen.compute_bound(usd_per_hour), month_seconds),
        exhausted=exhausted,
    )


def choose_market(past: Past, limits: Limits) -> Market | None:
    """The first with a price that did not refuse lately, else the last with a price."""
    priced = [market for market in limits.markets if market in limits.usd_per_hour]
    return next((m for m in priced if m not in past.refused_markets), priced[-1] if priced else None)


def compute_pause(failures: int) -> float:
    """Before the next start after so many failures in a row; it doubles with each."""
    return min(RETRY_SECONDS * 2.0 ** min(failures - 1, 20), RETRY_AT_MOST_SECONDS) if failures else 0.0
