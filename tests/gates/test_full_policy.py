"""The gates beyond the baseline: what passes, what fails, and the sentences."""

from typing import Any

import pytest

from gates.catalogue.gate import GateOutcome
from gates.evaluation import evaluate, get_overall_verdict
from gates.policy import FULL_POLICY
from mlcore.evaluation.bootstrap import compute_student_quantile
from mlcore.verdict import Verdict
from tests.gates.documents import accuracy, changed
from tests.scenarios import ALWAYS_JUDGED, healthy, known

PASSED, FAILED, INCONCLUSIVE, ERROR = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.ERROR


def judge(gate: str, changes: dict[str, Any], **thresholds: Any) -> GateOutcome:
    """One gate's outcome for a healthy SOL with these figures changed, under the full policy with these thresholds."""
    policy = changed(dict(FULL_POLICY), {f"gates/{gate}/{name}": value for name, value in thresholds.items()})
    outcomes = {o.gate: o for o in evaluate(changed(known(healthy("SOL")), changes), policy)}
    return outcomes[gate]


def training(**changes: Any) -> dict[str, Any]:
    return {f"candles/training/{name}": value for name, value in changes.items()}


def window(name: str, **changes: Any) -> dict[str, Any]:
    return {f"windows/{name}/{key}": value for key, value in changes.items()}


def horizon(bars: int) -> dict[str, Any]:
    """Labels that look so far ahead."""
    return {"label/horizon_bars": bars, "windows/horizon_bars": bars}


def ahead(of: str, difference: float, lower: float, upper: float = 0.9) -> dict[str, Any]:
    """This much more often right than another, whose accuracy follows."""
    own = healthy("SOL")["skill"]["accuracy"]
    figures = {"accuracy": own - difference, "difference": difference, "lower": lower, "upper": upper}
    return {f"skill/{of}/{name}": value for name, value in figures.items()}


def attempt(count: int) -> dict[str, Any]:
    return {"attempts/count": count}


def reloaded(**changes: Any) -> dict[str, Any]:
    reported = healthy("SOL")["reload"]["reported"]
    recomputed = {name: reported[name] for name in ("loss", "accuracy", "rows")} | changes
    gap = max(abs(recomputed[name] - reported[name]) for name in ("loss", "accuracy"))
    return {"reload/recomputed": recomputed, "reload/largest_difference": gap}


