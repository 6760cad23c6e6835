"""Proposing and adopting a policy over the API: the same rules as on the page."""

from typing import Any

import pytest

from accounts.models import User
from audit.models import AuditEvent
from gates.models import GatePolicy
from gates.policy import DRAFTS
from gates.services.policies import policy_in_force
from tests.api.callers import Caller, assert_problem, with_token

pytestmark = pytest.mark.django_db


def changed(gate: str, **entry: Any) -> dict[str, Any]:
    document: dict[str, Any] = policy_in_force().document
    document["gates"][gate].update(entry)
    return document


def propose(caller: Caller, document: Any, reason: str = "a calm market") -> Any:
    return caller.post("policies/", {"document": document, "reason": reason})


def test_a_proposal_says_what_differs_and_decides_nothing(as_approver: Caller) -> None:
    before = policy_in_force()
    response = propose(as_approver, changed("accuracy", above=0.6))
    answer = response.json()
    assert response.status_code == 201
    assert response["Location"] == f"/api/v1/policies/{answer['number']}/"
    assert answer["predecessor"] == before.number
    assert answer["differences"] == [
        {
            "gate": "accuracy",
            "parameter": "above",
            "before": 0.65,
            "after": 0.6,
            "direction": "looser",
            "sentence": "accuracy: above is 0.6 instead of 0.65 (looser)",
        }
    ]
    assert answer["weaker_than_baseline"] == ["accuracy: above is 0.6 instead of 0.65 (looser)"]
    assert answer["adoptions"] == [] and policy_in_force() == before
    assert as_approver.get(response["Location"]).json() == answer


def test_another_approver_puts_it_in_force_and_every_bot_is_told(
    as_approver: Caller, second_approver: User
) -> None:
    number = propose(as_approver, changed("accuracy", above=0.6)).json()["number"]
    alone = as_approver.post(f"policies/{number}/adopt/", {"reason": "mine"})
    assert_problem(alone, 403, "it takes another person to adopt it")
    adopted = with_token(second_approver, "approver").post(
        f"policies/{number}/adopt/", {"reason": "for a week"}
    )
    assert [entry["adopted_by"] for entry in adopted.json()["adoptions"]] == ["arthur"]
    assert policy_in_force().number == number
    assert AuditEvent.objects.get(kind="gatepolicy.adopted", actor="arthur").reason == "for a week"


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"format": 1, "gates": {}}, "it names no gate"),
        ({"format": 2, "gates": {}}, "of format 1"),
        ({"gates": {"accuracy": {"required": True}}}, "above is missing"),
        ({"gates": {"luck": {"required": True}}}, "there is no gate 'luck'"),
        ({"gates": {}, "note": "x"}, "no field note"),
    ],
)
def test_what_is_no_policy_is_refused_with_all_that_is_wrong(
    document: Any, says: str, as_approver: Caller
) -> None:
    before = GatePolicy.objects.count()
    problem = assert_problem(propose(as_approver, document), 400, says)
    assert "document" in problem["errors"]
    assert GatePolicy.objects.count() == before


def test_a_gate_of_the_plan_cannot_be_made_advice(as_approver: Caller) -> None:
    assert_problem(propose(as_approver, changed("accuracy", required=False)), 400, "must be required")


def test_what_is_in_force_is_no_proposal(as_approver: Caller) -> None:
    assert_problem(propose(as_approver, policy_in_force().document), 409, "which is in force")


def test_a_policy_that_is_not_there_cannot_be_read_nor_adopted(as_approver: Caller) -> None:
    assert_problem(as_approver.get("policies/99/"), 404)
    assert_problem(as_approver.post("policies/99/adopt/", {"reason": "x"}), 404, "no policy 99")


def test_an_older_one_cannot_come_back(as_approver: Caller) -> None:
    assert_problem(
        as_approver.post("policies/1/adopt/", {"reason": "back"}), 409, "only a newer policy can replace it"
    )


def test_a_draft_is_listed_with_its_reasons_and_proposed_by_its_name(as_approver: Caller) -> None:
    (draft,) = as_approver.get("policies/drafts/").json()["drafts"]
    known = DRAFTS["real-markets"]
    assert (draft["name"], draft["document"]) == (known.name, known.document)
    assert {
        f"{change['gate']}.{change['parameter']}": change["why"] for change in draft["changes"]
    } == known.reasons
    assert "accuracy: above is 0.33 instead of 0.65 (looser)" in draft["weaker_than_baseline"]
    answer = as_approver.post("policies/", {"draft": "real-markets", "reason": "a real market"})
    assert answer.status_code == 201 and answer.json()["document"] == known.document
    assert policy_in_force().number == 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "Give either a document"),
        ({"document": {"gates": {}}, "draft": "real-markets"}, "Give either a document"),
        ({"draft": "no-gates"}, "'no-gates' is not one of real-markets"),
    ],
    ids=["neither", "both", "a draft there is not"],
)
def test_a_proposal_is_a_document_or_a_draft(as_approver: Caller, body: dict[str, Any], says: str) -> None:
    assert_problem(as_approver.post("policies/", {**body, "reason": "why"}), 400, says)
