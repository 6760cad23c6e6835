"""Policies: the two that come with the code, and those that two people put in force."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import Max

from accounts.decisions import FirstPerson, decision
from accounts.roles import Actor, Role
from audit import services as audit
from audit.hash_chain import to_canonical_json
from common.errors import Conflict, NotFound, Unavailable
from gates.models import GatePolicy, PolicyAdoption
from gates.policy import BASELINE_POLICY, FULL_POLICY, check_policy, find_draft
from gates.policy_changes import weaker_than_baseline, weaker_than_full

BASELINE_AUTHOR = "the baseline"
CATALOGUE_AUTHOR = "the gate catalogue"
FIRST_START = "the service's start"


@transaction.atomic
def ensure_own_policies() -> None:
    """Create the two policies that come with the code. Safe to repeat; called after every migration.

    Number 1, the baseline thresholds, is in force from the first migration on. The full policy, with every gate of the
    catalogue, is adopted at once where no person has proposed a policy yet. Where one has, it is only proposed, and an
    approver decides (ADR 0004). A gate that is added to the catalogue makes a new full policy.
    """
    audit.lock_head()
    if not GatePolicy.objects.filter(number=1).exists():
        policy = _create_policy(1, BASELINE_POLICY, actor=BASELINE_AUTHOR, reason="the baseline thresholds")
        _put_in_force(
            policy, actor=BASELINE_AUTHOR, reason="the service starts under the baseline thresholds"
        )
    if GatePolicy.objects.filter(body=to_canonical_json(FULL_POLICY)).exists():
        return
    policy = _create_policy(
        _next_number(),
        FULL_POLICY,
        actor=CATALOGUE_AUTHOR,
        reason="every gate of the catalogue, at its default thresholds",
    )
    if not GatePolicy.objects.exclude(proposed_by__in=(BASELINE_AUTHOR, CATALOGUE_AUTHOR)).exists():
        _put_in_force(policy, actor=FIRST_START, reason="nobody has decided about policies here yet")


def policy_in_force() -> GatePolicy:
    """The policy adopted last. Raises Unavailable before the first migration."""
    adoption = PolicyAdoption.objects.select_related("policy").order_by("-id").first()
    if adoption is None:
        raise Unavailable("No gate policy is in force yet: run `manage.py migrate`.")
    return adoption.policy


def find_policy(number: int) -> GatePolicy:
    """Raises NotFound."""
    policy = GatePolicy.objects.filter(number=number).first()
    if policy is None:
        raise NotFound(f"There is no policy {number}.")
    return policy


def propose_policy(document: Mapping[str, Any], *, actor: Actor, reason: str) -> GatePolicy:
    """A new numbered policy; it decides nothing until another approver adopts it.

    Raises NotAllowed, InvalidInput (saying what is wrong in it) and Conflict when it is what is in force.
    """
    kind, to, current = "gatepolicy.proposal", "propose a policy", policy_in_force()
    with decision(kind, current, actor=actor, role=Role.APPROVER, to=to, reason=reason) as reason:
        body = check_policy(document)
        with audit.locked():
            if body == (current := policy_in_force()).document:
                raise Conflict(f"{current}, which is in force, says the same.")
            return _create_policy(_next_number(), body, actor=str(actor), reason=reason)


def propose_draft(name: str, *, actor: Actor, reason: str) -> GatePolicy:
    """A draft that comes with the code, proposed as it is. Raises NotFound, and what `propose_policy` raises."""
    return propose_policy(find_draft(name).document, actor=actor, reason=reason)


def adopt_policy(policy: GatePolicy, *, actor: Actor, reason: str) -> PolicyAdoption:
    """Put a proposed policy in force; its proposer may not. Raises NotAllowed, Conflict."""
    with (
        decision(
            "gatepolicy.adoption",
            policy,
            actor=actor,
            role=Role.APPROVER,
            to="adopt it",
            reason=reason,
            first_person=FirstPerson(policy.proposed_by, f"proposed {policy}"),
        ) as reason,
        audit.locked(),
    ):
        if policy.number <= (current := policy_in_force()).number:
            raise Conflict(
                f"{current} is in force; only a newer policy can replace it. "
                f"To return to {policy}, propose its document again."
            )
        return _put_in_force(policy, actor=str(actor), reason=reason)


def _next_number() -> int:
    return int(GatePolicy.objects.aggregate(Max("number"))["number__max"] or 0) + 1


def _list_weaknesses(document: Mapping[str, Any]) -> dict[str, list[str]]:
    return {
        "weaker_than_baseline": weaker_than_baseline(document),
        "weaker_than_full": weaker_than_full(document),
    }


def _create_policy(number: int, document: Mapping[str, Any], *, actor: str, reason: str) -> GatePolicy:
    policy = GatePolicy.objects.create(
        number=number,
        body=to_canonical_json(document),
        required_gates=sum(bool(entry["required"]) for entry in document["gates"].values()),
        reason=reason,
        proposed_by=actor,
    )
    detail = {"body": policy.body, **_list_weaknesses(document)}
    audit.record("gatepolicy.proposed", policy, actor=actor, reason=reason, detail=detail)
    return policy


def _put_in_force(policy: GatePolicy, *, actor: str, reason: str) -> PolicyAdoption:
    adoption = PolicyAdoption.objects.create(policy=policy, adopted_by=actor, reason=reason)
    detail = {"proposed_by": policy.proposed_by, **_list_weaknesses(policy.document)}
    audit.record("gatepolicy.adopted", policy, actor=actor, reason=reason, detail=detail)
    return adoption