CASES = [
    ("candles that passed", "candles", {}, PASSED),
    ("candles of its training failed", "candles", training(verdict="failed"), FAILED),
    ("candles of its training are doubtful", "candles", training(verdict="inconclusive"), INCONCLUSIVE),
    ("candles it was measured on failed", "candles", {"candles/measured/verdict": "failed"}, FAILED),
    ("candles that were not judged yet", "candles", training(verdict=""), ERROR),
    ("candles with a verdict nobody knows", "candles", training(verdict="fine"), ERROR),
    ("candles of its training are unknown", "candles", {"candles/training": None}, ERROR),
    ("candles that were judged are others", "candles", training(digest="sha256:0"), ERROR),
    ("candles its manifest names are others", "candles", {"trained_on": "sha256:0"}, ERROR),
    ("lookahead: nothing differs", "lookahead", {}, PASSED),
    ("lookahead: one feature knows", "lookahead", {"lookahead/columns_differing": ["rsi_14"]}, FAILED),
    ("lookahead: too few rows", "lookahead", {"lookahead/rows": 63}, INCONCLUSIVE),
    ("lookahead: differs, and none is named", "lookahead", {"lookahead/largest_difference": 0.5}, ERROR),
    ("window: apart", "window", {}, PASSED),
    ("window: fit reaches into it", "window", window("fit", last_at="2025-01-02T00:00:00Z"), FAILED),
    ("window: stop reaches into it", "window", window("stop", last_at="2025-02-01T00:00:00Z"), FAILED),
    ("window: 8 bars apart, labels look into it", "window", window("stop", last_at="2024-12-31T16:00:00Z"), FAILED),
    ("window: 9 bars apart is purged", "window", window("stop", last_at="2024-12-31T15:00:00Z"), PASSED),
    ("window: the fit window itself", "window", window("fit", digest="sha256:" + "3" * 64), FAILED),
    ("window: rows in both", "window", {"windows/rows_shared": 1}, FAILED),
    ("window: other windows than stated", "window", {"windows/recomputed": False}, FAILED),
    ("window: nobody can recompute them", "window", {"windows/recomputed": None}, ERROR),
    ("window: measured on newer candles", "window", {"windows/on_training_candles": False}, PASSED),
    ("window: another horizon", "window", {"windows/horizon_bars": 0}, ERROR),
    ("window: purged by less than the label looks ahead", "window", {"label/horizon_bars": 24}, ERROR),
    ("window: a longer horizon that reaches into it", "window",
     horizon(24) | window("stop", last_at="2024-12-31T00:00:00Z"), FAILED),
    ("window: a longer horizon, purged", "window",
     horizon(24) | window("stop", last_at="2024-12-30T23:00:00Z"), PASSED),
    ("window: a horizon that there is not", "window", horizon(97), ERROR),
    ("window: a model that came before these candles closed", "window",
     {"import": {"imported_at": "2024-12-31T00:00:00Z", "candles_at": "2025-03-02T00:00:00Z"}}, PASSED),
    ("window: a model that came when these candles were known", "window",
     {"import": {"imported_at": "2025-01-02T00:00:00Z", "candles_at": "2025-03-02T00:00:00Z"}}, INCONCLUSIVE),
    ("window: a model that came after its simulated market was made", "window",
     {"import": {"imported_at": "2025-03-03T00:00:00Z", "candles_at": "2025-03-02T00:00:00Z"},
      "candles/measured/simulated": True}, INCONCLUSIVE),
    ("window: a model that came before its simulated market was made", "window",
     {"import": {"imported_at": "2025-03-01T00:00:00Z", "candles_at": "2025-03-02T00:00:00Z"},
      "candles/measured/simulated": True}, PASSED),
    ("window: nobody knows whether it came from outside", "window", {"import": {}}, ERROR),
    ("window: other rows than the accuracy's", "window", window("gate", rows=1499), ERROR),
    ("window: ends before it begins", "window", window("gate", last_at="2024-01-01T00:00:00Z"), ERROR),
    ("schema: as the bot computes", "schema", {}, PASSED),
    ("schema: another digest", "schema", {"schema/digest_matches": False}, FAILED),
    ("schema: names in another order", "schema", {"schema/names_match": False}, FAILED),
    ("schema: another coin's scale", "schema", {"schema/statistics_match": False}, FAILED),
    ("schema: two columns swapped", "schema", {"schema/columns_out_of_place": ["rsi_14", "rsi_21"]}, FAILED),
    ("schema: statistics nobody could compare", "schema", {"schema/statistics_match": None}, ERROR),
    ("reload: as reported", "reload", {}, PASSED),
    ("reload: another loss", "reload", reloaded(loss=0.7421), FAILED),
    ("reload: another accuracy", "reload", reloaded(accuracy=0.734), FAILED),
    ("reload: one row tipped over", "reload", reloaded(accuracy=0.736 - 1 / 1500), PASSED),
    ("reload: classes cut elsewhere", "reload", {"reload/cuts_match": False}, FAILED),
    ("reload: other weights in the graph", "reload", {"reload/weights_equal_in_graph": False}, FAILED),
    ("reload: other rows", "reload", reloaded(rows=1499), ERROR),
    ("reload: nothing was reported", "reload", {"reload/reported/loss": None}, ERROR),
    ("reload: a difference that is not theirs", "reload", {"reload/largest_difference": 0.5}, ERROR),
    ("skill: ahead of all", "skill", {}, PASSED),
    ("skill: hardly ahead of the last move", "skill", ahead("naive/last_move", 0.353, 0.0), INCONCLUSIVE),
    ("skill: behind always the same", "skill",
     ahead("naive/majority", -0.01, -0.03) | {"skill/best_naive": "majority"}, FAILED),
    ("skill: as good as V5, give or take two points", "skill", ahead("baseline", 0.0, -0.0199), PASSED),
    ("skill: perhaps worse than V5", "skill", ahead("baseline", 0.0, -0.02), INCONCLUSIVE),
    ("skill: worse than V5", "skill", ahead("baseline", -0.03, -0.05), FAILED),
    ("skill: itself the V5", "skill", ahead("baseline", 0.0, 0.0, 0.0) | {"skill/baseline/is_itself": True}, PASSED),
    ("skill: a V5 that was fitted on nothing", "skill", {"skill/baseline/fit/rows": 0}, ERROR),
    ("skill: no V5 to compare with", "skill", {"skill/baseline/digest": None}, ERROR),
    ("skill: intervals from short blocks", "skill", {"skill/block_bars": 71}, ERROR),
    ("skill: blocks too short for labels that overlap", "skill", horizon(9), ERROR),
    ("skill: blocks of nine horizons", "skill", horizon(9) | {"skill/block_bars": 81}, PASSED),
    ("skill: a difference that is not theirs", "skill", {"skill/naive/majority/difference": 0.9}, ERROR),
    ("skill: an interval the wrong way round", "skill", {"skill/baseline/lower": 0.99}, ERROR),
    ("skill: another naive one is better", "skill", {"skill/best_naive": "majority"}, ERROR),
    ("too good: within reason", "too_good", accuracy(0.85, 0.83), PASSED),
    ("too good: a leak until shown otherwise", "too_good", accuracy(0.851, 0.83), INCONCLUSIVE),
    ("attempts: the first", "attempts", accuracy(0.67, 0.652, 0.688), PASSED),
    ("attempts: the fortieth of the same figures", "attempts", accuracy(0.67, 0.652, 0.688) | attempt(40), INCONCLUSIVE),
    ("attempts: the fortieth, clear all the same", "attempts", attempt(40), PASSED),
    ("attempts: the first has nothing to widen, however bad", "attempts", accuracy(0.35, 0.33, 0.37), PASSED),
    ("attempts: not right often enough at all", "attempts", accuracy(0.65, 0.63, 0.67) | attempt(2), FAILED),
    ("attempts: the second without its blocks", "attempts", attempt(2) | {"accuracy/block_bars": 0}, ERROR),
    ("attempts: before the first", "attempts", {"attempts/count": 0}, ERROR),
    ("attempts: without the hash of the earlier", "attempts", {"attempts/count": 2, "attempts/chain": "0"}, ERROR),
    ("attempts: an error too small for its interval", "attempts", {"accuracy/standard_error": 1e-6}, ERROR),
    ("attempts: an error that is no error of a share", "attempts", {"accuracy/standard_error": 0.6}, ERROR),
    ("calibration: within reason", "calibration", {}, PASSED),
    ("calibration: certain and wrong", "calibration", {"calibration/ece": 0.63, "calibration/brier": 1.3}, FAILED),
    ("stability: even", "stability", {}, PASSED),
    ("stability: lost in wild markets", "stability", {"stability/volatility": [
        {"tercile": "calm", "rows": 500, "accuracy": 0.85},
        {"tercile": "usual", "rows": 500, "accuracy": 0.8},
        {"tercile": "wild", "rows": 500, "accuracy": 0.6},
    ]}, FAILED),
    ("stability: months that do not add up", "stability", accuracy(0.5, 0.48), ERROR),
    ("latency: quick", "latency", {}, PASSED),
    ("latency: late", "latency", {"latency/p99_ms": 251.0}, FAILED),
    ("latency: the median slower than the slowest", "latency", {"latency/p50_ms": 9.0}, ERROR),
    ("drift: as markets move", "drift", {}, PASSED),
    ("drift: another one is named", "drift", {"drift/largest/name": "rsi_14"}, ERROR),
    ("drift: prices as features", "drift", {
        "drift/psi/atr_14": 8.1, "drift/largest/psi": 8.1}, FAILED),
]  # fmt: skip


