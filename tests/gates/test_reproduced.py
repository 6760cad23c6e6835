"""The gate *reproduced*: a second worker trained the same model."""

from typing import Any

import pytest

from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured
from gates.catalogue.registry import GATES
from gates.evaluation import evaluate
from gates.policy import FULL_POLICY
from mlcore.verdict import Finding, Verdict
from tests.scenarios import healthy, known

GATE = GATES["reproduced"]
NO_CHANGE: dict[str, Any] = {}


def judge(*, second_run: dict[str, Any] | None = NO_CHANGE, **figures: Any) -> Finding:
    run = {
        "run": 7,
        "state": "succeeded",
        "failure": "no reason given",
        "bundle": "sha256:2",
        "first": {"workers": ["one@desk"], "device": "CPU", "code_version": "1"},
        "second": {"workers": ["two@desk"], "device": "CPU", "code_version": "1"},
    }
    compared = {
        "problem": None,
        "bundle": "sha256:2",
        "files_equal": {"model.onnx": True, "scaler.json": True, "weights.safetensors": True},
        "rows": 1_000,
        "largest_difference": 0.0,
        "directions_differing": 0,
        **figures,
    }
    document = {"second_run": None if second_run is None else {**run, **second_run}}
    return GATE.judge(MeasurementReader({"coin": "BTC", "reproduction": compared, **document}), GATE.defaults)


def differing(directions: int) -> dict[str, Any]:
    equal = {"model.onnx": False, "scaler.json": True, "weights.safetensors": False}
    return {"files_equal": equal, "largest_difference": 0.4, "directions_differing": directions}


def test_equal_files_of_two_workers_pass() -> None:
    found = judge()
    assert (found.verdict, found.observed) == (Verdict.PASSED, "model.onnx equal, bit for bit")
    assert "by one@desk, and again by two@desk" in found.sentence


def test_a_scaler_with_other_last_digits_is_no_other_model() -> None:
    found = judge(files_equal={"model.onnx": True, "scaler.json": False, "weights.safetensors": True})
    assert found.verdict == Verdict.PASSED


@pytest.mark.parametrize(("directions", "verdict"), [(30, Verdict.PASSED), (31, Verdict.FAILED)])
def test_other_processors_may_differ_in_few_directions(directions: int, verdict: Verdict) -> None:
    found = judge(**differing(directions))
    assert found.verdict == verdict
    assert "of 1,000 directions differ, logits by up to 0.4" in found.observed
    assert "3 % of directions may differ" in found.sentence


def test_one_training_is_inconclusive() -> None:
    found = judge(second_run=None)
    assert (found.verdict, found.observed) == (Verdict.INCONCLUSIVE, "trained once")


def test_it_is_left_out_where_nobody_asked_and_no_policy_requires_it() -> None:
    document = known(healthy("BTC"))
    required = {
        **FULL_POLICY["gates"],
        "reproduced": {**FULL_POLICY["gates"]["reproduced"], "required": True},
    }
    judged, demanded = (
        {found.gate: found for found in evaluate(document, policy)}
        for policy in (FULL_POLICY, {**FULL_POLICY, "gates": required})
    )
    assert "reproduced" not in judged
    assert demanded["reproduced"].verdict == Verdict.INCONCLUSIVE
    asked = evaluate(
        {**document, "second_run": {"run": 7, "state": "failed", "failure": "late"}}, FULL_POLICY
    )
    assert asked[-1].gate == "reproduced" and asked[-1].verdict == Verdict.ERROR


def test_the_same_worker_twice_is_inconclusive_and_another_model_fails() -> None:
    again = {"second": {"workers": ["one@desk"]}}
    found = judge(second_run=again)
    assert found.verdict == Verdict.INCONCLUSIVE
    assert "twice by one@desk, as no other worker took it" in found.sentence
    assert judge(second_run=again, **differing(500)).verdict == Verdict.FAILED


def test_a_worker_that_took_part_in_both_is_no_other_worker() -> None:
    """It resumed what another began, or another what it began: the model may be its own work both times."""
    found = judge(
        second_run={"first": {"workers": ["one@desk", "two@desk"]}, "second": {"workers": ["one@desk"]}}
    )
    assert found.verdict == Verdict.INCONCLUSIVE
    assert "by one@desk and two@desk, and again by one@desk: one@desk took part in both" in found.sentence


@pytest.mark.parametrize(
    ("second_run", "figures", "reason"),
    [
        ({"state": "failed", "failure": "out of memory"}, {}, "run 7, its second training, failed: out of memory"),
        ({"first": {"workers": []}}, {}, "who trained it is not known"),
        ({"second": {}}, {}, "was not measured"),
        ({"bundle": "sha256:3"}, {}, "not that of the second training"),
        ({}, {"problem": "it is of another training"}, "it is of another training"),
        ({}, {"rows": 0}, "contradict"),
        ({}, {"largest_difference": 0.1}, "contradict"),
        ({}, {"directions_differing": 5}, "contradict"),
        ({}, {**differing(1), "rows": 0}, "contradict"),
        ({}, differing(1_001), "contradict"),
        ({}, {"files_equal": {"scaler.json": True}}, "was not measured"),
        ({}, {"files_equal": None}, "was not measured"),
        ({}, {"bundle": None}, "was not measured"),
    ],
)  # fmt: skip
def test_what_was_not_compared_is_an_error(
    second_run: dict[str, Any], figures: dict[str, Any], reason: str
) -> None:
    with pytest.raises(NotMeasured, match=reason):
        judge(second_run=second_run, **figures)
