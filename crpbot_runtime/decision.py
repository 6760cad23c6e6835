"""The values a bot gets: a decision for one coin, and what the client runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from crpbot_runtime.errors import ClientError

NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one coin now.

    `direction` is down, neutral or up. The three `probabilities` add up to 1, and are empty without a model. `line`,
    `release`, `revision` and `bundle` (the digest of the loaded files) name the model; `at` is the opening time of the last
    bar it saw. `stale_since` is when the service last confirmed that model, None while it does. `reason` is empty while
    nothing is wrong. `is_simulated` warns that the model was trained on a simulated market.
    """

    coin: str
    direction: str
    probabilities: Mapping[str, float]
    line: str | None
    release: int | None
    revision: int | None
    stale_since: datetime | None
    reason: str
    at: datetime | None = None
    is_simulated: bool = False
    bundle: str | None = None


@dataclass(frozen=True, slots=True)
class Active:
    """What this client runs. `problem` says why it does not run, or cannot confirm, what the service names.

    `moved_at` and `reason` are those of the pointer's last move. Without any set, all fields but `problem` are empty.
    """

    service: str | None = None
    revision: int | None = None
    line: str | None = None
    release: int | None = None
    coins: tuple[str, ...] = ()
    is_simulated: bool = False
    moved_at: datetime | None = None
    reason: str = ""
    stale_since: datetime | None = None
    problem: ClientError | None = None

    @property
    def has_model(self) -> bool:
        """Whether decisions come from a model; without one they are neutral."""
        return bool(self.coins)
