"""States, stop conditions and cost limits of jobs, without clock or database."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from enum import StrEnum

from common.errors import InvalidInput
from common.formatting import format_exact_usd

MICRO = Decimal("0.000001")
MAX_SEED = 2**31 - 1
DEFAULT_INTERVAL_SECONDS = 3600
INTERVAL_SECONDS = (60, 300, 900, 1800, 3600, 7200, 14_400, 21_600, 28_800, 43_200, 86_400, 604_800)
"""The bar intervals that a person chooses from; a dataset may have any other."""
ATTEMPTS_WITHOUT_PROGRESS = 5
MAX_TAGS = 12
TAG_PATTERN = "[a-z0-9][a-z0-9_.-]{0,31}"
MAX_NOTES_CHARACTERS = 2_000
MIN_COMPARED, MAX_COMPARED = 2, 8
CANCELLED_BY_REQUEST = "cancelled by request"


def require_seed(seed: object) -> int:
    """A random seed, 0 to MAX_SEED. Raises InvalidInput for anything else."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise InvalidInput(f"seed: choose a whole number from 0 to {MAX_SEED:,}.", field="seed")
    return seed


class JobState(StrEnum):
    """The state of a job: a training run or a measurement."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


# running → running is a takeover: the lease ran out, and another worker resumes the job.
JOB_TRANSITIONS: Mapping[str, frozenset[str]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class Source(StrEnum):
    """Where a dataset's candles came from."""

    UPLOAD = "upload"
    EXCHANGE = "exchange"
    SIMULATED = "simulated"


def compute_cost(seconds: float, rate_per_hour: Decimal) -> Decimal:
    """US dollars for `seconds` on a machine of this rate, rounded up to a millionth."""
    return (Decimal(str(seconds)) * rate_per_hour / 3600).quantize(MICRO, rounding=ROUND_UP)


@dataclass(frozen=True)
class Reservation:
    """The maximum of a run: it is stopped at `seconds`, which cost `usd`."""

    usd: Decimal
    seconds: float


def reserve(
    *, remaining_usd: Decimal, share_of_time_seconds: float, rate_per_hour: Decimal
) -> Reservation | None:
    """The maximum to reserve before a run starts, limited to the rest of the budget; None when nothing is left."""
    if remaining_usd <= 0:
        return None
    maximum = compute_cost(share_of_time_seconds, rate_per_hour)
    if maximum <= remaining_usd or rate_per_hour == 0:
        return Reservation(maximum, share_of_time_seconds)
    return Reservation(remaining_usd, float(remaining_usd * 3600 / rate_per_hour))


def compute_headroom(allowed_seconds: float) -> float:
    """How long before its limit a run is stopped: the budget also pays for stopping."""
    return min(2.0, allowed_seconds / 4)


def estimate_makespan(seconds: Iterable[float], slots: int) -> float:
    """The time of jobs on parallel slots, scheduled longest first."""
    loads = [0.0] * slots
    for length in sorted(seconds, reverse=True):
        loads[loads.index(min(loads))] += length
    return max(loads)


def find_stop_reason(
    *, is_cancelled: bool, billed_seconds: float, share_of_time_seconds: float, reservation: Reservation
) -> str | None:
    """Why a run must stop after an epoch; None to continue."""
    if is_cancelled:
        return CANCELLED_BY_REQUEST
    if billed_seconds >= share_of_time_seconds:
        return f"time limit: {billed_seconds:.0f} s of the {share_of_time_seconds:.0f} s a run may take"
    if billed_seconds >= reservation.seconds:
        return (
            f"spending limit: {format_exact_usd(reservation.usd)} were left for this run, and they are spent"
        )
    return None
