"""The gates for real markets, and the draft that requires them: what passes, what is refused, and the reasons."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from common.errors import Conflict, DomainError, InvalidInput, NotAllowed, NotFound
from common.formatting import format_parameter, format_state
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.rules import ReleaseState
from gates.catalogue.gate import GateOutcome
from gates.catalogue.live import DEFAULT_LIVE
from gates.evaluation import evaluate, get_overall_verdict
from gates.models import GatePolicy
from gates.policy import BASELINE_POLICY, DRAFTS, FULL_POLICY, check_policy
from gates.policy_changes import Direction, compare_policies, explain_draft, weaker_than_baseline
from gates.services import policies
from mlcore.constants import NAIVE_FORECASTERS
from mlcore.evaluation.metrics import compute_shares
from mlcore.evaluation.skill import measure_lead
from mlcore.features.labels import Label, LabelKind
from mlcore.verdict import Verdict
from tests import factories, scenarios
from tests.deploy.commands import run
from tests.gates.documents import changed
from tests.scenarios import collapsed, healthy, inaccurate, known

PASSED, FAILED, INCONCLUSIVE, ERROR = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.ERROR
DRAFT = DRAFTS["real-markets"]
ANNA = factories.actor("anna", "approver")
ARTHUR = factories.actor("arthur", "approver")
OLIVIA = factories.actor("olivia", "operator")
HONESTY = {
    "bundle", "scaler", "finite_weights", "single_sample", "confidence", "logit_range", "candles", "lookahead",
    "window", "schema", "reload", "skill", "too_good",
}  # fmt: skip
"""Gates that guard honesty: the draft changes none of them."""


def judge(gate: str, changes: dict[str, Any]) -> GateOutcome:
    document = changed(known(inaccurate("SOL")), changes)
    return next(found for found in evaluate(document, DRAFT.document) if found.gate == gate)


def lead(over: str, difference: float, lower: float, **more: Any) -> dict[str, Any]:
    figures = {"difference": difference, "lower": lower, "accuracy": 0.391 - difference, **more}
    return {f"lead/over/{over}/{name}": value for name, value in figures.items()}


def predicted(down: float, neutral: float, up: float) -> dict[str, Any]:
    return {"shares": {"down": down, "neutral": neutral, "up": up}}


RARE = {
    "lead/label_shares": {"down": 0.05, "neutral": 0.9, "up": 0.05},
    "lead/over/majority": {
        "accuracy": 0.9, "difference": -0.509, "lower": -0.53, "upper": -0.48, "standard_error": 0.01,
    },
}  # fmt: skip
"""A label whose directions occur in one bar of ten."""

CASES = [
    ("ahead of all by more than chance explains", "lead", {}, PASSED),
    ("ahead of the base rate, perhaps by chance", "lead", {"lead/over/majority/lower": -0.001}, INCONCLUSIVE),
    ("an interval that begins at nothing", "lead", {"lead/over/majority/lower": 0.0}, INCONCLUSIVE),
    ("no more often right than the last move", "lead", lead("last_move", 0.0, -0.03), FAILED),
    ("behind the reversal", "lead", lead("reversal", -0.01, -0.05, upper=0.02), FAILED),
    ("no more often down than up where it says so", "lead", lead("all_up", 0.0, -0.02), FAILED),
    ("more often up than down where it says so, perhaps by chance", "lead", lead("all_down", 0.01, -0.01), INCONCLUSIVE),
    ("its own calls in one direction are not known", "lead", {"lead/over/all_up": None}, ERROR),
    ("the twentieth attempt", "lead", {"attempts/count": 20}, INCONCLUSIVE),
    ("an attempt without those before", "lead", {"attempts/chain": ""}, ERROR),
    ("no standard error", "lead", {"lead/over/majority/standard_error": None}, ERROR),
    ("a standard error too small for its interval", "lead", {"lead/over/majority/standard_error": 1e-6}, ERROR),
    ("a lead outside its own interval", "lead", {"lead/over/majority/upper": 0.02}, ERROR),
    ("a lead that does not follow from the accuracies", "lead", {"lead/over/majority/accuracy": 0.34}, ERROR),
    ("another accuracy than the accuracy", "lead", {"accuracy/point": 0.393}, ERROR),
    ("other rows than the accuracy's", "lead", {"lead/rows": 1499}, ERROR),
    ("blocks that miss a regime", "lead", {"lead/block_bars": 215}, ERROR),
    ("blocks shorter than nine horizons", "lead", {"label/horizon_bars": 48}, ERROR),
    ("a base rate that is not of the label", "lead", {
        "lead/label_shares": {"down": 0.4, "neutral": 0.3, "up": 0.3}}, ERROR),
    ("shares that are no whole", "lead", {"lead/label_shares/down": 0.2}, ERROR),
    ("a problem while it was measured", "lead", {"lead/problem": "cut off"}, ERROR),
    ("each class as often as it occurs", "label_balance", {}, PASSED),
    ("a class predicted half as often as it occurs", "label_balance", predicted(0.165, 0.415, 0.42), PASSED),
    ("a class predicted less than half as often", "label_balance", predicted(0.15, 0.42, 0.43), FAILED),
    ("a class predicted more than one and a half times as often", "label_balance",
     predicted(0.5, 0.25, 0.25), FAILED),
    ("a rare class predicted rarely", "label_balance", RARE | predicted(0.04, 0.92, 0.04), PASSED),
    ("a rare class never predicted", "label_balance", RARE | predicted(0.0, 1.0, 0.0), FAILED),
    ("a rare class predicted in a third of the bars", "label_balance", RARE | predicted(0.33, 0.34, 0.33), FAILED),
    ("a class that does not occur", "label_balance", {
        "lead/label_shares": {"down": 0.0, "neutral": 0.65, "up": 0.35}} | lead("majority", -0.259, -0.3), ERROR),
]  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "changes", "verdict"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_the_gates_for_real_markets(gate: str, changes: dict[str, Any], verdict: Verdict) -> None:
    outcome = judge(gate, changes)
    assert outcome.verdict == verdict, outcome.sentence
    assert "SOL" in outcome.sentence and outcome.observed and outcome.threshold


def test_the_sentences_give_the_figures() -> None:
    assert judge("lead", {}).sentence == (
        "SOL's accuracy is 39.1 % of 1,500 bars, where the label's base rate is 35.0 %: +4.1 points against the label's "
        "base rate (95 % interval +1.1 to +7.1); the interval must begin above 0.0 points."
    )
    assert judge("label_balance", RARE | predicted(0.04, 0.92, 0.04)).sentence == (
        "SOL predicts each class in these shares of how often it occurs: Down 80.0 %, Neutral 102.2 %, Up 80.0 %; 50 % to "
        "150 % is allowed. The classes occur in Down 5.0 %, Neutral 90.0 %, Up 5.0 % of bars."
    )


def toss_coins_where_it_moves(*, knows_direction: float = 0.0) -> SimpleNamespace:
    """A market whose volatility lasts and whose direction nobody knows, and a model that answers neutral where it was calm
    and tosses a coin elsewhere; in a share of the bars it knows the direction."""
    rng = np.random.default_rng(3)
    wild = np.zeros(34_000)
    for bar in range(1, len(wild)):
        wild[bar] = 0.985 * wild[bar - 1] + 0.17 * rng.normal()
    returns = 0.006 * np.exp(wild) * rng.normal(size=len(wild))
    closes, label = np.exp(np.cumsum(returns)), Label(LabelKind.PERCENT, 8, 1.0)
    rows = np.arange(20_000, len(closes) - 8)
    moves = 100 * (closes[rows + 8] / closes[rows] - 1)
    before = np.array([np.abs(returns[row - 23 : row + 1]).mean() for row in rows])
    true = np.where(moves < -1, 0, np.where(moves > 1, 2, 1))
    side = np.where(rng.random(len(rows)) < knows_direction, moves > 0, rng.random(len(rows)) < 0.5)
    predicted = np.where(before < np.quantile(before, (true == 1).mean()), 1, 2 * side)
    return SimpleNamespace(
        true=true, predicted=predicted, hits=predicted == true, seed=0, label=label, gate_closes=(closes, rows),
        cuts=(-1.0, 1.0),
    )  # fmt: skip


def judge_measured(model: SimpleNamespace) -> dict[str, GateOutcome]:
    document = known(inaccurate("SOL"))
    found = measure_lead(model)  # type: ignore[arg-type]  # what it reads of a context
    document["lead"] = {**found, "problem": None}
    document["accuracy"] |= {"rows": found["rows"], "point": found["accuracy"]}
    document["shares"] = compute_shares(model.predicted)
    return {each.gate: each for each in evaluate(document, DRAFT.document)}


def test_who_knows_when_and_not_where_has_no_lead() -> None:
    """It is ahead of the base rate and of every naive forecaster, and its calls are worth nothing."""
    model = toss_coins_where_it_moves()
    outcomes, over = judge_measured(model), measure_lead(model)["over"]  # type: ignore[arg-type]
    assert all(over[name]["lower"] > 0 for name in NAIVE_FORECASTERS)
    assert outcomes["label_balance"].verdict == PASSED
    assert outcomes["lead"].verdict in (FAILED, INCONCLUSIVE), outcomes["lead"].sentence
    assert judge_measured(toss_coins_where_it_moves(knows_direction=0.2))["lead"].verdict == PASSED


def test_each_attempt_asks_for_a_greater_lead() -> None:
    lower = [judge("lead", {"attempts/count": count}).figure or 0.0 for count in (1, 2, 5, 40)]
    assert lower == sorted(set(lower), reverse=True)


def test_an_honest_model_passes_and_what_collapsed_does_not() -> None:
    outcomes = evaluate(known(inaccurate("BTC")), DRAFT.document)
    assert [found.sentence for found in outcomes if found.verdict != PASSED] == []
    assert get_overall_verdict(evaluate(known(inaccurate("BTC")), FULL_POLICY)) == FAILED
    refused = {found.gate for found in evaluate(known(collapsed("BTC")), DRAFT.document) if found.is_problem}
    assert {"scaler", "confidence", "logit_range", "label_balance"} <= refused
    assert "class_balance" not in refused


def test_what_was_measured_before_these_gates_is_an_error() -> None:
    old = {name: part for name, part in known(healthy("BTC")).items() if name != "lead"}
    verdicts = {found.gate: found.verdict for found in evaluate(old, DRAFT.document)}
    assert (verdicts["lead"], verdicts["label_balance"]) == (ERROR, ERROR)
    assert get_overall_verdict(evaluate(old, FULL_POLICY)) == PASSED, "advisory there"


@pytest.mark.parametrize("draft", DRAFTS.values(), ids=lambda draft: draft.name)
def test_a_draft_is_a_policy_with_a_reason_for_each_difference(draft: Any) -> None:
    assert check_policy(draft.document) == draft.document
    changes = {f"{change.gate}.{change.parameter}" for change, _ in explain_draft(draft)}
    assert changes == set(draft.reasons)
    assert all(why.endswith(".") for why in draft.reasons.values())


def test_the_draft_changes_no_gate_that_guards_honesty() -> None:
    entries = DRAFT.document["gates"]
    assert {name: entries[name] for name in HONESTY} == {name: FULL_POLICY["gates"][name] for name in HONESTY}
    changed_gates = {change.gate for change in compare_policies(FULL_POLICY, DRAFT.document)}
    assert changed_gates == {"accuracy", "class_balance", "attempts", "lead", "label_balance"}
    assert all(entries[name]["required"] for name in (*HONESTY, *changed_gates, *BASELINE_POLICY["gates"]))
    assert DRAFT.document["live"] == DEFAULT_LIVE


def test_what_the_draft_asks_less_is_weaker_than_the_baseline() -> None:
    assert weaker_than_baseline(DRAFT.document) == [
        "class balance: least is 0 instead of 0.2 (looser)",
        "class balance: most is 1 instead of 0.4 (looser)",
        "accuracy: above is 0.33 instead of 0.65 (looser)",
    ]
    less = [change.gate for change, _ in explain_draft(DRAFT) if change.direction == Direction.LOOSER]
    assert less == ["class_balance", "class_balance", "accuracy", "attempts"]


def test_the_documentation_gives_each_reason() -> None:
    page = (Path(__file__).parents[2] / "docs" / "real-markets.md").read_text()
    rows = [
        line
        for line in page.splitlines()
        if line.startswith("| ") and not line.startswith(("| ---", "| gate"))
    ]
    assert rows == [
        f"| {format_state(change.gate)} | {change.parameter} | {format_parameter(change.before)} | "
        f"{format_parameter(change.after)} | {why} |"
        for change, why in explain_draft(DRAFT)
    ]


@pytest.mark.django_db
def test_two_people_put_the_draft_in_force() -> None:
    assert GatePolicy.objects.count() == 2
    proposed = policies.propose_draft("real-markets", actor=ANNA, reason="a real market")
    assert proposed.document == DRAFT.document
    assert policies.policy_in_force().number == 2
    with pytest.raises(NotAllowed, match="another person"):
        policies.adopt_policy(proposed, actor=ANNA, reason="alone")
    policies.adopt_policy(proposed, actor=ARTHUR, reason="agreed")
    assert policies.policy_in_force() == proposed
    with pytest.raises(Conflict, match="says the same"):
        policies.propose_draft("real-markets", actor=ANNA, reason="again")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "actor", "reason", "error"),
    [
        ("real-markets", OLIVIA, "why", NotAllowed),
        ("real-markets", ANNA, " ", InvalidInput),
        ("no-gates", ANNA, "why", NotFound),
    ],
    ids=["by an operator", "without a reason", "of a draft there is not"],
)
def test_no_proposal_of_a_draft(name: str, actor: Any, reason: str, error: type[DomainError]) -> None:
    with pytest.raises(error):
        policies.propose_draft(name, actor=actor, reason=reason)
    assert GatePolicy.objects.count() == 2


@pytest.mark.django_db
def test_the_command_shows_proposes_and_adopts() -> None:
    factories.person("anna", "approver")
    factories.person("arthur", "approver")
    status, said = run("policies", "drafts")
    assert status == 0
    for change, sentence in explain_draft(DRAFT):
        assert change.sentence in said and sentence in said
    why = ("--reason", "a real market", "--as")
    assert run("policies", "propose", "real-markets", *why, "anna")[0] == 0
    assert run("policies", "adopt", "3", *why, "anna") == (
        1, "anna proposed policy 3; it takes another person to adopt it.\n",
    )  # fmt: skip
    assert run("policies", "adopt", "three", *why, "arthur")[0] == 1
    status, said = run("policies", "adopt", "3", *why, "arthur")
    assert status == 0 and "policy 3: proposed by anna, adopted by arthur. a real market" in said
    assert "weaker than the baseline: accuracy: above is 0.33" in run("policies")[1]


@pytest.mark.django_db
def test_a_desk_that_adopted_it_can_release_an_honest_model() -> None:
    scenarios.service_in_use()
    figures = scenarios.for_every_coin(inaccurate)
    assert scenarios.Build(figures=figures, seed=6).settled().state == ReleaseState.REJECTED
    proposed = policies.propose_draft("real-markets", actor=ANNA, reason="a real market")
    policies.adopt_policy(proposed, actor=ARTHUR, reason="agreed")
    release = scenarios.Build(figures=figures, seed=7).settled()
    assert release.state == ReleaseState.AWAITING_APPROVAL
    now = pointer.get_current()
    assert now is not None
    move = decide.approve(release, actor=ANNA, reason="a lead that lasts", revision=now.revision)
    said = scenarios.snapshot_document(move)
    assert "accuracy: above is 0.33 instead of 0.65 (looser)" in str(said)
