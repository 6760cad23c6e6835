"""What a run may cost and when it must stop, decided without clock or database."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidInput
from common.formatting import format_exact_usd
from training.rules import (
    MAX_SEED,
    Reservation,
    compute_cost,
    compute_headroom,
    estimate_makespan,
    find_stop_reason,
    require_seed,
    reserve,
)

RATE = Decimal("1.006")


@pytest.mark.parametrize(
    ("seconds", "dollars"),
    [(0, "0"), (3600, "1.006"), (90 * 60, "1.509"), (1, "0.000280")],
    ids=["nothing", "an hour", "a release", "a second, rounded up to a millionth"],
)
def test_time_costs_the_machines_rate(seconds: float, dollars: str) -> None:
    assert compute_cost(seconds, RATE) == Decimal(dollars)


def test_the_worst_case_is_a_runs_whole_share_of_the_time() -> None:
    reserved = reserve(remaining_usd=Decimal("1.50"), share_of_time_seconds=1800, rate_per_hour=RATE)
    assert reserved == Reservation(Decimal("0.503"), 1800)


def test_a_reservation_is_cut_to_what_is_left() -> None:
    reserved = reserve(remaining_usd=Decimal("0.1006"), share_of_time_seconds=1800, rate_per_hour=RATE)
    assert reserved == Reservation(Decimal("0.1006"), 360)


@pytest.mark.parametrize("left", ["0", "-0.01"])
def test_nothing_is_reserved_from_nothing(left: str) -> None:
    assert reserve(remaining_usd=Decimal(left), share_of_time_seconds=1800, rate_per_hour=RATE) is None


@given(
    limit=st.decimals("0.000001", "100", places=6),
    shares=st.lists(st.floats(0, 10_000), min_size=1, max_size=10),
    rate=st.decimals("0", "50", places=4),
)
def test_reservations_one_after_another_never_exceed_the_limit(
    limit: Decimal, shares: list[float], rate: Decimal
) -> None:
    left = limit
    for share in shares:
        reserved = reserve(remaining_usd=left, share_of_time_seconds=share, rate_per_hour=rate)
        if reserved is not None:
            left -= reserved.usd
            assert compute_cost(reserved.seconds, rate) <= reserved.usd + Decimal("0.000001")
    assert left >= 0


def stop(*, cancelled: bool = False, billed: float = 0, reserved: Reservation | None = None) -> str | None:
    return find_stop_reason(
        is_cancelled=cancelled,
        billed_seconds=billed,
        share_of_time_seconds=1800,
        reservation=reserved or Reservation(Decimal("0.503"), 1800),
    )


def test_a_run_within_its_limits_goes_on() -> None:
    assert stop(billed=1799) is None


def test_a_cancelled_run_stops() -> None:
    assert stop(cancelled=True) == "cancelled by request"


def test_a_run_at_its_time_limit_says_so() -> None:
    assert stop(billed=1800) == "time limit: 1800 s of the 1800 s a run may take"


def test_a_run_at_its_spending_limit_says_so() -> None:
    reason = stop(billed=360, reserved=Reservation(Decimal("0.1006"), 360))
    assert reason is not None
    assert reason.startswith("spending limit: $0.1006")


@pytest.mark.parametrize(("allowed", "seconds"), [(1800, 2), (8, 2), (2, 0.5), (0, 0)])
def test_stopping_is_paid_from_what_is_allowed(allowed: float, seconds: float) -> None:
    assert compute_headroom(allowed) == seconds


@pytest.mark.parametrize(
    ("lengths", "slots", "seconds"),
    [([10, 10, 10], 1, 30), ([10, 10, 10], 2, 20), ([10, 10, 10], 3, 10), ([30, 10, 10, 10], 2, 30)],
    ids=["one after another", "two at once", "all at once", "the longest first"],
)
def test_a_launch_takes_until_its_last_run_ends(lengths: list[float], slots: int, seconds: float) -> None:
    assert estimate_makespan(lengths, slots) == seconds


@pytest.mark.parametrize(
    ("amount", "text"),
    [("1.5", "$1.50"), ("1.500000", "$1.50"), ("0.000500", "$0.0005"), ("0", "$0.00"), ("12", "$12.00")],
)
def test_money_is_written_as_a_person_does(amount: str, text: str) -> None:
    assert format_exact_usd(Decimal(amount)) == text


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, True, 1.0, "7", None])
def test_a_seed_is_a_whole_number_within_its_bounds(seed: object) -> None:
    assert [require_seed(known) for known in (0, MAX_SEED)] == [0, MAX_SEED]
    with pytest.raises(InvalidInput, match="seed: choose a whole number from 0 to"):
        require_seed(seed)
