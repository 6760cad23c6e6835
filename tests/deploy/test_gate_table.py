"""The gates read as a few lines: what decides and did not pass first, what passed without a scale on one line."""

from typing import Any

import pytest

from deploy.models import Release
from deploy.outcomes import list_release_coins
from deploy.releases import decide
from deploy.releases.gate_table import GateTable, build_gate_table
from deploy.releases.presentation import describe_terms
from deploy.releases.settle import advance
from gates.catalogue.advisory import ADVISORY
from gates.catalogue.baseline import BASELINE
from gates.catalogue.evidence import EVIDENCE
from gates.catalogue.registry import ADVISORY_NAMES, GATES
from gates.catalogue.skill import SKILL
from tests import scenarios

pytestmark = pytest.mark.django_db


def built(**figures: Any) -> tuple[Release, GateTable]:
    release = scenarios.Build(figures=figures).settled()
    return release, build_gate_table(release, list_release_coins(release))


def test_a_passed_release_shows_only_gates_with_a_scale_one_by_one() -> None:
    _, table = built()
    assert [row.gate for row in table.expanded] == [
        "accuracy", "logit_range", "class_balance", "confidence", "skill",
    ]  # fmt: skip
    assert {line.group: [row.gate for row in line.rows] for line in table.collapsed} == {
        BASELINE: ["bundle", "scaler", "finite_weights", "single_sample"],
        EVIDENCE: ["candles", "lookahead", "window", "schema", "reload"],
        SKILL: ["too_good", "attempts"],
        ADVISORY: ["lead", "label_balance", "calibration", "stability", "latency", "drift"],
    }


def test_terms_that_could_not_be_measured_are_those_of_the_settings() -> None:
    """A bundle that does not load has no label to name."""
    unknown = dict.fromkeys(("text", "input", "kind", "horizon_bars", "cut", "cuts", "shares"))
    release, _ = built(**{coin: {**scenarios.healthy(coin), "label": unknown} for coin in scenarios.COINS})
    assert describe_terms(release, list_release_coins(release)) == "terciles over 8 bars, from relative72"


def test_every_gate_is_shown_once() -> None:
    _, table = built(SOL=scenarios.collapsed("SOL"))
    shown = [row.gate for row in table.expanded] + [row.gate for line in table.collapsed for row in line.rows]
    assert sorted(shown) == sorted(name for name, gate in GATES.items() if gate.applies is None)


def test_failed_required_gates_come_first_and_advisory_gates_last() -> None:
    document = scenarios.healthy("ETH")
    document["scaler"] |= {"present": False}
    document["latency"] |= {"p50_ms": 900.0, "p99_ms": 2000.0}
    _, table = built(ETH=document)
    assert table.expanded[0].gate == "scaler" and table.expanded[0].is_problem
    assert (
        [row.gate for row in table.expanded if not row.is_required]
        == [table.expanded[-1].gate]
        == ["latency"]
    )


def test_only_required_words_are_counted() -> None:
    _, table = built()
    assert (table.judged, table.problems) == (3 * (len(GATES) - len(ADVISORY_NAMES)), 0)


def test_each_coin_knows_which_attempt_it_is() -> None:
    built()
    assert built()[1].attempts == {"BTC": 1, "ETH": 1, "SOL": 1}, "the same bundles are no other attempt"
    again = scenarios.Build(seed=7).settled()
    assert build_gate_table(again, list_release_coins(again)).attempts == {"BTC": 2, "ETH": 2, "SOL": 2}


def test_an_unmeasured_coin_counts_as_due() -> None:
    release = scenarios.Build(unmeasured={"SOL"}).release()
    advance(release)
    half = build_gate_table(release, list_release_coins(release))
    required = len(GATES) - len(ADVISORY_NAMES)
    assert (half.passed, half.due, half.missing, half.is_final) == (
        2 * required,
        3 * required,
        required,
        False,
    )
    assert {row.cells[2].missing for row in half.rows} == {"not measured yet"}
    ended = decide.cancel(release, actor=scenarios.LAUNCHER, reason="the wrong candles")
    table = build_gate_table(ended, list_release_coins(ended))
    assert (table.due, table.missing, table.is_final) == (3 * required, required, True)
    assert {row.cells[2].missing for row in table.rows} == {"not measured"}
