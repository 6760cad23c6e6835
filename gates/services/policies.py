"""Policies: the service's own, and those that two people put in force."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import Max

from accounts.rules import Actor, Role
from audit import services as audit
from audit.rules import to_canonical_json
from common.errors import Conflict, InvalidInput, NotAllowed, NotFound, Unavailable
from gates.models import GatePolicy, PolicyAdoption
from gates.policy import BASELINE_POLICY, FULL_POLICY, checked_policy, eased, loosened

BASELINE_AUTHOR = "the seed plan"
LATER_GATES = "the gates beyond the baseline"
FIRST_START = "the service's start"


@transaction.atomic
def ensure_own_policies() -> None:
    """The two policies that come with the code. Safe to repeat.

    Number 1, the baseline thresholds, is in force from the first migration on. The full policy, with every gate,
    follows it at once where no person has proposed a policy yet; where one has, it is only proposed: whoever decides
    about policies there decides about this one too (ADR 0004).
    """
    audit.lock_head()
    if not GatePolicy.objects.filter(number=1).exists():
        reason = "the baseline thresholds"
        policy = _new_policy(1, BASELINE_POLICY, actor=BASELINE_AUTHOR, reason=reason)
        _put_in_force(
            policy, actor=BASELINE_AUTHOR, reason="the service starts under the baseline thresholds"
        )
    if GatePolicy.objects.filter(body=to_canonical_json(FULL_POLICY)).exists():
        return
    policy = _new_policy(
        _next_number(),
        FULL_POLICY,
        actor=LATER_GATES,
        reason="candles, skill, lookahead, window, schema, reload and attempts are judged too",
    )
    if not GatePolicy.objects.exclude(proposed_by__in=(BASELINE_AUTHOR, LATER_GATES)).exists():
        _put_in_force(policy, actor=FIRST_START, reason="nobody has decided about policies here yet")


def policy_in_force() -> GatePolicy:
    """The policy that was adopted last. Raises Unavailable before the first migration."""
    adoption = PolicyAdoption.objects.select_related("policy").order_by("-id").first()
    if adoption is None:
        raise Unavailable("No gate policy is in force yet: run `manage.py migrate`.")
    return adoption.policy


def find_policy(number: int) -> GatePolicy:
    """Raises NotFound."""
    found = GatePolicy.objects.filter(number=number).first()
    if found is None:
        raise NotFound(f"There is no policy {number}.")
    return found


def propose_policy(document: Mapping[str, Any], *, actor: Actor, reason: str) -> GatePolicy:
    """A new numbered policy; it decides nothing until another approver adopts it.

    Raises NotAllowed, InvalidInput (saying what is wrong in it) and Conflict when it is what is in force.
    """
    with audit.record_refusals("gatepolicy.proposal", policy_in_force(), actor=actor, reason=reason):
        actor.require(Role.APPROVER, "propose a policy")
        body = checked_policy(document)
        _need_reason(reason)
        with transaction.atomic():
            audit.lock_head()
            if body == (current := policy_in_force()).document:
                raise Conflict(f"That is what {current} says, which is in force.")
            return _new_policy(_next_number(), body, actor=str(actor), reason=reason)


def adopt_policy(policy: GatePolicy, *, actor: Actor, reason: str) -> PolicyAdoption:
    """Put a proposed policy in force, as another person than who proposed it. Raises NotAllowed, Conflict."""
    with audit.record_refusals("gatepolicy.adoption", policy, actor=actor, reason=reason):
        actor.require(Role.APPROVER, "adopt a policy")
        if str(actor) == policy.proposed_by:
            raise NotAllowed(f"{actor} proposed {policy}: another approver must adopt it.")
        _need_reason(reason)
        with transaction.atomic():
            audit.lock_head()
            if policy.number <= (current := policy_in_force()).number:
                raise Conflict(
                    f"{current} is in force already; only a newer one than it can follow. "
                    f"To go back to what {policy} says, propose it again."
                )
            return _put_in_force(policy, actor=str(actor), reason=reason)


def _need_reason(reason: str) -> None:
    if not reason.strip():
        raise InvalidInput("Say why: a policy needs a reason.", field="reason")


def _next_number() -> int:
    return int(GatePolicy.objects.aggregate(Max("number"))["number__max"] or 0) + 1


def _new_policy(number: int, document: Mapping[str, Any], *, actor: str, reason: str) -> GatePolicy:
    policy = GatePolicy.objects.create(
        number=number, body=to_canonical_json(document), reason=reason, proposed_by=actor
    )
    detail = {"body": policy.body, "loosened": loosened(document), "eased": eased(document)}
    audit.record("gatepolicy.proposed", policy, actor=actor, reason=reason, detail=detail)
    return policy


def _put_in_force(policy: GatePolicy, *, actor: str, reason: str) -> PolicyAdoption:
    adoption = PolicyAdoption.objects.create(policy=policy, adopted_by=actor, reason=reason)
    document = policy.document
    detail = {
        "proposed_by": policy.proposed_by,
        "loosened": loosened(document),
        "eased": eased(document),
    }
    audit.record("gatepolicy.adopted", policy, actor=actor, reason=reason, detail=detail)
    return adoption
