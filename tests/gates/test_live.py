"""The live part of a policy: what it may say, and its word on counted predictions."""

from dataclasses import replace
from typing import Any

import pytest

from audit.hash_chain import to_canonical_json
from common.errors import InvalidInput
from gates.catalogue.live import DEFAULT_LIVE, LIVE_GATES, Tally, get_live_thresholds, judge_live
from gates.forms import ProposalForm
from gates.models import GatePolicy
from gates.policy import BASELINE_POLICY, FULL_POLICY, check_policy
from gates.policy_changes import compare_policies, weaker_than_full
from gates.services.policies import policy_in_force
from mlcore import confidence_bands
from mlcore.verdict import Finding, Verdict


def counted(predictions: int, *, sure: float = 0.6, **changes: Any) -> Tally:
    """So many healthy predictions; `changes` says in what they are not."""
    bands = [0] * confidence_bands.BANDS
    bands[confidence_bands.find_band(sure)] = predictions
    third = predictions // 3
    healthy = Tally(
        predictions, 0, (predictions - 2 * third, third, third), tuple(bands), -2.6, 2.1, 3, predictions
    )
    return replace(healthy, **changes)


def judged(gate: str, tally: Tally, policy: Any = FULL_POLICY) -> Finding:
    return next(o.finding for o in judge_live(tally, tally, policy) if o.gate == gate)


def with_live(**gates: dict[str, float]) -> dict[str, Any]:
    live = {name: {**entry, **gates.get(name, {})} for name, entry in DEFAULT_LIVE.items()}
    return {**FULL_POLICY, "live": live}


@pytest.mark.parametrize(
    ("gate", "tally", "verdict", "observed"),
    [
        ("finite_answers", counted(5), Verdict.PASSED, "all 5 predictions finite"),
        ("finite_answers", counted(5, non_finite=1), Verdict.FAILED, "1 of 5 predictions not finite"),
        ("logit_range", counted(9, greatest=9301.0), Verdict.INCONCLUSIVE, "collecting: 9 of 10 predictions"),
        ("logit_range", counted(10), Verdict.PASSED, "logits −2.60 … +2.10"),
        ("logit_range", counted(10, greatest=10.0, least=-10.0), Verdict.PASSED, "logits −10 … +10"),
        ("logit_range", counted(10, greatest=10.1), Verdict.FAILED, "logits −2.60 … +10.10"),
        ("logit_range", counted(10, least=-12527.0), Verdict.FAILED, "logits −12,527 … +2.10"),
        ("confidence", counted(19, sure=1.0), Verdict.INCONCLUSIVE, "collecting: 19 of 20 predictions"),
        ("confidence", counted(20, sure=0.89), Verdict.PASSED, "0.0 % over 90 %"),
        ("confidence", counted(20, sure=0.9), Verdict.FAILED, "100.0 % over 90 %"),
        (
            "class_balance",
            counted(2999, classes=(2999, 0, 0)),
            Verdict.INCONCLUSIVE,
            "collecting: 2,999 of 3,000 predictions",
        ),
        ("class_balance", counted(3000), Verdict.PASSED, "33.3 % / 33.3 % / 33.3 % down / neutral / up"),
        (
            "class_balance",
            counted(3000, classes=(1500, 750, 750)),
            Verdict.FAILED,
            "50.0 % / 25.0 % / 25.0 % down / neutral / up",
        ),
        (
            "class_balance",
            counted(3000, classes=(1200, 1230, 570)),
            Verdict.FAILED,
            "40.0 % / 41.0 % / 19.0 % down / neutral / up",
        ),
        (
            "feature_range",
            counted(499, out_of_range=9999),
            Verdict.INCONCLUSIVE,
            "collecting: 499 of 500 predictions",
        ),
        (
            "feature_range",
            counted(500, out_of_range=1799),
            Verdict.PASSED,
            "4.997 % of features outside training's range",
        ),
        ("feature_range", counted(500, out_of_range=1800), Verdict.FAILED, "5.0 % of features"),
        ("feature_range", counted(500, ranged=0), Verdict.INCONCLUSIVE, "collecting: 0 of 500 predictions"),
    ],
)
def test_a_gate_says_what_it_saw(gate: str, tally: Tally, verdict: Verdict, observed: str) -> None:
    found = judged(gate, tally)
    assert found.verdict == verdict
    assert found.observed.startswith(observed)


def test_without_any_finite_prediction_only_that_is_judged() -> None:
    none = Tally(30, 30)
    said = {o.gate: o.finding.verdict for o in judge_live(none, none, FULL_POLICY)}
    assert said.pop("finite_answers") == Verdict.FAILED
    assert set(said.values()) == {Verdict.INCONCLUSIVE}


