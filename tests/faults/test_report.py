"""Each of the five V6 failures, planted in the bytes of a bundle, stands in the report next to a sound V7."""

import pytest

from deploy.reports.charts import draw_charts
from deploy.reports.comparison import Answer, ComparedCoin, ComparedRelease, compare
from deploy.reports.failures import FAILURES
from gates.evaluation import evaluate, get_overall_verdict
from gates.policy import FULL_POLICY
from tests.faults.bundle_factory import BundleFactory, Case
from tests.faults.catalogue import FAULTS, Fault

pytestmark = pytest.mark.faults

V6 = [fault for fault in FAULTS if fault.name.startswith("v6: ")]


def side(line: str, case: Case) -> ComparedRelease:
    """A release of one coin, measured from its bytes and judged by every gate."""
    coin, document = case.candle_facts.coin, case.document()
    outcomes = evaluate(document, FULL_POLICY, coin=coin)
    by_gate = {outcome.gate: outcome for outcome in outcomes}
    judged = ComparedCoin(coin, document, FULL_POLICY, by_gate, get_overall_verdict(outcomes), 1, case.digest)
    return ComparedRelease(
        1, line, "rolled_back", 2, 3600, False, "olivia", "2026-11-22T08:00:00Z", {coin: judged}
    )


@pytest.mark.parametrize("fault", V6, ids=lambda fault: fault.name)
def test_a_failure_planted_in_the_bytes_is_shown_next_to_v7(fault: Fault, factory: BundleFactory) -> None:
    before, after = side("v6_enhanced", fault.plant(factory)), side("v7_fixed", factory.good.case)
    found = compare(after, before)
    (answer,) = (answer for answer in found.failures if answer.failure.gate == fault.gate)
    assert answer.answer == Answer.FIXED, answer.sentence
    assert answer.before[0].verdict == "failed" and answer.after[0].verdict == "passed"
    assert answer.before[0].figure != answer.after[0].figure
    assert f"v6_enhanced failed {fault.gate.replace('_', ' ')}" in answer.sentence
    assert found.summary.startswith("v7_fixed passes")


def test_pictures_of_exploded_and_sound_logits_share_a_logarithmic_axis(factory: BundleFactory) -> None:
    exploded = next(fault for fault in V6 if fault.gate == "logit_range")
    found = compare(side("v7_fixed", factory.good.case), side("v6_enhanced", exploded.plant(factory)))
    drawn = draw_charts(found, found.coins[0])
    layouts = [drawn[f"{when}-logits"]["layout"]["xaxis"] for when in ("before", "after")]
    assert layouts[0]["range"] == layouts[1]["range"]
    assert "logarithmic" in layouts[1]["title"]["text"]


def test_all_five_are_planted() -> None:
    assert {fault.gate for fault in V6} == {failure.gate for failure in FAILURES}
