"""What the controller asks of a cloud, and no more. `ec2` is the real one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from machines.rules import Market


@dataclass(frozen=True)
class Instance:
    """An instance of this service, as the cloud describes it."""

    id: str
    life: str
    """The token of the life that it was started for last, from its tag."""
    is_ours: bool
    """It has the tag of this service; a given instance that was never started by it has not."""
    instance_type: str
    market: Market
    is_running: bool
    has_ended: bool
    """Stopped or terminated. Neither this nor running: on its way."""
    started_at: datetime | None
    ended_at: datetime | None = None
    """By the cloud; None where it says no time."""
    end_reason: str = ""
    is_reclaimed: bool = False
    """The cloud took it back."""


@dataclass(frozen=True)
class Sighting:
    """All instances of this service at one moment, by the cloud's clock."""

    at: datetime
    instances: Sequence[Instance]


@dataclass(frozen=True)
class Order:
    """A machine to start."""

    life: str
    """A token: repeated with the same one, a start yields the same instance."""
    instance_type: str
    market: Market
    usd_per_hour: Decimal
    """Also the most that a spot instance may cost."""
    allowed_seconds: int


class CloudUnavailable(Exception):
    """It did not answer, or not now. Whether something was started is unknown: ask again with the same token."""


class CloudRefused(Exception):
    """It started nothing, and says why."""

    def __init__(self, message: str, *, lacks_capacity: bool = False) -> None:
        super().__init__(message)
        self.lacks_capacity = lacks_capacity


class Cloud(Protocol):
    """Every call may raise CloudUnavailable, and `start` CloudRefused."""

    def look(self) -> Sighting: ...

    def start(self, order: Order) -> str:
        """Start a machine, or find the one that was started by this order before; returns its id."""
        ...

    def stop(self, instance_id: str) -> None:
        """Stop it, or terminate one that was launched. Repeating this changes nothing."""
        ...

    def renew(self, instance_id: str, *, at: datetime, allowed_seconds: int) -> None:
        """Tell the watchdog on the instance that somebody still wants it, and for how long at most."""
        ...