def test_tripwires_see_recent_predictions_class_shares_the_revision() -> None:
    ill = counted(3000, greatest=99.0, classes=(3000, 0, 0))
    recent = {o.gate: o.finding.verdict for o in judge_live(counted(100), ill, FULL_POLICY)}
    assert (recent["logit_range"], recent["class_balance"]) == (Verdict.PASSED, Verdict.FAILED)


def test_only_what_a_healthy_model_never_does_counts_towards_a_pin() -> None:
    tripwires = {name for name, gate in LIVE_GATES.items() if gate.is_tripwire}
    assert tripwires == {"finite_answers", "logit_range", "confidence"}


def test_a_fallback_is_judged_only_by_finite_answers() -> None:
    ill = counted(100, greatest=5000.0, sure=1.0)
    assert [o.gate for o in judge_live(ill, ill, FULL_POLICY, is_fallback=True)] == ["finite_answers"]


def test_windows_add_up() -> None:
    both = counted(20, least=-4.0) + Tally(5, 5)
    assert (both.predictions, both.non_finite, both.finite) == (25, 5, 20)
    assert (both.least, both.greatest, sum(both.confidence), both.ranged) == (-4.0, 2.1, 20, 20)


def test_a_policy_without_a_live_part_has_the_default_thresholds() -> None:
    assert get_live_thresholds(FULL_POLICY) == get_live_thresholds(BASELINE_POLICY) == DEFAULT_LIVE
    assert check_policy(FULL_POLICY) == FULL_POLICY
    assert "live" not in check_policy(BASELINE_POLICY)


def test_a_policy_sets_them_and_they_decide() -> None:
    stricter = check_policy(with_live(logit_range={"greatest": 5.0}))
    tally = counted(50, greatest=6.0)
    assert judged("logit_range", tally).verdict == Verdict.PASSED
    assert judged("logit_range", tally, stricter).verdict == Verdict.FAILED


@pytest.mark.parametrize(
    ("live", "says"),
    [
        (None, "live must be a document"),
        ({}, "live logit_range must be a document"),
        ({**DEFAULT_LIVE, "accuracy": {}}, "no live gate 'accuracy'"),
        ({**DEFAULT_LIVE, "confidence": {"level": 0.9}}, "share_below is missing"),
        (with_live(confidence={"level": 1.0})["live"], "level must lie between"),
        (with_live(logit_range={"predictions": 101})["live"], "predictions must lie between 1 and 100"),
        (with_live(logit_range={"predictions": 10.5})["live"], "whole number"),
        (with_live(logit_range={"required": 1.0})["live"], "live logit_range: has no 'required'"),
    ],
)
def test_an_unsound_live_part_is_refused(live: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check_policy({**FULL_POLICY, "live": live})


def test_a_looser_live_threshold_is_listed() -> None:
    looser = with_live(logit_range={"greatest": 100.0})
    assert weaker_than_full(looser) == ["live logit range: greatest is 100 instead of 10 (looser)"]
    assert weaker_than_full(FULL_POLICY) == []
    assert [change.sentence for change in compare_policies(FULL_POLICY, looser)] == [
        "live logit range: greatest is 100 instead of 10 (looser)"
    ]


@pytest.mark.django_db
def test_the_form_sets_live_thresholds_and_keeps_the_others() -> None:
    in_force = policy_in_force()
    document = with_live(logit_range={"greatest": 5.0})
    policy = GatePolicy(number=in_force.number + 1, body=to_canonical_json(document))
    filled = _filled(policy)
    untouched = ProposalForm(policy, filled)
    assert untouched.is_valid(), untouched.errors
    assert untouched.document == document
    changed = ProposalForm(policy, {**filled, "live.confidence.share_below": "0.9"})
    assert changed.is_valid(), changed.errors
    assert check_policy(changed.document) == with_live(
        logit_range={"greatest": 5.0}, confidence={"share_below": 0.9}
    )
    (group, live) = changed.groups[-1]
    assert [gate.gate.name for gate in live if gate.has_changed] == ["confidence"], group
    refused = ProposalForm(policy, {**filled, "live.logit_range.greatest": "1e9"})
    assert not refused.is_valid() and "less than or equal to" in str(refused.errors)


@pytest.mark.django_db
def test_the_form_adds_a_live_part_only_where_it_differs() -> None:
    plan = GatePolicy(number=1, body=to_canonical_json({"format": 1, "gates": FULL_POLICY["gates"]}))
    for share, has_one in (("0.8", False), ("0.7", True)):
        form = ProposalForm(plan, {**_filled(plan), "live.confidence.share_below": share})
        assert form.is_valid(), form.errors
        assert ("live" in form.document) == has_one


def _filled(policy: GatePolicy) -> dict[str, Any]:
    """The form as it is first shown, with a reason."""
    unbound = ProposalForm(policy)
    filled = {name: unbound.get_initial_for_field(field, name) for name, field in unbound.fields.items()}
    return {**filled, "reason": "the tests"}