@pytest.mark.parametrize(("gate", "changes", "verdict"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_the_gates_beyond_the_baseline(gate: str, changes: dict[str, Any], verdict: Verdict) -> None:
    outcome = judge(gate, changes)
    assert outcome.verdict == verdict, outcome.sentence
    assert "SOL" in outcome.sentence
    assert outcome.observed
    assert outcome.threshold


SENTENCES = [
    (
        "skill",
        ahead("baseline", -0.03, -0.05, -0.01),
        "SOL's accuracy is 75.3 % of 1,500 bars: +35.3 points against persistence (95 % interval +33.8 to +36.8), "
        "−3.0 points against V5 (95 % interval −5.0 to −1.0); the intervals must begin above 0.0 and −2.0 points.",
    ),
    (
        "attempts",
        accuracy(0.67, 0.652, 0.688) | attempt(3),
        "SOL: attempt 3 on this gate window, accuracy 67.0 % of 1,500 bars; the interval widened for it begins at 64.6 %; "
        "below 65 %, so it may be the best of its attempts by chance.",
    ),
    (
        "window",
        window("stop", last_at="2024-12-31T16:00:00Z") | {"windows/rows_shared": 12},
        "SOL's gate window overlaps its training: labels of the stop window look into it; "
        "12 of its rows were used in training.",
    ),
    (
        "reload",
        reloaded(loss=0.80, accuracy=0.70),
        "SOL's stored files do not give what training reported: on the 1,500 bars of early stopping, loss 0.8000 instead "
        "of 0.7410, accuracy 70.0 % instead of 73.6 %.",
    ),
    (
        "too_good",
        accuracy(0.99, 0.98, 1.0),
        "SOL's accuracy is 99.0 % of 1,500 bars: more than 85 % is a leak until somebody shows otherwise.",
    ),
    (
        "lookahead",
        {"lookahead/columns_differing": ["rsi_14", "roc_5"]},
        "SOL's features look ahead: rsi_14, roc_5 change when the later bars are cut off.",
    ),
]


@pytest.mark.parametrize(("gate", "changes", "sentence"), SENTENCES, ids=[s[0] for s in SENTENCES])
def test_a_sentence_gives_the_figures(gate: str, changes: dict[str, Any], sentence: str) -> None:
    assert judge(gate, changes).sentence == sentence


def test_each_attempt_asks_more_and_none_less_than_the_bootstrap() -> None:
    figures = accuracy(0.70, 0.68, 0.72) | {"accuracy/standard_error": 0.0102}
    whole = healthy("SOL")["accuracy"]
    lower = [judge("attempts", figures | attempt(count)).figure for count in (1, 2, 5, 40)]
    assert lower == sorted(lower, key=lambda bound: -(bound or 0))
    assert lower[0] == pytest.approx(0.68)
    blocks = whole["rows"] / whole["block_bars"]
    assert lower[3] == pytest.approx(
        0.70 - compute_student_quantile(1 - 0.05 / 80, blocks - 1) * 0.0102, abs=1e-5
    )


def test_a_healthy_bundle_passes_every_gate() -> None:
    outcomes = evaluate(known(healthy("BTC")), FULL_POLICY)
    assert [outcome.gate for outcome in outcomes] == ALWAYS_JUDGED
    assert {outcome.verdict for outcome in outcomes} == {PASSED}
    assert get_overall_verdict(outcomes) == PASSED


def test_a_measurement_without_their_sections_is_an_error_at_each() -> None:
    sections = (
        "skill",
        "lookahead",
        "windows",
        "schema",
        "reload",
        "calibration",
        "stability",
        "latency",
        "drift",
    )
    old = {name: part for name, part in healthy("BTC").items() if name not in (*sections, "lead")}
    del old["accuracy"]["standard_error"]
    outcomes = {o.gate: o.verdict for o in evaluate(old, FULL_POLICY)}
    unmeasured = {"candles", "attempts", "window", "lead", "label_balance", *sections} - {"windows"}
    assert {gate for gate, verdict in outcomes.items() if verdict == ERROR} == unmeasured
