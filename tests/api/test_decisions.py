"""Launching and deciding over the API: it works, or it is refused with its own message and nothing moved."""

import json
from typing import Any

import pytest

from accounts import services as accounts
from accounts.models import User
from accounts.roles import Role
from audit.models import AuditEvent
from deploy.models import FallbackRegistration, PointerMove, Release
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.rules import Purpose
from tests import scenarios
from tests.api.callers import Caller, assert_problem, with_token
from tests.api.operations import queued_run
from training.models import TrainingRun
from training.rules import JobState

pytestmark = pytest.mark.django_db

WHY = {"reason": "figures checked"}


def revision() -> int:
    now = pointer.get_current()
    assert now is not None
    return now.revision


def with_candles() -> dict[str, int]:
    return {coin.symbol: scenarios.dataset(coin).pk for coin in scenarios.coins()}


class TestLaunching:
    def test_a_line_alone_launches_its_recipe_on_the_newest_candles(self, as_operator: Caller) -> None:
        newest = with_candles()
        response = as_operator.post("releases/", {"line": "v7_fixed"})
        assert response.status_code == 201
        answer = response.json()
        assert response["Location"] == f"/api/v1/releases/{answer['id']}/"
        assert (answer["state"], answer["launched_by"], answer["parameters"]) == ("building", "olivia", {})
        assert {coin["coin"]: coin["dataset"] for coin in answer["coins"]} == newest

    def test_what_is_asked_to_differ_is_kept_with_the_release(self, as_operator: Caller) -> None:
        ids = with_candles()
        older = scenarios.dataset(scenarios.coins()[0], name="older").pk
        asked = {
            "epochs": 20,
            "batch_size": 256,
            "learning_rate": 0.002,
            "patience": 5,
            "label_smoothing": 0.1,
        }
        body = {"line": "v7_fixed", **asked, "seed": 7, "datasets": {"BTC": older}}
        answer = as_operator.post("releases/", body).json()
        assert (answer["parameters"], answer["seed"]) == (asked, 7)
        assert {coin["coin"]: coin["dataset"] for coin in answer["coins"]} == {**ids, "BTC": older}

    def test_what_it_sees_predicts_and_is_judged_on_is_kept_with_the_release(
        self, as_operator: Caller
    ) -> None:
        with_candles()
        asked = {
            "input": "window64",
            "horizon": 24,
            "label": "barriers",
            "cut": 1.5,
            "class_weights": "equal",
            "hidden_widths": "64-32-16",
            "fit_percent": 60,
            "stop_percent": 20,
        }
        assert as_operator.post("releases/", {"line": "v7_fixed", **asked}).json()["parameters"] == asked

    def test_a_fallback_is_launched_by_its_purpose(self, as_operator: Caller) -> None:
        with_candles()
        assert (
            as_operator.post("releases/", {"line": "v5", "purpose": "fallback"}).json()["purpose"]
            == "fallback"
        )

    @pytest.mark.parametrize(
        ("body", "name"),
        [
            ({}, "line"),
            ({"line": "v8"}, "line"),
            ({"line": 7}, "line"),
            ({"line": "v7_fixed", "epochs": 0}, "epochs"),
            ({"line": "v7_fixed", "epochs": 51}, "epochs"),
            ({"line": "v7_fixed", "epochs": "20"}, "epochs"),
            ({"line": "v7_fixed", "epochs": 20.5}, "epochs"),
            ({"line": "v7_fixed", "epochs": True}, "epochs"),
            ({"line": "v7_fixed", "epochs": None}, "epochs"),
            ({"line": "v7_fixed", "batch_size": 8}, "batch_size"),
            ({"line": "v7_fixed", "learning_rate": "nan"}, "learning_rate"),
            ({"line": "v7_fixed", "learning_rate": 1}, "learning_rate"),
            ({"line": "v5", "epochs": 20}, "epochs"),
            ({"line": "v5", "horizon": 24}, "horizon"),
            ({"line": "v7_fixed", "horizon": 97}, "horizon"),
            ({"line": "v7_fixed", "input": "window8"}, "input"),
            ({"line": "v7_fixed", "input": "window4096"}, "input"),
            ({"line": "v7_fixed", "label": "percent"}, "cut"),
            ({"line": "v7_fixed", "cut": 1.0}, "cut"),
            ({"line": "v7_fixed", "class_weights": "none"}, "class_weights"),
            ({"line": "v7_fixed", "hidden_widths": "1-2-3"}, "hidden_widths"),
            ({"line": "v7_fixed", "fit_percent": 80}, "stop_percent"),
            ({"line": "v7_fixed", "seed": -1}, "seed"),
            ({"line": "v7_fixed", "seed": 2**31}, "seed"),
            ({"line": "v7_fixed", "revision": 20}, "revision"),
            ({"line": "v7_fixed", "datasets": {"BTC": 999}}, "datasets"),
            ({"line": "v7_fixed", "datasets": {"BTC": 2**63}}, "datasets.BTC"),
            ({"line": "v7_fixed", "datasets": {"DOGE": 1}}, "datasets"),
            ({"line": "v7_fixed", "datasets": {"BTC": "1"}}, "datasets.BTC"),
            ({"line": "v7_fixed", "datasets": [1, 2, 3]}, "datasets"),
            ({"line": "v7_fixed", "purpose": "inherited"}, "purpose"),
            (["v7_fixed"], "body"),
        ],
        ids=lambda value: json.dumps(value)[:60],
    )
    def test_what_cannot_be_launched_is_refused_by_its_name(
        self, body: Any, name: str, as_operator: Caller
    ) -> None:
        with_candles()
        assert name in assert_problem(as_operator.post("releases/", body), 400)["errors"]
        assert not Release.objects.exists()

    def test_a_datasets_coin_must_be_the_one_it_is_named_for(self, as_operator: Caller) -> None:
        ids = with_candles()
        body = {"line": "v7_fixed", "datasets": {"BTC": ids["ETH"]}}
        assert_problem(as_operator.post("releases/", body), 400, "ETH's candles, not BTC's")

    def test_a_coin_without_candles_is_named(self, as_operator: Caller) -> None:
        scenarios.coins()
        assert_problem(as_operator.post("releases/", {"line": "v7_fixed"}), 400, "BTC has no candles")

    def test_a_line_that_there_is_not_is_refused_with_those_there_are(self, as_operator: Caller) -> None:
        refused = assert_problem(as_operator.post("releases/", {"line": "v9"}), 400)
        assert refused["errors"]["line"] == ["There is no line 'v9'; choose v7_fixed, v5, v6_enhanced, flat."]


