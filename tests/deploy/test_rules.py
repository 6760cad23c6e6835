"""What becomes of a release, decided without a database."""

import pytest

from deploy.rules import (
    ACTIONS,
    FALLBACK_GATES,
    RELEASE_TRANSITIONS,
    Action,
    Outcome,
    Purpose,
    ReleaseState,
    allowed_actions,
    must_pin,
    settle,
)
from gates.catalogue.gate import GateOutcome
from mlcore.verdict import Verdict


def outcome(coin: str, *, accuracy: str = "passed", bundle: str = "passed") -> Outcome:
    gates = dict.fromkeys(FALLBACK_GATES, "passed") | {"accuracy": accuracy, "bundle": bundle}
    return Outcome(
        coin,
        [
            GateOutcome(verdict, 0.391, "39.1 % of 1,500", "", gate, True, "over 65 %")  # type: ignore[arg-type]
            for gate, verdict in gates.items()
        ],
    )


def test_a_release_awaits_approval_when_every_coin_passed_every_gate() -> None:
    assert settle(Purpose.CANDIDATE, [outcome("BTC"), outcome("ETH")]).state == ReleaseState.AWAITING_APPROVAL


@pytest.mark.parametrize("verdict", ["failed", "inconclusive", "error", "a word nobody knows", ""])
def test_any_other_verdict_rejects_with_coin_gate_and_threshold(verdict: str) -> None:
    settlement = settle(Purpose.CANDIDATE, [outcome("BTC"), outcome("ETH", accuracy=verdict)])
    assert settlement.state == ReleaseState.REJECTED
    assert settlement.reason == f"ETH accuracy {verdict}: 39.1 % of 1,500, required over 65 %"


def test_an_advisory_gate_does_not_reject() -> None:
    advisory = GateOutcome(Verdict.FAILED, 9.0, "9 s", "", "latency", False, "under 1 s")
    passed = Outcome("BTC", [*outcome("BTC").results, advisory])
    assert settle(Purpose.CANDIDATE, [passed]).state == ReleaseState.AWAITING_APPROVAL


@pytest.mark.parametrize(
    "found",
    [
        [],
        [Outcome("BTC")],
        [Outcome("BTC", missing="run 3 failed: out of memory")],
        [outcome("ETH"), Outcome("BTC")],
    ],
    ids=["no coin", "a coin without results", "a run that failed", "one coin without results"],
)
def test_what_was_not_measured_has_not_passed(found: list[Outcome]) -> None:
    assert settle(Purpose.CANDIDATE, found).state == ReleaseState.REJECTED


def test_a_fallback_is_judged_by_its_four_gates_alone() -> None:
    assert settle(Purpose.FALLBACK, [outcome("BTC", accuracy="failed")]).state == ReleaseState.STANDBY
    assert settle(Purpose.FALLBACK, [outcome("BTC", bundle="failed")]).state == ReleaseState.REJECTED


def test_a_fallback_gate_that_never_spoke_counts_as_a_failure() -> None:
    without = Outcome("BTC", [result for result in outcome("BTC").results if result.gate != "scaler"])
    assert "BTC scaler: not measured" in settle(Purpose.FALLBACK, [without]).reason


@pytest.mark.parametrize(
    ("kind", "live_passed", "pins"),
    [
        (None, False, False),
        ("inherited", False, True),
        ("swap", False, True),
        ("swap", True, False),
        ("pin", False, False),
        ("offline", False, False),
    ],
)
def test_a_refusal_pins_the_fallback_unless_what_is_live_has_passed(
    kind: str, live_passed: bool, pins: bool
) -> None:
    assert must_pin(pointer_kind=kind, live_passed=live_passed) is pins


def test_each_action_is_allowed_somewhere_and_none_in_a_final_state() -> None:
    by_command_only = {Action.INHERIT}  # once, when the service takes over
    assert set().union(*ACTIONS.values()) == set(Action) - by_command_only
    for state in (ReleaseState.REJECTED, ReleaseState.DECLINED):
        assert RELEASE_TRANSITIONS[state] == frozenset()
        assert all(allowed_actions(purpose, state) == frozenset() for purpose in Purpose)
