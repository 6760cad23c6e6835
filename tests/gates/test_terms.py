"""A run with other settings than its line's, trained by a worker and judged by the gates as its manifest declares it."""

from typing import Any

import pytest

from deploy.reports.comparison import ComparedCoin, ComparedRelease, compare
from gates import baselines
from gates.models import Attempt, Diagnosis
from gates.services import measuring
from mlcore.features.labels import Label, LabelKind
from mlcore.features.splits import Shares
from mlcore.features.terms import Terms
from tests.gates.conftest import SYSTEM, Desk
from training import worker
from training.models import TrainingRun
from training.rules import JobState
from training.services import runs

pytestmark = pytest.mark.slow

HONESTY = {
    "bundle", "scaler", "finite_weights", "single_sample", "confidence", "logit_range", "lookahead", "window",
    "schema", "reload", "candles", "too_good", "attempts",
}  # fmt: skip


def train(desk: Desk, **settings: Any) -> TrainingRun:
    run = runs.launch_run(
        coin=desk.dataset.coin,
        dataset=desk.dataset,
        line="v7_fixed",
        parameters={"epochs": 6, "batch_size": 256, **settings},
        seed=1,
        budget=runs.open_budget(),
        actor=SYSTEM,
        is_sent=False,
    )
    trained = worker.train(run.pk, worker_name="settings@test", device="cpu")
    assert trained is not None and trained.state == JobState.SUCCEEDED, run.failure
    return trained


def diagnose(desk: Desk, run: TrainingRun) -> Diagnosis:
    assert run.bundle is not None
    return measuring.diagnose_here(run.bundle, desk.dataset, actor=SYSTEM, worker_name="gates@test")


@pytest.mark.parametrize(
    ("changes", "label", "shares"),
    [
        ({"horizon": 12}, Label(horizon=12), Shares()),
        (
            {"label": "barriers", "cut": 0.8, "horizon": 10, "fit_percent": 65},
            Label(LabelKind.BARRIERS, 10, 0.8),
            Shares(65, 15),
        ),
        ({"input": "window64", "hidden_widths": "64-32-16"}, Label(), Shares()),
    ],
    ids=["another horizon", "barriers and another split", "windows"],
)
def test_other_settings_go_through_every_gate_and_are_judged_by_them(
    changes: dict[str, Any], label: Label, shares: Shares, desk: Desk
) -> None:
    run = train(desk, **changes)
    diagnosis = diagnose(desk, run)
    results = {result.gate: result for result in diagnosis.results.all()}
    assert {gate for gate, result in results.items() if result.verdict == "error"} == set()
    failed = {gate: results[gate].sentence for gate in HONESTY if results[gate].verdict != "passed"}
    assert failed == {}
    found = diagnosis.document["label"]
    assert (found["kind"], found["horizon_bars"], found["cut"]) == (label.kind, label.horizon, label.cut)
    assert found["shares"] == [shares.fit_percent, shares.stop_percent, shares.gate_percent]
    assert f"after the {label.horizon} bars" in results["window"].sentence
    baseline = diagnosis.document["skill"]["baseline"]
    assert baseline["problem"] is None and not baseline["is_itself"]
    assert baseline["fit"]["rows"] == diagnosis.document["windows"]["fit"]["rows"]
    assert Attempt.objects.get().gate_percent == shares.gate_percent


@pytest.mark.long
def test_a_longer_horizon_passes_every_required_gate_where_there_is_skill(desk: Desk) -> None:
    """The market's drift is strong: a release of another label than the default is possible."""
    diagnosis = diagnose(desk, train(desk, horizon=12, epochs=12))
    assert {
        r.gate: r.sentence for r in diagnosis.results.all() if r.is_required and r.verdict != "passed"
    } == {}
    assert diagnosis.verdict == "passed"


@pytest.mark.long
def test_another_label_on_the_same_gate_window_is_another_attempt(desk: Desk) -> None:
    first = diagnose(desk, train(desk))
    second = diagnose(desk, train(desk, horizon=4, fit_percent=60, stop_percent=20))
    counts = [each.context_document["attempts"]["count"] for each in (first, second)]
    assert counts == [1, 2]


def test_a_v5_of_other_terms_is_kept_apart(desk: Desk) -> None:
    default = baselines.build_key(desk.dataset)
    others = [Terms(Label(horizon=12)), Terms(shares=Shares(65, 15)), Terms(warm_up=300)]
    keys = {default, *(baselines.build_key(desk.dataset, terms) for terms in others)}
    assert len(keys) == 4
    assert baselines.find_trained(desk.dataset, others[0]) is None


def test_a_report_says_that_figures_of_two_labels_cannot_be_compared() -> None:
    def side(number: int, text: str) -> ComparedRelease:
        label = {"text": text, "input": "relative72", "shares": [70, 15, 15]}
        coins = {"BTC": ComparedCoin("BTC", document={"label": label})}
        return ComparedRelease(
            number, "v7_fixed", "rejected", 2, 3600, False, "olivia", "2026-01-01T00:00:00Z", coins
        )

    found = compare(side(2, "terciles over 24 bars"), side(1, "terciles over 8 bars"))
    assert found.after.terms == "terciles over 24 bars, from relative72, split 70 / 15 / 15 %"
    assert found.warnings == [
        "v7_fixed (release 2) predicts terciles over 24 bars, and v7_fixed (release 1) terciles over 8 bars. Their figures"
        " cannot be compared."
    ]
    assert compare(side(2, "terciles over 8 bars"), side(1, "terciles over 8 bars")).warnings == []
