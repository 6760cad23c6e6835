"""What one policy says otherwise than another, and which way that goes."""

from copy import deepcopy
from typing import Any

import pytest

from gates.catalogue.groups import ADVICE, GROUPS, PLAN, group_of
from gates.catalogue.live import LIVE_GATES
from gates.catalogue.meanings import MEANINGS
from gates.policy import ADVISORY_NAMES, BASELINE_POLICY, FULL_POLICY, GATES
from gates.policy_changes import Difference, differences


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
def test_a_threshold_that_changed_says_which_way(
    gate: str, parameter: str, value: Any, direction: str
) -> None:
    before = FULL_POLICY["gates"][gate][parameter]
    assert differences(FULL_POLICY, changed(gate, **{parameter: value})) == [
        Difference(gate, parameter, before, value, direction)  # type: ignore[arg-type]
    ]


def test_a_choice_taken_back_is_stricter() -> None:
    (change,) = differences(changed("accuracy", judged_by="point"), FULL_POLICY)
    assert change.direction == "stricter"


def test_the_way_is_from_the_policy_before_not_from_the_plan() -> None:
    (change,) = differences(changed("accuracy", above=0.5), changed("accuracy", above=0.6))
    assert (change.direction, change.sentence) == ("stricter", "accuracy: above from 0.5 to 0.6, stricter")


def test_a_gate_that_is_asked_no_more_or_only_for_advice_is_looser() -> None:
    without = deepcopy(dict(FULL_POLICY))
    del without["gates"]["skill"]
    (gone,) = differences(FULL_POLICY, without)
    (muted,) = differences(FULL_POLICY, changed("skill", required=False))
    assert (gone.before, gone.after, gone.direction) == ("required", None, "looser")
    assert (muted.before, muted.after, muted.direction) == ("required", "advisory", "looser")


def test_every_later_gate_is_what_the_full_policy_adds_to_the_baseline() -> None:
    found = differences(BASELINE_POLICY, FULL_POLICY)
    assert {change.gate for change in found} == set(FULL_POLICY["gates"]) - set(BASELINE_POLICY["gates"])
    assert {change.direction.value for change in found} == {"stricter"}


def test_equal_policies_differ_in_nothing() -> None:
    assert differences(FULL_POLICY, deepcopy(dict(FULL_POLICY))) == []


def test_every_threshold_has_a_meaning_and_no_meaning_is_left_over() -> None:
    measured = {(g.name, p.name) for g in GATES.values() for p in g.parameters}
    live = {(f"live {g.name}", p.name) for g in LIVE_GATES.values() for p in g.parameters}
    assert set(MEANINGS) == measured | live


def test_every_gate_stands_in_one_group() -> None:
    assert [sum(name in group.gates for group in GROUPS) for name in GATES] == [1] * len(GATES)
    assert group_of("accuracy") == PLAN
    assert {group_of(name) for name in ADVISORY_NAMES} == {ADVICE}
    assert group_of("skill", is_required=False) == group_of("unheard of") == ADVICE
