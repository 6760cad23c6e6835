"""A policy is a numbered row that two people put in force."""

import json
from copy import deepcopy
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from accounts.roles import Actor
from audit import triggers
from audit.models import AuditEvent
from audit.services import verify
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed, Unavailable
from gates.models import GatePolicy, PolicyAdoption
from gates.policy import BASELINE_POLICY, FULL_POLICY
from gates.services import policies
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

ANNA = factories.actor("anna", "approver")
ARTHUR = factories.actor("arthur", "approver")
OLIVIA = factories.actor("olivia", "operator")


def full_with(gate: str, **changes: Any) -> dict[str, Any]:
    document = deepcopy(dict(FULL_POLICY))
    document["gates"][gate].update(changes)
    return document


def proposed(above: float = 0.7) -> GatePolicy:
    return policies.propose_policy(full_with("accuracy", above=above), actor=ANNA, reason="more is needed")


def forget_policies() -> None:
    """As before the first migration."""
    triggers.drop()
    for model in (PolicyAdoption, GatePolicy):
        model.objects.all().delete()
    triggers.install()


def test_the_service_starts_with_the_baseline_then_the_full_policy() -> None:
    baseline, full = GatePolicy.objects.order_by("number")
    assert (baseline.number, baseline.document) == (1, BASELINE_POLICY)
    assert (baseline.proposed_by, baseline.adoptions.get().adopted_by) == ("the baseline", "the baseline")
    assert (full.number, full.document) == (2, FULL_POLICY)
    assert full.proposed_by != full.adoptions.get().adopted_by
    assert policies.policy_in_force() == full
    events = AuditEvent.objects.filter(object_type="gatepolicy").order_by("seq")
    assert [(event.object_name, event.kind) for event in events] == [
        ("policy 1", "gatepolicy.proposed"),
        ("policy 1", "gatepolicy.adopted"),
        ("policy 2", "gatepolicy.proposed"),
        ("policy 2", "gatepolicy.adopted"),
    ]


def test_migrating_again_changes_nothing() -> None:
    events = AuditEvent.objects.count()
    policies.ensure_own_policies()
    assert (GatePolicy.objects.count(), PolicyAdoption.objects.count()) == (2, 2)
    assert AuditEvent.objects.count() == events


