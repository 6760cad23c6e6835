"""States and bills of machines, without clock, database or cloud."""

import math
from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum

from training.rules import MICRO, compute_cost

MINIMUM_BILLED_SECONDS = 60
"""AWS bills a Linux instance by the second, and at least one minute."""
STOP_MARGIN_SECONDS = 90
"""A machine is stopped this long before its bound: a look at it and the stop itself take time."""
WATCHDOG_SECONDS = 600
"""The instance ends itself when the service has not renewed its tag for this long (cloud/watchdog.sh)."""
MAX_USD_PER_HOUR = Decimal(1000)
MAX_MONTHLY_USD = Decimal(1_000_000)


class MachineState(StrEnum):
    """One life of an instance, from the request to its end."""

    REQUESTED = "requested"  # stored here first, so that a lost answer is no lost machine
    STARTING = "starting"  # the cloud knows it
    RUNNING = "running"
    STOPPING = "stopping"  # the cloud was told to stop it
    STOPPED = "stopped"  # it ended, and its bill is final
    FAILED = "failed"  # the cloud started none

    @property
    def has_ended(self) -> bool:
        return self in (MachineState.STOPPED, MachineState.FAILED)


MACHINE_TRANSITIONS: Mapping[str, frozenset[str]] = {
    MachineState.REQUESTED: frozenset({MachineState.STARTING, MachineState.FAILED}),
    MachineState.STARTING: frozenset({MachineState.RUNNING, MachineState.STOPPING, MachineState.STOPPED}),
    MachineState.RUNNING: frozenset({MachineState.STOPPING, MachineState.STOPPED}),
    MachineState.STOPPING: frozenset({MachineState.STOPPED}),
    MachineState.STOPPED: frozenset(),
    MachineState.FAILED: frozenset(),
}


class Market(StrEnum):
    """How an instance is paid for."""

    SPOT = "spot"  # cheaper, and the cloud may take it back
    ON_DEMAND = "on-demand"


def count_billed_seconds(started_at: datetime, ended_at: datetime) -> int:
    """The seconds that are paid for, from the instance's own start and stop."""
    return max(MINIMUM_BILLED_SECONDS, math.ceil((ended_at - started_at).total_seconds()))


def compute_affordable_seconds(usd: Decimal, usd_per_hour: Decimal) -> int:
    """How long a machine of this price may run for this money; the whole bill never exceeds it."""
    if usd <= 0 or usd_per_hour <= 0:
        return 0
    seconds = int((usd * 3600 / usd_per_hour).to_integral_value(ROUND_DOWN))
    return seconds if compute_cost(seconds, usd_per_hour) <= usd else seconds - 1


def share_out(total: Decimal, weights: Mapping[int, float]) -> dict[int, Decimal]:
    """Divide a bill by weights, to a millionth of a dollar; the parts add up to it exactly.

    Without any weight above 0 all parts are equal.
    """
    if not weights:
        return {}
    if sum(weights.values()) <= 0:
        weights = dict.fromkeys(weights, 1.0)
    whole = Decimal(str(sum(weights.values())))
    parts = {
        key: (total * Decimal(str(weight)) / whole).quantize(MICRO, rounding=ROUND_DOWN)
        for key, weight in weights.items()
    }
    last = max(parts)
    parts[last] += total - sum(parts.values(), Decimal(0))
    return parts