class TestRuns:
    def test_a_queued_run_is_cancelled_at_once_and_says_by_whom(self, as_operator: Caller) -> None:
        run = queued_run()
        answer = as_operator.post(f"runs/{run.pk}/cancel/", {"reason": "wrong dataset"}).json()
        assert (answer["state"], "olivia: wrong dataset" in answer["failure"]) == ("cancelled", True)

    def test_a_run_that_ended_cannot_be_cancelled(self, as_operator: Caller) -> None:
        run = queued_run()
        TrainingRun.objects.update(state=JobState.SUCCEEDED)
        assert_problem(as_operator.post(f"runs/{run.pk}/cancel/", WHY), 409, "has already ended")

    def test_a_failed_run_is_launched_again_with_changes(self, as_operator: Caller) -> None:
        run = queued_run()
        TrainingRun.objects.update(state=JobState.FAILED)
        response = as_operator.post(f"runs/{run.pk}/relaunch/", {"batch_size": 32, "seed": 9})
        answer = response.json()
        assert (response.status_code, response["Location"]) == (201, f"/api/v1/runs/{answer['id']}/")
        assert (answer["parameters"], answer["seed"]) == ({"epochs": 5, "batch_size": 32}, 9)

    def test_a_run_under_way_is_not_launched_again(self, as_operator: Caller) -> None:
        assert_problem(
            as_operator.post(f"runs/{queued_run().pk}/relaunch/", {}), 409, "only a run that failed"
        )


