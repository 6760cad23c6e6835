"""Nothing passes by silence: what is missing, unknown or no number is an error, and only *passed* passes."""

import math
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InvalidInput
from gates.catalogue.gate import GateOutcome
from gates.catalogue.registry import BASELINE_NAMES, GATES
from gates.evaluation import evaluate, get_overall_verdict
from gates.policy import BASELINE_POLICY, FULL_POLICY, check_policy
from gates.policy_changes import weaker_than_baseline, weaker_than_full
from mlcore.verdict import Verdict
from tests.scenarios import collapsed, healthy, inaccurate, known

Path = tuple[str, ...]

# Two cores are shared by many: how long one example takes says nothing here.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# What each gate reads: take any of these away, and it cannot pass.
NEEDS: dict[str, list[str]] = {
    "bundle": ["bundle", "bundle/digest_matches", "bundle/loads", "bundle/shapes_match", "bundle/problem"],
    "scaler": [
        "scaler",
        "scaler/present",
        "scaler/count",
        "scaler/columns",
        "scaler/finite_means",
        "scaler/positive_scales",
        "scaler/names_equal_schema",
        "scaler/in_graph",
        "scaler/problem",
    ],
    "finite_weights": ["weights", "weights/tensors", "weights/non_finite", "weights/problem"],
    "single_sample": [
        "single_sample",
        "single_sample/rows",
        "single_sample/runs",
        "single_sample/largest_difference",
        "single_sample/largest_excess",
        "single_sample/windows_compared",
        "single_sample/problem",
    ],
    "confidence": ["confidence", "confidence/shares_over", "confidence/shares_over/0.90"],
    "class_balance": ["shares", "shares/down", "shares/neutral", "shares/up"],
    "logit_range": ["logits", "logits/least", "logits/greatest"],
    "accuracy": [
        "accuracy",
        "accuracy/rows",
        "accuracy/point",
        "accuracy/lower",
        "accuracy/upper",
        "accuracy/block_bars",
        "label",
        "label/horizon_bars",
        "label/problem",
    ],
    "candles": [
        "dataset_digest",
        "trained_on",
        "candles",
        *(
            f"candles/{place}{field}"
            for place in ("measured", "training")
            for field in ("", "/digest", "/verdict", "/simulated")
        ),
    ],
    "lookahead": [
        "lookahead",
        "lookahead/rows",
        "lookahead/columns_differing",
        "lookahead/largest_difference",
        "lookahead/problem",
    ],
    "window": [
        "label",
        "label/horizon_bars",
        "label/problem",
        "windows",
        "windows/horizon_bars",
        "windows/interval_seconds",
        "windows/on_training_candles",
        "windows/recomputed",
        "windows/rows_shared",
        "windows/problem",
        *(
            f"windows/{name}{field}"
            for name in ("gate", "fit", "stop")
            for field in ("", "/first_at", "/last_at", "/rows", "/digest")
        ),
        "accuracy/rows",
    ],
    "schema": [
        "schema",
        "schema/name",
        "schema/digest_matches",
        "schema/names_match",
        "schema/statistics_match",
        "schema/columns_out_of_place",
        "schema/problem",
    ],
    "reload": [
        "reload",
        "reload/reported",
        "reload/reported/loss",
        "reload/reported/accuracy",
        "reload/reported/rows",
        "reload/reported/epoch",
        "reload/recomputed",
        "reload/recomputed/loss",
        "reload/recomputed/accuracy",
        "reload/recomputed/rows",
        "reload/largest_difference",
        "reload/cuts_match",
        "reload/weights_equal_in_graph",
        "reload/problem",
    ],
    "skill": [
        "skill",
        "skill/rows",
        "skill/block_bars",
        "label",
        "label/horizon_bars",
        "label/problem",
        "skill/accuracy",
        "skill/best_naive",
        "skill/problem",
        "skill/naive",
        "skill/baseline",
        "skill/baseline/digest",
        "skill/baseline/fit",
        "skill/baseline/fit/rows",
        "skill/baseline/is_itself",
        "skill/baseline/problem",
        *(
            f"skill/{other}{field}"
            for other in ("naive/majority", "naive/last_move", "naive/reversal", "baseline")
            for field in ("", "/accuracy", "/difference", "/lower", "/upper")
        ),
    ],
    "too_good": ["accuracy", "accuracy/point", "accuracy/rows"],
    "attempts": [
        "accuracy/rows",
        "accuracy/point",
        "accuracy/lower",
        "accuracy/upper",
        "accuracy/standard_error",
        "attempts",
        "attempts/count",
        "attempts/chain",
    ],
    "lead": [
        "lead",
        *(f"lead/{field}" for field in ("rows", "accuracy", "block_bars", "problem", "over", "label_shares")),
        *(
            f"lead/over/{name}{field}"
            for name in ("majority", "last_move", "reversal", "all_down", "all_up")
            for field in ("", "/accuracy", "/difference", "/lower", "/upper", "/standard_error")
        ),
        "label/horizon_bars",
        "accuracy/rows",
        "accuracy/point",
        "attempts/count",
        "attempts/chain",
    ],
    "label_balance": [
        "lead",
        *(f"lead/label_shares/{name}" for name in ("down", "neutral", "up")),
        *(f"shares/{name}" for name in ("down", "neutral", "up")),
        "lead/over/majority/accuracy",
        "lead/rows",
        "lead/problem",
        "accuracy/rows",
        "accuracy/point",
    ],
    "calibration": [f"calibration{field}" for field in ("", "/ece", "/brier", "/bins", "/rows", "/problem")],
    "stability": ["accuracy/point", *(f"stability{at}" for at in ("", "/months", "/volatility", "/problem"))],
    "latency": [f"latency{field}" for field in ("", "/rows", "/p50_ms", "/p99_ms", "/problem")],
    "drift": [
        f"drift{field}"
        for field in ("", "/recent_rows", "/fit_rows", "/psi", "/psi/atr_14", "/largest/name", "/largest/psi")
    ]
    + ["drift/over", "drift/problem"],
}
NEEDED = [
    (gate, path, taken)
    for gate, paths in NEEDS.items()
    for path in ["format", *paths]
    for taken in ("away", "for null", "for NaN")
    if not (path.endswith("problem") and taken == "for null")  # null is how one says that nothing went wrong
]


