"""One release against another, for programs: the page's words and figures."""

import pytest

from deploy.models import Release
from tests import scenarios
from tests.api.callers import Caller, assert_problem

pytestmark = pytest.mark.django_db


@pytest.fixture
def v7() -> Release:
    """V6 inherited, V5 registered, a V7 that passed."""
    scenarios.service_in_use()
    return scenarios.awaiting_approval()


def test_the_five_failures_come_with_both_figures_and_an_answer(v7: Release, as_viewer: Caller) -> None:
    answer = as_viewer.get(f"releases/{v7.pk}/report/").json()
    assert [failure["answer"] for failure in answer["failures"]] == ["fixed"] * 4 + ["holds"]
    exploded = answer["failures"][2]
    assert (exploded["gate"], exploded["before"][0]["figure"]) == ("logit_range", "−12,527 … +9,301")
    assert exploded["after"][0]["figure"] == "−2.90 … +2.40"
    assert answer["against"]["line"] == "v6_enhanced"
    skill = answer["skill"][0]
    assert skill["accuracy"] == {"point": 0.739, "lower": 0.721, "upper": 0.756}
    assert skill["difference"]["lower"] > 0.3
    gates = {gate["gate"]: gate for gate in answer["gates"]}
    assert gates["scaler"]["coins"][0]["before"]["verdict"] == "failed"


def test_against_any_other_release(v7: Release, as_viewer: Caller) -> None:
    v5 = Release.objects.get(line="v5")
    answer = as_viewer.get(f"releases/{v7.pk}/report/", {"against": v5.pk}).json()
    assert answer["against"]["release"] == v5.pk


@pytest.mark.slow
@pytest.mark.parametrize("against", ["x", "0", "-1", "1.5", str(2**63), ""])
def test_against_what_is_no_number_is_refused(against: str, v7: Release, as_viewer: Caller) -> None:
    response = as_viewer.get(f"releases/{v7.pk}/report/", {"against": against})
    assert "against" in assert_problem(response, 400)["errors"]


def test_a_misspelt_parameter_is_refused_by_its_name(v7: Release, as_viewer: Caller) -> None:
    response = as_viewer.get(f"releases/{v7.pk}/report/", {"agianst": "1"})
    assert "agianst" in assert_problem(response, 400)["errors"]


def test_what_is_not_there_or_itself_is_refused(v7: Release, as_viewer: Caller) -> None:
    assert_problem(as_viewer.get("releases/99/report/"), 404, "no release 99")
    assert_problem(as_viewer.get(f"releases/{v7.pk}/report/", {"against": 99}), 404, "no release 99")
    assert_problem(as_viewer.get(f"releases/{v7.pk}/report/", {"against": v7.pk}), 400, "not with itself")
