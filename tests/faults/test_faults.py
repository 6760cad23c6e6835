"""Each planted fault is caught by the gate it names; without any one gate some fault would pass."""

import re

import pytest

from gates.evaluation import get_overall_verdict
from gates.policy import DRAFTS, FULL_POLICY
from mlcore.data.simulate import COINS
from mlcore.verdict import Verdict
from tests.faults import declared_faults, recipe_faults
from tests.faults.bundle_factory import BundleFactory, list_catching_gates
from tests.faults.catalogue import FAULTS, Fault
from tests.faults.conftest import PlantedFaults
from tests.faults.results import REQUIRED, judge_healthy
from tests.long_tests import long_except
from tests.processes import REPOSITORY

pytestmark = pytest.mark.faults
FIRST_OF_EACH_GATE = {fault.gate: fault for fault in reversed(FAULTS)}.values()


@pytest.mark.parametrize(
    "fault", long_except(FAULTS, lambda fault: fault in FIRST_OF_EACH_GATE), ids=lambda fault: fault.name
)
def test_a_planted_fault_is_caught_by_the_gate_it_names(fault: Fault, judged: PlantedFaults) -> None:
    outcomes = {outcome.gate: outcome for outcome in judged[fault.name]}
    assert outcomes[fault.gate].verdict is not Verdict.PASSED, outcomes[fault.gate].sentence
    assert get_overall_verdict(judged[fault.name]) is not Verdict.PASSED


@pytest.mark.parametrize("gate", REQUIRED)
@pytest.mark.long
def test_without_any_one_gate_some_fault_would_pass(gate: str, judged: PlantedFaults) -> None:
    passing = [
        fault.name
        for fault in FAULTS
        if get_overall_verdict(outcome for outcome in judged[fault.name] if outcome.gate != gate)
        is Verdict.PASSED
    ]
    assert passing, f"every fault that {gate} catches is caught by another gate too"


def test_the_bundles_without_faults_pass_every_required_gate(factory: BundleFactory) -> None:
    for good in (factory.good, factory.second_seed, factory.clear_market):
        assert list_catching_gates(good.case.outcomes()) == []
    for true in (declared_faults.healthy, declared_faults.healthy_without_scaler, recipe_faults.healthy):
        assert list_catching_gates(true(factory).outcomes()) == []


@pytest.mark.long
def test_no_healthy_bundle_is_refused(factory: BundleFactory) -> None:
    results = list(judge_healthy(factory, seeds=range(1)))
    assert [result.coin for result in results] == list(COINS)
    assert [result.refused_by for result in results] == [()] * len(COINS)


def test_random_levels_are_refused_with_and_without_their_check(judged: PlantedFaults) -> None:
    """Prices 0.8 to 1.2 times a level, 7,122 rows: the network trained on them is not released either way."""
    outcomes = judged["candles drawn at random"]
    assert "candles" in list_catching_gates(outcomes)
    assert (
        get_overall_verdict(outcome for outcome in outcomes if outcome.gate != "candles")
        is not Verdict.PASSED
    )


def test_the_five_failures_of_v6_are_in_the_catalogue() -> None:
    assert {fault.gate for fault in FAULTS if fault.name.startswith("v6: ")} == {
        "confidence", "class_balance", "logit_range", "scaler", "single_sample",
    }  # fmt: skip


def test_every_fault_has_a_name_of_its_own_and_names_a_required_gate() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
    assert {fault.gate for fault in FAULTS} == set(REQUIRED)
    assert all(FULL_POLICY["gates"][fault.gate]["required"] for fault in FAULTS)


def test_false_declarations_are_planted_for_every_gate_that_can_tell() -> None:
    declared = [fault for fault in FAULTS if fault.name.startswith("declared: ")]
    assert len(declared) >= 25
    assert {fault.gate for fault in declared} == {
        "reload", "window", "schema", "candles", "scaler", "single_sample", "accuracy", "finite_weights", "attempts",
    }  # fmt: skip


@pytest.mark.long
def test_what_the_draft_for_real_markets_lets_through_is_documented(judged: PlantedFaults) -> None:
    passing = {
        fault.name
        for fault in FAULTS
        if get_overall_verdict(judged.under(DRAFTS["real-markets"].document, fault.name)) is Verdict.PASSED
    }
    page = (REPOSITORY / "docs" / "real-markets.md").read_text().partition("## What it lets through")[2]
    assert passing == set(re.findall(r"^- \*(.+?)\*", page.partition("\n## ")[0], re.MULTILINE))
