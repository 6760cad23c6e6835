"""The eight baseline gates: what passes, what fails, and the sentences."""

import math
from typing import Any

import pytest

from gates.catalogue.gate import GateOutcome
from gates.evaluation import evaluate, get_overall_verdict
from gates.policy import BASELINE_POLICY
from mlcore.verdict import Verdict
from tests.gates.documents import accuracy, changed
from tests.scenarios import collapsed, healthy

PASSED, FAILED, INCONCLUSIVE, ERROR = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.ERROR


def judge(gate: str, changes: dict[str, Any], **thresholds: Any) -> GateOutcome:
    """One gate's outcome for a healthy SOL with these figures changed, under the baseline policy with these thresholds."""
    policy = changed(
        dict(BASELINE_POLICY), {f"gates/{gate}/{name}": value for name, value in thresholds.items()}
    )
    outcomes = {o.gate: o for o in evaluate(changed(healthy("SOL"), changes), policy)}
    return outcomes[gate]


def shares(down: float, neutral: float, up: float) -> dict[str, Any]:
    return {"shares": {"down": down, "neutral": neutral, "up": up}}


def logits(least: float, greatest: float) -> dict[str, Any]:
    return {"logits/least": least, "logits/greatest": greatest}


CASES = [
    ("bundle: everything as trained", "bundle", {}, PASSED, 0),
    ("bundle: a file that is not the one trained", "bundle", {"bundle/digest_matches": False}, FAILED, 1),
    ("bundle: does not load", "bundle", {"bundle/loads": False}, FAILED, 1),
    ("bundle: other shapes", "bundle", {"bundle/shapes_match": False}, FAILED, 1),
    (
        "bundle: a problem beside good marks is not believed",
        "bundle",
        {"bundle/problem": "odd"},
        ERROR,
        None,
    ),
    (
        "bundle: what does not hold fails, whatever else is not known",
        "bundle",
        {"bundle/digest_matches": False, "bundle/shapes_match": None},
        FAILED,
        1,
    ),
    ("bundle: a mark that is no yes or no", "bundle", {"bundle/loads": 1}, ERROR, None),
    ("scaler: there and sound", "scaler", {}, PASSED, 0),
    ("scaler: left out", "scaler", {"scaler/present": False}, FAILED, None),
    ("scaler: of 71 features", "scaler", {"scaler/count": 71}, FAILED, 71),
    ("scaler: a mean that is not finite", "scaler", {"scaler/finite_means": False}, FAILED, 1),
    ("scaler: a scale of zero", "scaler", {"scaler/positive_scales": False}, FAILED, 1),
    ("scaler: features in another order", "scaler", {"scaler/names_equal_schema": False}, FAILED, 1),
    ("scaler: beside the graph, not in it", "scaler", {"scaler/in_graph": False}, FAILED, 1),
    ("weights: all finite", "finite_weights", {}, PASSED, 0),
    ("weights: one tensor holds a NaN", "finite_weights", {"weights/non_finite": ["fc1.weight"]}, FAILED, 1),
    ("weights: nothing to look at", "finite_weights", {"weights/tensors": 0}, ERROR, 0),
    ("weights: a file that cannot be read", "finite_weights", {"weights/problem": "torn"}, ERROR, None),
    ("single row: as in the batch", "single_sample", {}, PASSED, -9.7e-6),
    ("single row: exactly at the tolerance", "single_sample", {"single_sample/largest_excess": 0.0}, PASSED, 0),
    (
        "single row: beyond the tolerance",
        "single_sample",
        {"single_sample/largest_excess": 1e-9},
        FAILED,
        1e-9,
    ),
    ("single row: crashes", "single_sample", {"single_sample/runs": False}, FAILED, None),
    ("single row: too few compared", "single_sample", {"single_sample/rows": 511}, INCONCLUSIVE, -9.7e-6),
    (
        "single row: too few windows compared",
        "single_sample",
        {"single_sample/windows_compared": 0},
        INCONCLUSIVE,
        -9.7e-6,
    ),
    (
        "confidence: just under the share",
        "confidence",
        {"confidence/shares_over/0.90": 0.7999},
        PASSED,
        0.7999,
    ),
    (
        "confidence: exactly at the share is too much",
        "confidence",
        {"confidence/shares_over/0.90": 0.8},
        FAILED,
        0.8,
    ),
    ("confidence: always certain", "confidence", {"confidence/shares_over/0.90": 1.0}, FAILED, 1.0),
    (
        "confidence: a share above one is no share",
        "confidence",
        {"confidence/shares_over/0.90": 1.2},
        ERROR,
        1.2,
    ),
    ("balance: both ends of the band belong to it", "class_balance", shares(0.2, 0.4, 0.4), PASSED, None),
    ("balance: just above the band", "class_balance", shares(0.299, 0.3, 0.401), FAILED, 0.401),
    ("balance: just below the band", "class_balance", shares(0.199, 0.4, 0.401), FAILED, None),
    ("balance: always the same", "class_balance", shares(1.0, 0.0, 0.0), FAILED, 1.0),
    ("balance: shares of nothing whole", "class_balance", shares(0.3, 0.3, 0.3), ERROR, None),
    ("logits: both ends of the range belong to it", "logit_range", logits(-10.0, 10), PASSED, None),
    ("logits: just above", "logit_range", {"logits/greatest": 10.000001}, FAILED, 10.000001),
    ("logits: just below", "logit_range", {"logits/least": -10.000001}, FAILED, -10.000001),
    ("logits: the worse end decides", "logit_range", logits(-12527.0, 9301.0), FAILED, -12527.0),
    ("logits: ends the wrong way round", "logit_range", {"logits/least": 5.0}, ERROR, None),
    ("accuracy: the lower bound is over", "accuracy", accuracy(0.70, 0.651), PASSED, 0.651),
    ("accuracy: the lower bound exactly at it", "accuracy", accuracy(0.70, 0.65), INCONCLUSIVE, 0.65),
    ("accuracy: over, but luck may explain it", "accuracy", accuracy(0.66, 0.60), INCONCLUSIVE, 0.60),
    ("accuracy: exactly at it", "accuracy", accuracy(0.65, 0.60), FAILED, 0.60),
    ("accuracy: an honest model of real candles", "accuracy", accuracy(0.391, 0.379, 0.404), FAILED, 0.379),
    ("accuracy: enough rows", "accuracy", accuracy(0.70, 0.66, rows=1000), PASSED, 0.66),
    ("accuracy: too few rows", "accuracy", accuracy(0.99, 0.98, 1.0, rows=999), INCONCLUSIVE, 0.98),
    ("accuracy: an interval from short blocks", "accuracy", accuracy(0.70, 0.66, block_bars=71), ERROR, None),
    ("accuracy: an interval the wrong way round", "accuracy", accuracy(0.70, 0.69, 0.66), ERROR, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "changes", "verdict", "figure"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_the_baseline_gates(
    gate: str, changes: dict[str, Any], verdict: Verdict, figure: float | None
) -> None:
    outcome = judge(gate, changes)
    assert outcome.verdict == verdict
    assert outcome.is_required
    if figure is not None:
        assert outcome.figure == pytest.approx(figure)
    assert outcome.sentence
    assert outcome.observed
    assert outcome.threshold


SENTENCES = [
    (
        "class_balance",
        shares(0.275, 0.2, 0.525),
        "SOL predicts Up in 52.5 % of bars; at most 40 % is allowed.",
    ),
    (
        "class_balance",
        shares(0.98, 0.0, 0.02),
        "SOL predicts Down in 98.0 % of bars; at most 40 % is allowed. "
        "SOL predicts Neutral in 0.0 % of bars; at least 20 % is required. "
        "SOL predicts Up in 2.0 % of bars; at least 20 % is required.",
    ),
    (
        "confidence",
        {"confidence/shares_over/0.90": 0.79999},
        "SOL's confidence is above 90 % in 79.999 % of its predictions; less than 80 % is allowed.",
    ),
    (
        "logit_range",
        {"logits/least": -12527.4, "logits/greatest": 9301.2},
        "SOL's logits range from −12,527 to +9,301; −10 to +10 is allowed.",
    ),
    (
        "logit_range",
        {"logits/least": -2.9, "logits/greatest": 10.000001},
        "SOL's logits range from −2.90 to +10.000001; −10 to +10 is allowed.",
    ),
    (
        "accuracy",
        accuracy(0.391, 0.379, 0.404, rows=6570),
        "SOL's accuracy is 39.1 % of 6,570 bars (95 % interval 37.9 % – 40.4 %); more than 65 % is required.",
    ),
    (
        "finite_weights",
        {"weights/non_finite": ["fc1.weight", "bn2.running_var"]},
        "SOL's weights are not all finite: NaN or Inf in fc1.weight, bn2.running_var.",
    ),
    (
        "bundle",
        {"bundle/digest_matches": False, "bundle/problem": "model.onnx is missing"},
        "SOL's bundle fails these checks: hashes match (model.onnx is missing).",
    ),
]


@pytest.mark.parametrize(("gate", "changes", "sentence"), SENTENCES)
def test_a_sentence_gives_figure_and_threshold(gate: str, changes: dict[str, Any], sentence: str) -> None:
    assert judge(gate, changes).sentence == sentence


def test_a_policy_may_judge_accuracy_by_its_point() -> None:
    lucky = accuracy(0.66, 0.60)
    assert judge("accuracy", lucky, judged_by="point").verdict == PASSED
    assert judge("accuracy", accuracy(0.65, 0.60), judged_by="point").verdict == FAILED
    assert judge("accuracy", accuracy(0.66, 0.60, rows=999), judged_by="point").verdict == INCONCLUSIVE


def test_a_policy_moves_the_thresholds() -> None:
    assert judge("confidence", {}, level=0.5, share_below=0.6).verdict == FAILED
    assert judge("class_balance", shares(0.3, 0.25, 0.45), most=0.5).verdict == PASSED
    assert judge("logit_range", {"logits/greatest": 11}, greatest=12).verdict == PASSED


def test_confidence_at_a_level_not_measured_is_an_error() -> None:
    outcome = judge("confidence", {}, level=0.91)
    assert outcome.verdict == ERROR
    assert "91 % was not measured" in outcome.sentence


@pytest.mark.parametrize("word", ["nan", "inf", "-inf"])
def test_a_figure_that_is_not_finite_is_an_error_with_its_word(word: str) -> None:
    outcome = judge("logit_range", {"logits/least": None, "non_finite": {"logits.least": word}})
    assert outcome.verdict == ERROR
    assert outcome.figure is not None
    assert not math.isfinite(outcome.figure)
    assert str(outcome.figure) == word
    assert word in outcome.sentence


def test_the_v6_failure_fails_by_its_figures() -> None:
    outcomes = {outcome.gate: outcome for outcome in evaluate(collapsed("BTC"), BASELINE_POLICY)}
    failed = {gate for gate, outcome in outcomes.items() if outcome.verdict == FAILED}
    assert failed == {"scaler", "confidence", "class_balance", "logit_range", "accuracy"}
    assert outcomes["confidence"].observed == "100.0 % of predictions over 90 %"
    assert outcomes["class_balance"].observed == "Down 100.0 %, Neutral 0.0 %, Up 0.0 %"
    assert outcomes["logit_range"].observed == "−12,527 … +9,301"
    assert get_overall_verdict(outcomes.values()) == FAILED


def test_a_healthy_bundle_passes_all_eight() -> None:
    outcomes = evaluate(healthy("BTC"), BASELINE_POLICY)
    assert [outcome.gate for outcome in outcomes] == [
        "bundle",
        "scaler",
        "finite_weights",
        "single_sample",
        "confidence",
        "class_balance",
        "logit_range",
        "accuracy",
    ]
    assert {outcome.verdict for outcome in outcomes} == {PASSED}
    assert get_overall_verdict(outcomes) == PASSED
