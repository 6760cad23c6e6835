"""What a bot is told: a decision for one coin, and what stands behind all of them. Values and their wording."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from runtime.errors import ClientError
from runtime.protocol.snapshot import Snapshot

NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one coin now.

    `direction` is one of down, neutral, up; `probabilities` of the three add up to 1 and are empty without a model.
    `line`, `release`, `revision` and `bundle` (the digest of the files that were loaded) say which model spoke; `at` is the
    opening time of the last bar it saw. `stale_since` is when the service last confirmed that model, None while it does;
    `reason` is empty when nothing is amiss.
    `is_simulated` warns that the model was trained on a made-up market.
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
    """What this client runs, and what keeps it from running what the service says, if anything (`problem`).

    `moved_at` and `reason` are those of the pointer's last move; without any set, all but `problem` is empty.
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


def why_stale(stale_since: datetime | None, problem: ClientError | None) -> str:
    """One line about what is amiss; empty when nothing is."""
    if stale_since is None:
        return str(problem or "")
    why = problem or "the service was not asked since"
    return f"stale since {stale_since.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z: {why}"


def why_neutral(snapshot: Snapshot | None, stale_since: datetime | None, problem: ClientError | None) -> str:
    """One line about why no model decides: none was ever had, or the pointer is offline."""
    if snapshot is None:
        return f"no model: {problem or 'nothing is kept on disk and the service was not asked yet'}"
    offline = f"no model: the pointer is offline ({snapshot.reason})"
    stale = why_stale(stale_since, problem)
    return f"{offline}; {stale}" if stale else offline
