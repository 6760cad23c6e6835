"""The report: one release against another. Pure first, then as it stands in the database, a page, a file and a command."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from common.errors import InvalidInput, NotFound
from deploy.api.reports import ReleaseReport
from deploy.models import Release
from deploy.releases import decide
from deploy.reports.charts import draw_charts
from deploy.reports.comparison import Answer, ComparedCoin, ComparedRelease, compare
from deploy.reports.failures import FAILURES
from deploy.reports.skill import describe_skill
from deploy.reports.standalone import render_standalone
from deploy.reports.stored import compare_releases, find_previous_release
from deploy.reports.text import format_report
from gates.evaluation import evaluate, get_overall_verdict
from gates.policy import BASELINE_POLICY
from tests import scenarios
from tests.deploy.commands import run
from tests.scenarios import collapsed, healthy, inaccurate

pytestmark = pytest.mark.slow

Plant = Callable[[dict[str, Any]], None]


def side(
    line: str,
    figures: Callable[[str], dict[str, Any]] | None = None,
    *,
    plant: Plant | None = None,
    number: int = 1,
) -> ComparedRelease:
    """A release whose coins show these figures, judged by the real gates under the baseline policy."""
    return ComparedRelease(
        release=number,
        line=line,
        state="awaiting_approval",
        policy=1,
        interval_seconds=3600,
        is_simulated=False,
        launched_by="olivia",
        launched_at="2026-11-22T08:00:00Z",
        coins={coin: judged(coin, figures, plant) for coin in scenarios.COINS},
    )


def judged(
    coin: str, figures: Callable[[str], dict[str, Any]] | None, plant: Plant | None = None
) -> ComparedCoin:
    if figures is None:
        return ComparedCoin(coin)
    measured = deepcopy(figures(coin))
    if plant:
        plant(measured)
    outcomes = evaluate(measured, BASELINE_POLICY, coin=coin)
    by_gate = {outcome.gate: outcome for outcome in outcomes}
    return ComparedCoin(
        coin, measured, BASELINE_POLICY, by_gate, get_overall_verdict(outcomes), 1, "sha256:x"
    )


def certain(found: dict[str, Any]) -> None:
    found["confidence"]["shares_over"] = dict.fromkeys(found["confidence"]["shares_over"], 1.0)


def always_down(found: dict[str, Any]) -> None:
    found["shares"] = {"down": 0.99, "neutral": 0.01, "up": 0.0}


def exploded(found: dict[str, Any]) -> None:
    found["logits"] |= {"least": -16946.0, "greatest": 52717.0}


def unscaled(found: dict[str, Any]) -> None:
    found["scaler"] |= {"present": False, "count": 0, "in_graph": False}


def crashing(found: dict[str, Any]) -> None:
    found["single_sample"] |= {
        "runs": False,
        "largest_difference": None,
        "largest_excess": None,
        "problem": "Expected more than 1 value per channel",
    }


PLANTED = {
    1: (certain, "100.0 %"),
    2: (always_down, "Down 99.0 %"),
    3: (exploded, "−16,946 … +52,717"),
    4: (unscaled, "no scaler"),
    5: (crashing, "does not run"),
}


@pytest.mark.parametrize("number", PLANTED, ids=lambda number: FAILURES[number - 1].name)
def test_each_of_the_five_failures_is_shown_next_to_a_release_without_it(number: int) -> None:
    plant, figure = PLANTED[number]
    found = compare(side("v7_fixed", healthy, number=2), side("v6_enhanced", healthy, plant=plant))
    answers = {answer.failure.number: answer for answer in found.failures}
    planted = answers.pop(number)
    assert planted.answer == Answer.FIXED
    assert {check.figure for check in planted.before} == {figure}
    assert {check.verdict for check in planted.before} == {"failed"}
    assert {check.verdict for check in planted.after} == {"passed"}
    assert planted.sentence.startswith("v6_enhanced failed") and "for BTC, ETH and SOL" in planted.sentence
    assert {answer.answer for answer in answers.values()} == {Answer.HOLDS}
    assert found.headline.startswith(f"Of the five V6 failures one is fixed ({number})")


@pytest.mark.parametrize("number", PLANTED, ids=lambda number: FAILURES[number - 1].name)
def test_a_failure_that_is_still_there_is_not_fixed_and_the_gate_says_why(number: int) -> None:
    plant, _ = PLANTED[number]
    found = compare(side("v7_fixed", healthy, plant=plant), side("v6_enhanced", collapsed))
    answer = found.failures[number - 1]
    assert answer.answer == Answer.NOT_FIXED
    gate = FAILURES[number - 1].gate
    assert found.after.coins["BTC"].outcomes[gate].sentence in answer.sentence
    assert f"Not passed: {gate.replace('_', ' ')} for BTC, ETH and SOL" in found.summary


def test_all_five_planted_at_once_and_all_five_mended() -> None:
    def everything(found: dict[str, Any]) -> None:
        for plant, _ in PLANTED.values():
            plant(found)

    found = compare(side("v7_fixed", healthy), side("v6_enhanced", healthy, plant=everything))
    assert found.headline == "All five of the V6 failures are fixed."
    assert found.summary == "v7_fixed passes 24 of 24 required gates."


def test_a_failure_in_one_coin_alone_is_a_failure() -> None:
    after = side("v7_fixed", healthy)
    broken = {**after.coins, "SOL": judged("SOL", healthy, exploded)}
    found = compare(ComparedRelease(**{**vars(after), "coins": broken}), side("v6_enhanced", collapsed))
    assert found.failures[2].answer == Answer.NOT_FIXED
    assert "for SOL." in found.failures[2].sentence


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"is_simulated": True}, "One release was measured on simulated candles and the other on real ones."),
        (
            {"interval_seconds": 14_400},
            "v7_fixed (release 1) has bars of 4 hours, and v6_enhanced (release 1) bars of 1 hour.",
        ),
    ],
    ids=["simulated against real", "another bar interval"],
)
def test_what_cannot_be_compared_is_warned_of(changes: dict[str, Any], warning: str) -> None:
    after, before = side("v7_fixed", healthy), side("v6_enhanced", collapsed)
    assert "WARNING" not in format_report(compare(after, before))
    assert compare(after, None).warnings == compare(after, before).warnings == []
    mixed = compare(ComparedRelease(**{**vars(after), **changes}), before)
    warning = f"{warning} Their figures cannot be compared."
    assert f"WARNING: {warning}" in " ".join(format_report(mixed).split())
    assert ReleaseReport.Output(mixed).data["warnings"] == [warning]
    assert f'<p class="notice warning small-gap">{warning}</p>' in render_standalone(mixed, at=timezone.now())


def test_what_was_not_measured_is_not_known() -> None:
    found = compare(side("v7_fixed"), side("v6_enhanced", collapsed))
    assert {answer.answer for answer in found.failures} == {Answer.NOT_KNOWN}
    assert found.summary == "v7_fixed has not been judged."
    assert found.headline == "Of the five V6 failures all five are not known to be fixed (1, 2, 3, 4 and 5)."


def test_the_summary_names_a_coin_that_was_not_judged() -> None:
    after = side("v7_fixed", healthy)
    partly = {**after.coins, "SOL": ComparedCoin("SOL")}
    found = compare(ComparedRelease(**{**vars(after), "coins": partly}), None)
    assert found.summary == "v7_fixed passes 16 of 16 required gates. Not judged: SOL."


def test_a_gate_that_could_not_tell_leaves_it_open_and_says_why() -> None:
    def unknown(found: dict[str, Any]) -> None:
        found["single_sample"] |= {"rows": 10, "windows_compared": 10}

    found = compare(side("v7_fixed", healthy, plant=unknown), side("v6_enhanced", collapsed))
    assert found.failures[4].answer == Answer.NOT_KNOWN
    assert "Only 10 single rows of BTC were compared" in found.failures[4].sentence


def test_a_failure_the_other_was_never_measured_for_is_not_called_fixed() -> None:
    found = compare(side("v7_fixed", healthy), side("v6_enhanced"))
    assert {answer.answer for answer in found.failures} == {Answer.HOLDS}
    assert "v6_enhanced was not measured to the end" in found.failures[0].sentence


def test_without_another_release_the_report_stands_by_itself() -> None:
    found = compare(side("v7_fixed", healthy), None)
    assert found.before is None and {answer.answer for answer in found.failures} == {Answer.HOLDS}
    assert all(cell.before is None for row in found.gates for cell in row.cells)


def test_what_stands_against_a_release_comes_first_with_a_sentence_of_both() -> None:
    found = compare(side("v7_fixed", inaccurate), side("v6_enhanced", collapsed))
    assert [row.gate for row in found.gates if row.is_problem] == [found.gates[0].gate] == ["accuracy"]
    assert found.gates[0].sentence == (
        "v7_fixed does not pass for BTC, ETH and SOL; v6_enhanced does not pass for BTC, ETH and SOL."
    )
    balance = next(row for row in found.gates if row.gate == "class_balance")
    assert (
        balance.sentence == "v7_fixed passes for every coin; v6_enhanced does not pass for BTC, ETH and SOL."
    )


def test_two_releases_of_one_line_are_told_apart_in_every_sentence() -> None:
    found = compare(side("v7_fixed", inaccurate, number=4), side("v7_fixed", healthy, number=3))
    accuracy = next(row for row in found.gates if row.gate == "accuracy")
    assert accuracy.sentence == (
        "Release 4 (v7_fixed) does not pass for BTC, ETH and SOL; release 3 (v7_fixed) passes for every coin."
    )
    assert found.summary.startswith("Release 4 (v7_fixed) passes")
    for answer in found.failures:
        assert answer.sentence.startswith("Release 4 (v7_fixed) passes")
        assert "release 3 (v7_fixed) passed it too, as its files are measured here." in answer.sentence


def test_a_report_says_where_its_policy_is_weaker_than_the_baseline() -> None:
    def loose(coin: str) -> ComparedCoin:
        policy = deepcopy(dict(BASELINE_POLICY))
        policy["gates"]["accuracy"]["above"] = 0.3
        return ComparedCoin(coin, policy=policy)

    after = side("v7_fixed", inaccurate)
    found = compare(
        ComparedRelease(**{**vars(after), "coins": {coin: loose(coin) for coin in scenarios.COINS}}), None
    )
    assert found.weaker_than_baseline == ["accuracy: above is 0.3 instead of 0.65 (looser)"]
    assert compare(after, None).weaker_than_baseline == []


class TestSkill:
    @staticmethod
    def with_skill(difference: float, lower: float, upper: float) -> dict[str, Any]:
        found = inaccurate("BTC")
        apart = {"difference": difference, "lower": lower, "upper": upper}
        found["skill"] = {
            "rows": 7_104,
            "accuracy": 0.391,
            "naive": {"majority": {"accuracy": 0.351, **apart}, "last_move": {"accuracy": 0.33, **apart}},
            "baseline": {"accuracy": 0.38, "difference": 0.011, "lower": -0.004, "upper": 0.026},
        }
        return found

    def test_some_skill_is_told_with_its_interval_and_why_it_is_not_enough(self) -> None:
        skill = describe_skill("BTC", self.with_skill(0.04, 0.02, 0.06), BASELINE_POLICY)
        assert skill.sentence == (
            "BTC is right in 39.1 % of 1,500 bars (95 % interval 37.9 % – 40.4 %). Always the most "
            "frequent direction is right in 35.1 %: +4.0 points (+2.0 … +6.0) better, so there is skill beyond luck. "
            "Against v5 on the same bars it is +1.1 points (−0.4 … +2.6). It is not enough: more than 65 % is "
            "required, 27.1 points above its lower bound."
        )

    def test_v5_is_not_held_against_itself(self) -> None:
        found = self.with_skill(0.04, 0.02, 0.06)
        found["skill"]["baseline"] |= {"is_itself": True, "difference": 0.0}
        skill = describe_skill("BTC", found, BASELINE_POLICY)
        assert (skill.is_baseline, skill.baseline) == (True, None)
        assert "It is v5 itself, with which the others are compared." in skill.sentence
        assert "on the same bars" not in skill.sentence

    @pytest.mark.parametrize(
        ("figures", "sentence"),
        [
            ((0.004, -0.01, 0.02), "no skill is shown"),
            ((-0.05, -0.08, -0.02), "worse than a naive forecaster"),
        ],
        ids=["an interval that contains 0", "below the naive"],
    )
    def test_no_skill_is_told_as_plainly(self, figures: tuple[float, float, float], sentence: str) -> None:
        assert sentence in describe_skill("BTC", self.with_skill(*figures), BASELINE_POLICY).sentence

    def test_an_older_measuring_without_differences_says_so(self) -> None:
        older = {name: section for name, section in inaccurate("BTC").items() if name != "skill"}
        sentence = describe_skill("BTC", older, BASELINE_POLICY).sentence
        assert (
            "The last move again is right in 40.0 %; the confidence in the difference was not measured."
            in sentence
        )

    def test_an_accuracy_that_luck_may_explain_is_told_so(self) -> None:
        found = healthy("BTC")
        found["accuracy"] |= {"point": 0.662, "lower": 0.641, "upper": 0.683}
        assert (
            "0.9 points short, so luck may explain it"
            in describe_skill("BTC", found, BASELINE_POLICY).sentence
        )

    def test_nothing_measured_is_nothing_known(self) -> None:
        assert "its skill is not known" in describe_skill("BTC", {}, {}).sentence


def test_pictures_of_both_stand_on_axes_of_one_length() -> None:
    def wide(found: dict[str, Any]) -> None:
        found["logits"] = {
            "least": -16946.0,
            "greatest": 52717.0,
            "histogram": {"edges": [-16946.0, -10.0, 10.0, 52717.0], "counts": [30, 10, 60]},
        }

    found = compare(side("v7_fixed", healthy), side("v6_enhanced", healthy, plant=wide))
    drawn = draw_charts(found, "BTC")
    assert {name.partition("-")[0] for name in drawn} == {"before", "after"}
    for kind in ("logits", "confidence", "shares", "reliability"):
        before, after = drawn[f"before-{kind}"]["layout"], drawn[f"after-{kind}"]["layout"]
        for axis in ("xaxis", "yaxis"):
            assert before[axis].get("range") == after[axis].get("range"), (kind, axis)
    assert "1k" in drawn["after-logits"]["layout"]["xaxis"]["ticktext"]


@pytest.fixture
def v7(db: None) -> Release:
    """V6 inherited, V5 registered, a V7 that passed."""
    scenarios.service_in_use()
    return scenarios.awaiting_approval()


class TestStored:
    def test_it_is_held_against_what_the_bots_ran_when_it_was_launched(self, v7: Release) -> None:
        found = compare_releases(v7)
        assert found.before and (found.after.line, found.before.line) == ("v7_fixed", "v6_enhanced")
        assert [answer.answer for answer in found.failures] == [Answer.FIXED] * 4 + [Answer.HOLDS]

    def test_not_against_what_a_pin_held_them_on(self, v7: Release) -> None:
        decide.pin(actor=scenarios.APPROVER, reason="it trades oddly")
        later = scenarios.awaiting_approval(seed=9)
        opponent = find_previous_release(later)
        assert opponent and opponent.line == "v6_enhanced"

    def test_what_was_inherited_is_held_against_the_fallback(self, v7: Release) -> None:
        inherited = Release.objects.get(line="v6_enhanced")
        found = compare_releases(inherited)
        assert found.before and found.before.line == "v5"

    def test_any_release_against_any_other(self, v7: Release) -> None:
        v5 = Release.objects.get(line="v5")
        found = compare_releases(v7, v5.pk)
        assert found.before and found.before.release == v5.pk

    def test_not_against_itself_nor_what_is_not_there(self, v7: Release) -> None:
        with pytest.raises(InvalidInput, match="not with itself"):
            compare_releases(v7, v7.pk)
        with pytest.raises(NotFound, match="no release 99"):
            compare_releases(v7, 99)

    def test_the_document_is_ready_for_json_and_says_what_the_page_says(self, v7: Release) -> None:
        found = compare_releases(v7)
        answer = json.loads(json.dumps(ReleaseReport.Output(found).data, allow_nan=False))
        assert (answer["headline"], answer["summary"]) == (found.headline, found.summary)
        assert answer["failures"][0]["before"][0] == {
            "coin": "BTC",
            "figure": "100.0 %",
            "verdict": "failed",
            "sentence": "BTC's confidence is above 90 % in 100.0 % of its predictions; less than 80 % is allowed.",
        }
        assert answer["skill"][0]["accuracy"] == {"point": 0.739, "lower": 0.721, "upper": 0.756}


class TestCommand:
    def test_says_it_on_a_terminal(self, v7: Release) -> None:
        status, said = run("report", str(v7.pk))
        assert status == 0
        assert "four are fixed (1, 2, 3 and 4)" in said
        assert "BTC ✗ −12,527 … +9,301" in said
        assert "counts: predictions more than 99 % sure" in said
        assert max(map(len, said.splitlines())) <= 110

    def test_gives_json_of_the_release_that_was_asked_for(self, v7: Release) -> None:
        v5 = Release.objects.get(line="v5")
        answer = json.loads(run("report", str(v7.pk), "--against", str(v5.pk), "--json")[1])
        assert (answer["release"]["line"], answer["against"]["line"]) == ("v7_fixed", "v5")

    def test_writes_one_file_that_loads_nothing(self, v7: Release, tmp_path: Path) -> None:
        path = tmp_path / "report.html"
        status, said = run("report", str(v7.pk), "--html", str(path))
        content = path.read_text()
        assert status == 0 and f"{path.stat().st_size:,} bytes" in said
        assert path.stat().st_size < 6_500_000
        assert "default-src 'none'" in content
        shown = content[: content.index("<script>")]  # what comes before the scripts is the page itself
        assert not any(word in shown for word in (" src=", " href=", "url(", "http:", "https:"))

    def test_refuses_what_is_not_there(self, v7: Release, tmp_path: Path) -> None:
        assert run("report", "99")[0] == 1
        assert run("report", str(v7.pk), "--against", "99")[0] == 1
        status, said = run("report", str(v7.pk), "--html", str(tmp_path / "nowhere" / "report.html"))
        assert status == 1 and "cannot be written" in said
