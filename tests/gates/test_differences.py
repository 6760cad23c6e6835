"""What differs between two policies, and in which direction."""

from copy import deepcopy
from typing import Any

import pytest

from gates.catalogue.advisory import ADVISORY
from gates.catalogue.baseline import BASELINE
from gates.catalogue.gate import AnyGate
from gates.catalogue.live import LIVE_GATES
from gates.catalogue.real_markets import REAL_MARKETS
from gates.catalogue.registry import ADVISORY_NAMES, GATES, GROUPS, find_group
from gates.policy import BASELINE_POLICY, FULL_POLICY
from gates.policy_changes import Difference, compare_policies


def changed(gate: str, **entry: Any) -> dict[str, Any]:
    document = deepcopy(dict(FULL_POLICY))
    document["gates"][gate].update(entry)
    return document


@pytest.mark.parametrize(
    ("gate", "parameter", "value", "direction"),
    [
        ("accuracy", "above", 0.6, "looser"),
        ("accuracy", "above", 0.7, "stricter"),
        ("accuracy", "judged_by", "point", "looser"),
        ("class_balance", "most", 0.5, "looser"),
        ("class_balance", "most", 0.35, "stricter"),
        ("logit_range", "least", -20.0, "looser"),
        ("too_good", "above", 0.8, "stricter"),
    ],
)
def test_a_changed_threshold_has_a_direction(gate: str, parameter: str, value: Any, direction: str) -> None:
    before = FULL_POLICY["gates"][gate][parameter]
    assert compare_policies(FULL_POLICY, changed(gate, **{parameter: value})) == [
        Difference(gate, parameter, before, value, direction)  # type: ignore[arg-type]
    ]


def test_a_choice_taken_back_is_stricter() -> None:
    (change,) = compare_policies(changed("accuracy", judged_by="point"), FULL_POLICY)
    assert change.direction == "stricter"


def test_the_direction_is_from_the_policy_before_not_from_the_baseline() -> None:
    (change,) = compare_policies(changed("accuracy", above=0.5), changed("accuracy", above=0.6))
    assert (change.direction, change.sentence) == (
        "stricter",
        "accuracy: above is 0.6 instead of 0.5 (stricter)",
    )


def test_a_gate_left_out_or_made_advisory_is_looser() -> None:
    without = deepcopy(dict(FULL_POLICY))
    del without["gates"]["skill"]
    (gone,) = compare_policies(FULL_POLICY, without)
    (muted,) = compare_policies(FULL_POLICY, changed("skill", required=False))
    assert (gone.before, gone.after, gone.direction) == ("required", None, "looser")
    assert (muted.before, muted.after, muted.direction) == ("required", "advisory", "looser")


def test_the_full_policy_adds_every_other_gate_to_the_baseline() -> None:
    found = compare_policies(BASELINE_POLICY, FULL_POLICY)
    assert {change.gate for change in found} == set(FULL_POLICY["gates"]) - set(BASELINE_POLICY["gates"])
    assert {change.direction.value for change in found} == {"stricter"}


def test_equal_policies_differ_in_nothing() -> None:
    assert compare_policies(FULL_POLICY, deepcopy(dict(FULL_POLICY))) == []


@pytest.mark.parametrize("gate", [*GATES.values(), *LIVE_GATES.values()], ids=lambda gate: gate.name)
def test_every_gate_and_threshold_is_explained(gate: AnyGate) -> None:
    assert gate.about.endswith((".", ":")) and len(gate.describe(gate.defaults)) <= 200
    assert all(parameter.help.endswith(".") for parameter in gate.parameters)
    assert list(gate.find_problems(gate.defaults)) == []


def test_every_gate_is_in_one_group() -> None:
    assert [sum(name in group.names for group in GROUPS) for name in GATES] == [1] * len(GATES)
    assert find_group("accuracy") == BASELINE
    assert {find_group(name) for name in ADVISORY_NAMES} == {ADVISORY, REAL_MARKETS}
    assert all(group.is_advisory == (group.names <= ADVISORY_NAMES) for group in GROUPS)
    assert find_group("skill", is_required=False) == find_group("unknown") == ADVISORY