def paths_of(document: Any, at: Path = ()) -> list[Path]:
    """Every place in a document, branches and leaves."""
    if not isinstance(document, dict):
        return [at]
    below = [path for key, value in document.items() for path in paths_of(value, (*at, key))]
    return [at, *below] if at else below


def without(document: dict[str, Any], path: Path) -> dict[str, Any]:
    document = deepcopy(document)
    at = document
    for step in path[:-1]:
        at = at[step]
    del at[path[-1]]
    return document


def with_value(document: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    document = deepcopy(document)
    at = document
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return document


def passed(document: dict[str, Any], policy: Any = FULL_POLICY) -> set[str]:
    return {o.gate for o in evaluate(document, policy) if o.verdict == Verdict.PASSED}


@pytest.mark.parametrize(
    ("gate", "path", "taken"), NEEDED, ids=[f"{g}: {path} taken {t}" for g, path, t in NEEDED]
)
def test_a_gate_that_lacks_a_figure_never_passes(gate: str, path: str, taken: str) -> None:
    place = tuple(path.split("/"))
    document = without(known(healthy("BTC")), place)
    if taken != "away":
        document = with_value(document, place, None if taken == "for null" else math.nan)
    assert gate not in passed(document)


@pytest.mark.slow
@patient
@given(data=st.data(), base=st.sampled_from([healthy, inaccurate, collapsed]))
def test_taking_figures_away_turns_no_refusal_into_a_pass(data: st.DataObject, base: Any) -> None:
    """Whatever was measured first, and whatever is then cut out or blanked, no more gates pass than before."""
    before = known(base("BTC"))
    for _ in range(data.draw(st.integers(0, 3))):
        path = data.draw(st.sampled_from(paths_of(before)))
        odd = st.one_of(st.floats(), st.booleans(), st.text(max_size=5), st.integers(), st.none())
        before = with_value(before, path, data.draw(odd))
    after = before
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(paths_of(after) or [("format",)]))
        blank = data.draw(st.sampled_from(["cut", math.nan, math.inf, -math.inf]))
        after = without(after, path) if blank == "cut" else with_value(after, path, blank)
        if not after:
            break
    assert passed(after) <= passed(before)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@patient
@given(
    data=st.data(), document=st.one_of(st.just(None), st.dictionaries(st.text(max_size=8), JSON, max_size=4))
)
def test_every_gate_answers_every_document_in_a_few_words(data: st.DataObject, document: Any) -> None:
    if document is None:
        document = known(healthy("BTC"))
        for _ in range(3):
            document = with_value(document, data.draw(st.sampled_from(paths_of(document))), data.draw(JSON))
    outcomes = evaluate(document, FULL_POLICY)
    always = [gate.name for gate in GATES.values() if gate.applies is None]
    assert [outcome.gate for outcome in outcomes if outcome.gate in always] == always
    assert all(len(outcome.observed) <= 200 and len(outcome.threshold) <= 200 for outcome in outcomes)


@patient
@given(policy=JSON)
def test_a_policy_of_whatever_form_passes_nothing_it_does_not_set(policy: Any) -> None:
    outcomes = evaluate(known(healthy("BTC")), policy)
    assert get_overall_verdict(outcomes) == Verdict.ERROR
    assert all(outcome.is_required for outcome in outcomes if outcome.gate in BASELINE_NAMES)