class TestApproving:
    def test_an_approval_moves_the_pointer_and_answers_the_move(
        self, as_approver: Caller, bot: Caller
    ) -> None:
        scenarios.service_in_use()
        release = scenarios.awaiting_approval()
        answer = as_approver.post(f"releases/{release.pk}/approve/", {**WHY, "revision": 1}).json()
        assert (answer["revision"], answer["kind"], answer["release"]) == (2, "swap", release.pk)
        assert (answer["moved_by"], answer["reason"], answer["policy"]) == ("anna", "figures checked", 2)
        assert bot.get("active/").json()["line"] == "v7_fixed"

    def test_an_approval_of_what_moved_since_is_a_conflict(self, as_approver: Caller) -> None:
        scenarios.service_in_use()
        release = scenarios.awaiting_approval()
        decide.pin(actor=scenarios.SECOND_APPROVER, reason="looks wrong")
        response = as_approver.post(f"releases/{release.pk}/approve/", {**WHY, "revision": 1})
        assert_problem(response, 409, "you saw revision 1, it is 2 (looks wrong)")
        assert revision() == 2

    def test_the_second_of_two_equal_approvals_is_a_conflict(self, as_approver: Caller) -> None:
        scenarios.service_in_use()
        release = scenarios.awaiting_approval()
        path, body = f"releases/{release.pk}/approve/", {**WHY, "revision": 1}
        assert as_approver.post(path, body).status_code == 200
        assert_problem(as_approver.post(path, body), 409)
        assert revision() == 2

    def test_nobody_approves_what_they_launched(self, approver: User, as_approver: Caller) -> None:
        accounts.grant(approver, Role.OPERATOR, actor="the tests")
        scenarios.service_in_use()
        with_candles()
        launched = with_token(approver, "operator").post("releases/", {"line": "v7_fixed"}).json()["id"]
        response = as_approver.post(f"releases/{launched}/approve/", {**WHY, "revision": 1})
        assert_problem(response, 403, "anna launched")
        assert AuditEvent.objects.filter(kind="release.approve.refused", actor="anna").exists()

    def test_a_release_with_one_changed_byte_is_not_approved(self, as_approver: Caller) -> None:
        scenarios.service_in_use()
        release = scenarios.awaiting_approval()
        scenarios.damage(release)
        response = as_approver.post(f"releases/{release.pk}/approve/", {**WHY, "revision": 1})
        assert_problem(response, 409, "SOL model.onnx")
        assert revision() == 1

    def test_a_rejected_release_says_why_it_cannot_be_approved(self, as_approver: Caller) -> None:
        scenarios.service_in_use()
        release = scenarios.Build(figures=scenarios.for_every_coin(scenarios.inaccurate)).settled()
        response = as_approver.post(f"releases/{release.pk}/approve/", {**WHY, "revision": revision()})
        assert_problem(response, 409, "rejected", "accuracy")

    @pytest.mark.parametrize(
        ("body", "name"),
        [
            ({"reason": "fine"}, "revision"),
            ({"revision": 1}, "reason"),
            ({"revision": 1, "reason": "  \n "}, "reason"),
            ({"revision": 1, "reason": "x" * 1001}, "reason"),
            ({"revision": 1, "reason": 5}, "reason"),
            ({"revision": 1, "reason": "a\u0000b"}, "reason"),
            ({"revision": "1", "reason": "fine"}, "revision"),
            ({"revision": 0, "reason": "fine"}, "revision"),
            ({"revision": 2**63, "reason": "fine"}, "revision"),
            ({"revision": 1, "reason": "fine", "force": True}, "force"),
        ],
        ids=lambda value: json.dumps(value)[:50],
    )
    def test_it_takes_a_reason_and_the_revision_that_was_seen(
        self, body: Any, name: str, as_approver: Caller
    ) -> None:
        for decision in ("approve", "restore"):
            response = as_approver.post(f"releases/1/{decision}/", body)
            assert name in assert_problem(response, 400)["errors"]

    def test_the_other_decisions_take_a_reason_and_nothing_else(self, as_approver: Caller) -> None:
        for path in ("releases/1/decline/", "releases/1/cancel/", "releases/1/register/", "pointer/pin/"):
            for body, name in (
                ({}, "reason"),
                ({"reason": " "}, "reason"),
                ({**WHY, "revision": 1}, "revision"),
            ):
                assert name in assert_problem(as_approver.post(path, body), 400)["errors"]