def only_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of the time when there was the baseline policy alone."""
    forget_policies()
    with monkeypatch.context() as earlier:
        earlier.setattr(policies, "FULL_POLICY", BASELINE_POLICY)
        policies.ensure_own_policies()
    assert policies.policy_in_force().number == GatePolicy.objects.get().number == 1


def test_an_upgrade_adopts_every_gate_where_nobody_has_proposed_a_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only_the_baseline(monkeypatch)
    policies.ensure_own_policies()
    assert policies.policy_in_force().number == 2
    assert policies.policy_in_force().document == FULL_POLICY
    assert all("polic" in found for found in verify()), "the test deleted policies, and nothing else"


@pytest.mark.parametrize("is_adopted", [True, False], ids=["and adopted it", "and not yet adopted it"])
def test_an_upgrade_only_proposes_where_a_person_has_proposed_a_policy(
    monkeypatch: pytest.MonkeyPatch, is_adopted: bool
) -> None:
    only_the_baseline(monkeypatch)
    stricter = deepcopy(dict(BASELINE_POLICY))
    stricter["gates"]["accuracy"]["above"] = 0.7
    theirs = policies.propose_policy(stricter, actor=ANNA, reason="more is needed")
    if is_adopted:
        policies.adopt_policy(theirs, actor=ARTHUR, reason="agreed")
    before = policies.policy_in_force()
    policies.ensure_own_policies()
    policies.ensure_own_policies()
    assert policies.policy_in_force() == before
    offered = GatePolicy.objects.get(number=3)
    assert (offered.document, offered.adoptions.count()) == (FULL_POLICY, 0)
    policies.adopt_policy(offered, actor=ANNA, reason="every gate")
    assert policies.policy_in_force() == offered


def test_a_proposal_gets_the_next_number_and_decides_nothing_yet() -> None:
    policy = proposed()
    assert (policy.number, policy.proposed_by) == (3, "anna")
    assert policies.policy_in_force().number == 2
    event = AuditEvent.objects.get(kind="gatepolicy.proposed", actor="anna")
    assert (event.object_name, event.reason) == ("policy 3", "more is needed")


def test_a_second_approver_puts_it_in_force() -> None:
    policy = proposed()
    policies.adopt_policy(policy, actor=ARTHUR, reason="agreed")
    assert policies.policy_in_force() == policy
    assert AuditEvent.objects.get(kind="gatepolicy.adopted", actor="arthur").reason == "agreed"
    assert verify() == []


def test_a_threshold_below_the_baseline_is_named_in_the_events() -> None:
    policy = policies.propose_policy(full_with("accuracy", above=0.3), actor=ANNA, reason="to see")
    policies.adopt_policy(policy, actor=ARTHUR, reason="for a week")
    for event in AuditEvent.objects.filter(object_id=str(policy.pk), object_type="gatepolicy"):
        assert "accuracy: above is 0.3 instead of 0.65 (looser)" in event.body


def test_weaknesses_are_listed_for_baseline_and_full_policy() -> None:
    policies.propose_policy(full_with("skill", required=False), actor=ANNA, reason="to see")
    detail = json.loads(AuditEvent.objects.get(kind="gatepolicy.proposed", actor="anna").body)["detail"]
    assert (detail["weaker_than_baseline"], detail["weaker_than_full"]) == (
        [],
        ["skill: gate is advisory instead of required (looser)"],
    )


PROPOSALS = [
    (OLIVIA, full_with("accuracy", above=0.7), "why", NotAllowed, "approver role"),
    (ANNA, full_with("accuracy", above=7), "why", InvalidInput, "above must lie between"),
    (ANNA, {"gates": {}}, "why", InvalidInput, "names no gate"),
    (ANNA, full_with("accuracy", above=0.7), "  ", InvalidInput, "Give a reason"),
    (ANNA, dict(FULL_POLICY), "why", Conflict, "policy 2, which is in force, says the same"),
]


@pytest.mark.parametrize(
    ("actor", "document", "reason", "error", "says"),
    PROPOSALS,
    ids=["by an operator", "out of bounds", "empty", "without a reason", "of what is in force"],
)
def test_no_proposal(
    actor: Actor, document: dict[str, Any], reason: str, error: type[DomainError], says: str
) -> None:
    with pytest.raises(error, match=says):
        policies.propose_policy(document, actor=actor, reason=reason)
    assert GatePolicy.objects.count() == 2
    assert AuditEvent.objects.get(kind="gatepolicy.proposal.refused").actor == str(actor)


@pytest.mark.parametrize(
    ("actor", "reason", "error", "says"),
    [
        (OLIVIA, "why", NotAllowed, "approver role"),
        (ANNA, "why", NotAllowed, "another person to adopt"),
        (ARTHUR, "", InvalidInput, "Give a reason"),
    ],
    ids=["by an operator", "by who proposed it", "without a reason"],
)
def test_no_adoption(actor: Actor, reason: str, error: type[DomainError], says: str) -> None:
    policy = proposed()
    with pytest.raises(error, match=says):
        policies.adopt_policy(policy, actor=actor, reason=reason)
    assert policies.policy_in_force().number == 2
    assert AuditEvent.objects.get(kind="gatepolicy.adoption.refused").object_name == "policy 3"


def test_adopting_twice_or_an_older_one_is_refused() -> None:
    older, newer = proposed(0.7), proposed(0.8)
    policies.adopt_policy(newer, actor=ARTHUR, reason="at once")
    for policy in (newer, older):
        with pytest.raises(Conflict, match="policy 4 is in force; only a newer"):
            policies.adopt_policy(policy, actor=ARTHUR, reason="again")
    assert PolicyAdoption.objects.count() == 3


def test_there_is_no_policy_before_the_first_migration() -> None:
    forget_policies()
    with pytest.raises(Unavailable, match="migrate"):
        policies.policy_in_force()


@pytest.mark.parametrize(
    "forge",
    [
        lambda policy: PolicyAdoption.objects.create(policy=policy, adopted_by="anna", reason="alone"),
        lambda policy: PolicyAdoption.objects.create(
            policy=GatePolicy.objects.get(number=1), adopted_by="arthur", reason="back"
        ),
        lambda policy: GatePolicy.objects.filter(pk=policy.pk).update(body="{}"),
        lambda policy: policy.delete(),
        lambda policy: PolicyAdoption.objects.update(adopted_by="arthur"),
        lambda policy: PolicyAdoption.objects.all().delete(),
    ],
    ids=[
        "an adoption by who proposed it",
        "an adoption of an older policy",
        "another text of a policy",
        "a policy gone",
        "an adoption in another's name",
        "an adoption gone",
    ],
)
def test_the_database_refuses(forge: Any) -> None:
    policy = proposed()
    with pytest.raises(DatabaseError), transaction.atomic():
        forge(policy)
    assert policies.policy_in_force().number == 2
