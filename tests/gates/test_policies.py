"""A policy is a numbered row that two people put in force."""

from copy import deepcopy
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from accounts.rules import Actor
from audit.errors import Conflict, DomainError, InvalidInput, NotAllowed, Unavailable
from audit.models import AuditEvent
from audit.services import verify
from gates import services
from gates.models import GatePolicy, PolicyAdoption
from gates.rules import SEED_POLICY
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

ANNA = factories.actor("anna", "approver")
ARTHUR = factories.actor("arthur", "approver")
OLIVIA = factories.actor("olivia", "operator")


def seed_with(gate: str, **changes: Any) -> dict[str, Any]:
    document = deepcopy(dict(SEED_POLICY))
    document["gates"][gate].update(changes)
    return document


def proposed(above: float = 0.7) -> GatePolicy:
    return services.propose_policy(seed_with("accuracy", above=above), actor=ANNA, reason="more is needed")


def test_the_service_starts_under_the_seeds_own_thresholds() -> None:
    policy = services.policy_in_force()
    assert policy.number == 1
    assert policy.document == SEED_POLICY
    assert (policy.proposed_by, policy.adoptions.get().adopted_by) == ("the seed plan", "the seed plan")
    kinds = AuditEvent.objects.filter(actor="the seed plan").order_by("seq").values_list("kind", flat=True)
    assert list(kinds) == ["gatepolicy.proposed", "gatepolicy.adopted"]


def test_migrating_again_changes_nothing() -> None:
    events = AuditEvent.objects.count()
    services.ensure_seed_policy()
    assert (GatePolicy.objects.count(), PolicyAdoption.objects.count()) == (1, 1)
    assert AuditEvent.objects.count() == events


def test_a_proposal_gets_the_next_number_and_decides_nothing_yet() -> None:
    policy = proposed()
    assert (policy.number, policy.proposed_by) == (2, "anna")
    assert services.policy_in_force().number == 1
    event = AuditEvent.objects.get(kind="gatepolicy.proposed", actor="anna")
    assert (event.object_name, event.reason) == ("policy 2", "more is needed")


def test_a_second_approver_puts_it_in_force() -> None:
    policy = proposed()
    services.adopt_policy(policy, actor=ARTHUR, reason="agreed")
    assert services.policy_in_force() == policy
    assert AuditEvent.objects.get(kind="gatepolicy.adopted", actor="arthur").reason == "agreed"
    assert verify() == []


def test_a_loosened_threshold_is_named_in_the_events() -> None:
    policy = services.propose_policy(seed_with("accuracy", above=0.3), actor=ANNA, reason="to see")
    services.adopt_policy(policy, actor=ARTHUR, reason="for a week")
    for event in AuditEvent.objects.filter(object_id=str(policy.pk), object_type="gatepolicy"):
        assert "accuracy: above is 0.3; the seed's plan says 0.65." in event.body


PROPOSALS = [
    (OLIVIA, seed_with("accuracy", above=0.7), "why", NotAllowed, "approver role"),
    (ANNA, seed_with("accuracy", above=7), "why", InvalidInput, "above must lie between"),
    (ANNA, {"gates": {}}, "why", InvalidInput, "names no gate"),
    (ANNA, seed_with("accuracy", above=0.7), "  ", InvalidInput, "Say why"),
    (ANNA, dict(SEED_POLICY), "why", Conflict, "is what policy 1 says"),
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
        services.propose_policy(document, actor=actor, reason=reason)
    assert GatePolicy.objects.count() == 1
    assert AuditEvent.objects.get(kind="gatepolicy.proposal.refused").actor == str(actor)


@pytest.mark.parametrize(
    ("actor", "reason", "error", "says"),
    [
        (OLIVIA, "why", NotAllowed, "approver role"),
        (ANNA, "why", NotAllowed, "another approver must adopt"),
        (ARTHUR, "", InvalidInput, "Say why"),
    ],
    ids=["by an operator", "by who proposed it", "without a reason"],
)
def test_no_adoption(actor: Actor, reason: str, error: type[DomainError], says: str) -> None:
    policy = proposed()
    with pytest.raises(error, match=says):
        services.adopt_policy(policy, actor=actor, reason=reason)
    assert services.policy_in_force().number == 1
    assert AuditEvent.objects.get(kind="gatepolicy.adoption.refused").object_name == "policy 2"


def test_adopting_twice_or_an_older_one_is_refused() -> None:
    older, newer = proposed(0.7), proposed(0.8)
    services.adopt_policy(newer, actor=ARTHUR, reason="at once")
    for policy in (newer, older):
        with pytest.raises(Conflict, match="policy 3 is in force already"):
            services.adopt_policy(policy, actor=ARTHUR, reason="again")
    assert PolicyAdoption.objects.count() == 2


def test_there_is_no_policy_before_the_first_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    from audit import triggers

    triggers.drop()
    PolicyAdoption.objects.all().delete()
    triggers.install()
    with pytest.raises(Unavailable, match="migrate"):
        services.policy_in_force()


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
    assert services.policy_in_force().number == 1