class TestOtherDecisions:
    def test_declining_sends_the_bots_to_the_fallback(self, as_approver: Caller, bot: Caller) -> None:
        scenarios.service_in_use()
        release = scenarios.awaiting_approval()
        answer = as_approver.post(f"releases/{release.pk}/decline/", {"reason": "too few trades"}).json()
        assert (answer["state"], answer["allowed_actions"]) == ("declined", [])
        assert bot.get("active/").json()["line"] == "v5"

    def test_restoring_brings_back_what_was_live(self, as_approver: Caller) -> None:
        scenarios.service_in_use()
        first, second = scenarios.awaiting_approval(1), scenarios.awaiting_approval(2)
        for seen, release in enumerate((first, second), start=1):
            decide.approve(release, actor=scenarios.APPROVER, reason="passed", revision=seen)
        answer = as_approver.post(f"releases/{first.pk}/restore/", {**WHY, "revision": 3}).json()
        assert (answer["revision"], answer["release"]) == (4, first.pk)

    def test_pinning_needs_no_revision_and_answers_the_move(self, as_approver: Caller) -> None:
        scenarios.service_in_use()
        answer = as_approver.post("pointer/pin/", {"reason": "odd predictions"}).json()
        assert (answer["revision"], answer["kind"], answer["line"]) == (2, "pin", "v5")

    def test_pinning_twice_is_a_conflict(self, as_approver: Caller) -> None:
        scenarios.service_in_use()
        assert as_approver.post("pointer/pin/", WHY).status_code == 200
        assert_problem(as_approver.post("pointer/pin/", WHY), 409, "already")
        assert revision() == 2

    def test_pinning_a_service_without_a_pointer_is_a_conflict(self, as_approver: Caller) -> None:
        assert_problem(as_approver.post("pointer/pin/", WHY), 409, "nothing to pin")
        assert not PointerMove.objects.exists()

    def test_cancelling_settles_the_release_at_once(self, as_operator: Caller) -> None:
        scenarios.service_in_use()
        release = scenarios.Build(seed=3).release()
        answer = as_operator.post(f"releases/{release.pk}/cancel/", {"reason": "wrong candles"}).json()
        assert (answer["state"], "olivia: wrong candles" in answer["reason"]) == ("rejected", True)

    def test_a_standby_release_becomes_the_fallback(self, as_approver: Caller) -> None:
        release = scenarios.Build(line="v5", purpose=Purpose.FALLBACK, seed=9).settled()
        answer = as_approver.post(f"releases/{release.pk}/register/", WHY).json()
        assert answer["id"] == release.pk
        assert FallbackRegistration.objects.get().registered_by == "anna"

    def test_no_decision_is_taken_on_a_release_that_is_not_there(self, as_approver: Caller) -> None:
        for decision in ("approve", "decline", "restore", "cancel", "register"):
            body = {**WHY, "revision": 1} if decision in ("approve", "restore") else WHY
            assert_problem(as_approver.post(f"releases/99/{decision}/", body), 404, "There is no release 99")

    def test_a_release_that_is_being_built_is_not_decided_on(self, as_approver: Caller) -> None:
        scenarios.service_in_use()
        release = scenarios.Build(seed=4).release()
        for decision in ("approve", "decline", "restore", "register"):
            body = {**WHY, "revision": 1} if decision in ("approve", "restore") else WHY
            assert_problem(as_approver.post(f"releases/{release.pk}/{decision}/", body), 409, "is building")
        assert revision() == 1
