"""What the controller decides, without database, clock or cloud."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machines.control.decide import (
    LEAST_SECONDS,
    Decision,
    Demand,
    Life,
    Limits,
    Past,
    Step,
    compute_pause,
    decide,
)
from machines.rules import (
    MachineState,
    Market,
    compute_affordable_seconds,
    share_out,
)
from training.rules import compute_cost

LIMITS = Limits(
    markets=(Market.SPOT, Market.ON_DEMAND),
    usd_per_hour={Market.SPOT: Decimal("0.45"), Market.ON_DEMAND: Decimal("1.006")},
    idle_seconds=300,
    start_seconds=600,
    month_usd=Decimal(50),
)
LAUNCH = Demand(budget_id=7, usd=Decimal("1.50"), seconds=5400)
RUNNING = Life(
    MachineState.RUNNING, allowed_seconds=5400, age_seconds=900, waited_seconds=900, has_worker=True
)


def start(*demands: Demand, past: Past = Past(), **limits: Any) -> Decision:  # noqa: B008 - frozen
    return decide(None, demands, past, replace(LIMITS, **limits))


def go_on(*demands: Demand, month_usd: Decimal = LIMITS.month_usd, **life: Any) -> Decision:
    return decide(replace(RUNNING, **life), demands, Past(), replace(LIMITS, month_usd=month_usd))


def test_nothing_is_started_for_nothing() -> None:
    assert start().step == Step.WAIT


def test_a_launch_gets_the_time_and_money_that_it_has() -> None:
    decision = start(LAUNCH)
    assert (decision.step, decision.market, decision.budget_id) == (Step.START, Market.SPOT, 7)
    assert decision.allowed_seconds == 5400
    dear = start(LAUNCH, markets=(Market.ON_DEMAND,))
    assert dear.allowed_seconds == 5367, "for $1.50 at $1.006 an hour"


@pytest.mark.parametrize(
    ("past", "market"),
    [
        (Past(), Market.SPOT),
        (Past(refused_markets=frozenset({Market.SPOT})), Market.ON_DEMAND),
        (Past(refused_markets=frozenset(Market)), Market.ON_DEMAND),
    ],
    ids=["the first", "the next after a refusal", "the last where all refused"],
)
def test_markets_are_tried_in_their_order(past: Past, market: Market) -> None:
    assert start(LAUNCH, past=past).market == market


def test_a_market_without_a_price_is_never_used() -> None:
    assert start(LAUNCH, usd_per_hour={Market.ON_DEMAND: Decimal(1)}).market == Market.ON_DEMAND
    assert start(LAUNCH, usd_per_hour={}).step == Step.WAIT


def test_a_launch_with_too_little_left_is_named_and_the_next_one_served() -> None:
    spent, late = (
        replace(LAUNCH, budget_id=1, usd=Decimal("0.01")),
        replace(LAUNCH, budget_id=2, seconds=LEAST_SECONDS - 1),
    )
    decision = start(spent, late, LAUNCH)
    assert (decision.step, decision.budget_id, decision.exhausted) == (Step.START, 7, (1, 2))
    assert start(spent, late).exhausted == (1, 2)


def test_the_month_bounds_a_machine_and_then_stops_all_starts() -> None:
    assert start(LAUNCH, month_usd=Decimal("0.09")).allowed_seconds == 720
    assert start(LAUNCH, month_usd=Decimal("0.05")).step == Step.WAIT
    assert start(LAUNCH, month_usd=Decimal(-1)).step == Step.WAIT


@pytest.mark.parametrize(("failures", "pause"), [(0, 0), (1, 30), (2, 60), (4, 240), (7, 1800), (500, 1800)])
def test_pauses_double_with_every_failure(failures: int, pause: float) -> None:
    assert compute_pause(failures) == pause
    if failures:
        assert start(LAUNCH, past=Past(failures=failures, seconds_ago=pause - 1)).step == Step.WAIT
    assert start(LAUNCH, past=Past(failures=failures, seconds_ago=pause)).step == Step.START


@pytest.mark.parametrize(
    ("life", "reason"),
    [
        ({"age_seconds": 5310}, "its bound: 1 h 30 min at most"),
        ({"has_worker": False, "waited_seconds": 600}, "no worker on it reported within 10 min"),
        ({"idle_seconds": 300}, "idle for 5 min"),
        ({"stop_reason": "the desk says so"}, "the desk says so"),
        (
            {"state": MachineState.STARTING, "age_seconds": 5310, "has_worker": False},
            "its bound: 1 h 30 min at most",
        ),
        ({"state": MachineState.STOPPING}, "it was told to stop, and has not yet"),
        (
            {"state": MachineState.REQUESTED, "has_worker": False, "waited_seconds": 601},
            "no worker on it reported within 10 min",
        ),
    ],
    ids=["bound", "no worker", "idle", "asked", "bound before it runs", "told before", "never started"],
)
def test_a_machine_is_stopped(life: dict[str, Any], reason: str) -> None:
    decision = go_on(**life)
    assert (decision.step, decision.reason) == (Step.STOP, reason)


@pytest.mark.parametrize(
    "life",
    [
        {"age_seconds": 5309},
        {"has_worker": False, "waited_seconds": 599},
        {"idle_seconds": 299},
        {"has_worker": False, "idle_seconds": 10_000, "waited_seconds": 100},
    ],
    ids=[
        "before its bound",
        "before its worker is late",
        "not idle for long",
        "without a worker nothing is idle",
    ],
)
def test_a_machine_goes_on(life: dict[str, Any]) -> None:
    assert go_on(**life).step == Step.WAIT


def test_waiting_runs_keep_an_idle_machine_but_no_bound() -> None:
    assert go_on(LAUNCH, idle_seconds=10_000).step == Step.WAIT
    assert go_on(LAUNCH, age_seconds=5400).step == Step.STOP
    assert go_on(LAUNCH, month_usd=Decimal(0)).step == Step.STOP


@given(st.decimals("0.000001", 1000, places=6), st.decimals("0.0001", 1000, places=4))
def test_what_is_affordable_costs_no_more_than_the_money(usd: Decimal, price: Decimal) -> None:
    seconds = compute_affordable_seconds(usd, price)
    assert seconds >= 0 and (seconds == 0 or compute_cost(seconds, price) <= usd)
    assert compute_cost(seconds + 2, price) > usd


@given(
    st.decimals(0, 1000, places=6),
    st.dictionaries(st.integers(1, 9), st.floats(0, 1e6, allow_nan=False), min_size=1),
)
def test_the_parts_of_a_bill_add_up_to_it(total: Decimal, weights: dict[int, float]) -> None:
    parts = share_out(total, weights)
    assert sum(parts.values()) == total
    assert parts.keys() == weights.keys() and min(parts.values()) >= 0