def outcomes_of(*verdicts: tuple[Verdict, bool]) -> list[GateOutcome]:
    return [GateOutcome(verdict, None, "", "", "gate", required, "") for verdict, required in verdicts]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], Verdict.ERROR),
        ([(Verdict.PASSED, False)], Verdict.ERROR),
        ([(Verdict.PASSED, True)], Verdict.PASSED),
        ([(Verdict.PASSED, True), (Verdict.FAILED, False)], Verdict.PASSED),
        ([(Verdict.PASSED, True), (Verdict.INCONCLUSIVE, True)], Verdict.INCONCLUSIVE),
        ([(Verdict.INCONCLUSIVE, True), (Verdict.FAILED, True)], Verdict.FAILED),
        ([(Verdict.FAILED, True), (Verdict.ERROR, True)], Verdict.ERROR),
    ],
    ids=[
        "no gate at all is an error",
        "no required gate is an error",
        "all required passed",
        "an advisory failure does not decide",
        "one inconclusive is not passed",
        "failed outranks inconclusive",
        "error outranks failed",
    ],
)
def test_the_worst_required_verdict_is_the_overall_one(
    verdicts: list[tuple[Verdict, bool]], expected: Verdict
) -> None:
    assert get_overall_verdict(outcomes_of(*verdicts)) == expected


def test_an_unknown_gate_is_an_error() -> None:
    policy = with_value(dict(BASELINE_POLICY), ("gates", "vibes"), {"required": True})
    outcomes = evaluate(healthy("BTC"), policy)
    assert outcomes[-1].verdict == Verdict.ERROR
    assert "'vibes', which this version does not have" in outcomes[-1].sentence
    assert get_overall_verdict(outcomes) == Verdict.ERROR


@pytest.mark.parametrize("policy", [{}, {"format": 1, "gates": {}}, {"gates": None}])
def test_an_empty_policy_is_an_error_gate_by_gate(policy: dict[str, Any]) -> None:
    outcomes = evaluate(healthy("BTC"), policy)
    assert [outcome.verdict for outcome in outcomes] == [Verdict.ERROR] * 8
    assert get_overall_verdict(outcomes) == Verdict.ERROR


def test_a_measuring_that_failed_is_an_error_at_every_gate_with_the_reason() -> None:
    outcomes = evaluate({"coin": "ETH"}, BASELINE_POLICY, failure="it took longer than 600 s")
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ERROR}
    assert outcomes[0].sentence == "ETH could not be measured: it took longer than 600 s"
    assert {outcome.observed for outcome in outcomes} == {"not measured: it took longer than 600 s"}
    assert outcomes[5].threshold == "each 20 % – 40 %"


def test_what_could_not_be_measured_gives_the_reason_for_its_figure() -> None:
    document = known(healthy("BTC"))
    document["schema"] |= {"columns_out_of_place": None, "problem": "the bundle holds no scaler"}
    (outcome,) = (found for found in evaluate(document, FULL_POLICY) if found.gate == "schema")
    assert (outcome.verdict, outcome.observed) == (Verdict.ERROR, "not measured: the bundle holds no scaler")
    assert "was not measured: the bundle holds no scaler" in outcome.sentence


def policy_with(path: str, value: Any) -> dict[str, Any]:
    return with_value(deepcopy(dict(BASELINE_POLICY)), tuple(path.split("/")), value)


BAD_POLICIES = [
    ("not a document", "nothing", "format 1"),
    ("of another format", policy_with("format", 2), "format 1"),
    ("with a field nobody knows", policy_with("note", "hi"), "no field note"),
    ("naming no gate", {"format": 1, "gates": {}}, "names no gate"),
    ("lacking a baseline gate", without(dict(BASELINE_POLICY), ("gates", "scaler")), "scaler is a baseline gate"),
    ("with a baseline gate that is advisory", policy_with("gates/accuracy/required", False), "must be required"),
    ("that does not say whether a gate is required", policy_with("gates/bundle", {}), "whether it is required"),
    ("with a gate that is no document", policy_with("gates/bundle", True), "bundle must be a document"),
    ("with a gate nobody knows", policy_with("gates/vibes", {"required": True}), "no gate 'vibes'"),
    ("with a threshold nobody knows", policy_with("gates/bundle/mood", 1), "bundle: has no 'mood'"),
    ("lacking a threshold", without(dict(BASELINE_POLICY), ("gates", "accuracy", "above")), "above is missing"),
    ("with a word for a number", policy_with("gates/accuracy/above", "0.65"), "must be a number"),
    ("with a yes for a number", policy_with("gates/accuracy/above", True), "must be a number"),
    ("with NaN for a number", policy_with("gates/accuracy/above", math.nan), "must lie between"),
    ("with an endless threshold", policy_with("gates/logit_range/greatest", math.inf), "must lie between"),
    ("with a share above one", policy_with("gates/confidence/share_below", 1.5), "must lie between"),
    ("with half a row", policy_with("gates/accuracy/least_rows", 10.5), "whole number"),
    ("with a word nobody knows", policy_with("gates/accuracy/judged_by", "hope"), "must be one of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "says"), [b[1:] for b in BAD_POLICIES], ids=[b[0] for b in BAD_POLICIES]
)
def test_an_invalid_policy_is_refused(document: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check_policy(document)


def test_the_baseline_policy_is_valid() -> None:
    assert check_policy(BASELINE_POLICY) == BASELINE_POLICY
    assert weaker_than_baseline(BASELINE_POLICY) == []


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("gates/accuracy/above", 0.5, "accuracy: above is 0.5 instead of 0.65 (looser)"),
        (
            "gates/accuracy/judged_by",
            "point",
            "accuracy: judged by is point instead of lower bound (looser)",
        ),
        ("gates/confidence/level", 0.95, "confidence: level is 0.95 instead of 0.9 (looser)"),
        ("gates/class_balance/least", 0.1, "class balance: least is 0.1 instead of 0.2 (looser)"),
        ("gates/logit_range/least", -20, "logit range: least is -20 instead of -10 (looser)"),
    ],
)
def test_what_is_weaker_than_the_baseline_is_listed(path: str, value: Any, says: str) -> None:
    assert weaker_than_baseline(policy_with(path, value)) == [says]


@pytest.mark.parametrize(
    ("path", "value"),
    [("gates/accuracy/above", 0.7), ("gates/class_balance/most", 0.38), ("gates/logit_range/greatest", 8)],
)
def test_what_is_stricter_is_not_weaker(path: str, value: Any) -> None:
    assert weaker_than_baseline(policy_with(path, value)) == []


def test_a_policy_without_a_baseline_gate_is_weaker() -> None:
    assert weaker_than_baseline(without(dict(BASELINE_POLICY), ("gates", "scaler"))) == [
        "scaler: gate is not in the policy instead of required (looser)"
    ]


def full_with(path: str, value: Any) -> dict[str, Any]:
    return with_value(deepcopy(dict(FULL_POLICY)), tuple(path.split("/")), value)


def test_the_full_policy_is_valid_and_contains_the_baseline() -> None:
    assert check_policy(FULL_POLICY) == FULL_POLICY
    assert (weaker_than_baseline(FULL_POLICY), weaker_than_full(FULL_POLICY)) == ([], [])
    assert {name: FULL_POLICY["gates"][name] for name in BASELINE_POLICY["gates"]} == BASELINE_POLICY["gates"]
    advisory = {name for name, entry in FULL_POLICY["gates"].items() if not entry["required"]}
    assert advisory == {"lead", "label_balance", "calibration", "stability", "latency", "drift", "reproduced"}


def test_the_baseline_policy_lists_the_gates_it_lacks() -> None:
    assert weaker_than_baseline(BASELINE_POLICY) == []
    assert (
        weaker_than_full(BASELINE_POLICY)[0]
        == "candles: gate is not in the policy instead of required (looser)"
    )
    assert (
        weaker_than_full(BASELINE_POLICY)[-1]
        == "reproduced: gate is not in the policy instead of advisory (looser)"
    )
    assert len(weaker_than_full(BASELINE_POLICY)) == len(GATES) - len(BASELINE_POLICY["gates"])


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("gates/skill/above_v5", -0.1, "skill: above v5 is -0.1 instead of -0.02 (looser)"),
        ("gates/too_good/above", 0.99, "too good: above is 0.99 instead of 0.85 (looser)"),
        ("gates/candles/required", False, "candles: gate is advisory instead of required (looser)"),
        ("gates/drift/psi", 7.5, "drift: psi is 7.5 instead of 5 (looser)"),
    ],
)
def test_a_gate_beyond_the_baseline_may_be_weaker_and_is_listed(path: str, value: Any, says: str) -> None:
    document = full_with(path, value)
    assert check_policy(document) == document
    assert (weaker_than_baseline(document), weaker_than_full(document)) == ([], [says])


def test_a_gate_that_is_only_advised_informs_and_does_not_decide() -> None:
    document = known(healthy("BTC")) | {"attempts": {"count": 400, "chain": "", "window": {}}}
    assert get_overall_verdict(evaluate(document, FULL_POLICY)) == Verdict.ERROR
    advised = evaluate(document, full_with("gates/attempts/required", False))
    assert get_overall_verdict(advised) == Verdict.PASSED
    assert {o.gate for o in advised if o.verdict == Verdict.ERROR} == {"attempts", "lead"}
