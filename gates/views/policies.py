"""Policies: the list, one with its thresholds, proposing and adopting."""

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import get_actor
from accounts.rules import Role
from common.errors import DomainError
from common.forms import ReasonForm, show_refusal
from common.pages import paginate
from gates import services
from gates.catalogue.gate import Gate
from gates.catalogue.groups import GROUPS, Group, group_of
from gates.catalogue.live import LIVE_GATES, live_part
from gates.forms import ProposalForm
from gates.models import GatePolicy
from gates.policy import FULL_POLICY, GATES, eased, loosened
from gates.policy_changes import differences


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    page = paginate(request, GatePolicy.objects.prefetch_related("adoptions"))
    context = {
        "page": page,
        "rows": [(policy, loosened(policy.document), eased(policy.document)) for policy in page],
        "in_force": services.policy_in_force(),
        "can_propose": get_actor(request).has(Role.APPROVER),
    }
    return render(request, "gates/policies.html", context)


@require_safe
def show(request: HttpRequest, number: int) -> HttpResponse:
    return _page(request, _policy(number), ReasonForm())


@require_http_methods(["GET", "POST"])
def adopt(request: HttpRequest, number: int) -> HttpResponse:
    """Put a proposed policy in force, as another person than who proposed it."""
    policy = _policy(number)
    if request.method != "POST":
        return redirect("policy", number)
    form = ReasonForm(request.POST)
    if not form.is_valid():
        return _page(request, policy, form, status=400)
    try:
        services.adopt_policy(policy, actor=get_actor(request), reason=form.cleaned_data["reason"])
    except DomainError as refusal:
        show_refusal(form, refusal)
        return _page(request, policy, form, status=refusal.status)
    messages.success(request, f"Policy {number} is in force.")
    return redirect("policy", number)


@require_http_methods(["GET", "POST"])
def propose(request: HttpRequest) -> HttpResponse:
    """A new policy, from the one in force, or from an older one that is wanted back."""
    in_force = services.policy_in_force()
    begins_as = _begins_as(request, in_force)
    form = ProposalForm(begins_as, request.POST if request.method == "POST" else None)
    context = {
        "form": form,
        "in_force": in_force,
        "begins_as": begins_as,
        "policies": GatePolicy.objects.all(),
        "can_propose": get_actor(request).has(Role.APPROVER),
    }
    if request.method != "POST":
        return render(request, "gates/propose.html", context)
    if not form.is_valid():
        return render(request, "gates/propose.html", context, status=400)
    try:
        policy = services.propose_policy(
            form.document, actor=get_actor(request), reason=form.cleaned_data["reason"]
        )
    except DomainError as refusal:
        show_refusal(form, refusal)
        return render(request, "gates/propose.html", context, status=refusal.status)
    messages.success(
        request, f"Proposed policy {policy.number}. It decides nothing until another approver adopts it."
    )
    return redirect("policy", policy.number)


def _begins_as(request: HttpRequest, in_force: GatePolicy) -> GatePolicy:
    asked = request.GET.get("from", "")
    known = asked.isascii() and asked.isdigit() and len(asked) < 10
    return (GatePolicy.objects.filter(number=int(asked)).first() if known else None) or in_force


def _policy(number: int) -> GatePolicy:
    return get_object_or_404(GatePolicy.objects.prefetch_related("adoptions"), number=number)


def _page(request: HttpRequest, policy: GatePolicy, form: ReasonForm, status: int = 200) -> HttpResponse:
    in_force = services.policy_in_force()
    actor = get_actor(request)
    before = policy.predecessor
    context = {
        "policy": policy,
        "in_force": in_force,
        "groups": _groups(policy),
        "live": _live(policy),
        "looser": loosened(policy.document),
        "eased": eased(policy.document),
        "before": before,
        "differences": differences(before.document, policy.document) if before else [],
        "form": form,
        "can_adopt": actor.has(Role.APPROVER) and policy.number > in_force.number,
        "can_propose": actor.has(Role.APPROVER),
        "needs_another": actor.name == policy.proposed_by,
    }
    return render(request, "gates/policy.html", context, status=status)


def _groups(policy: GatePolicy) -> list[tuple[Group, list[dict[str, object]]]]:
    """Every gate the policy asks for, under its group."""
    entries = policy.document["gates"]
    return [
        (group, found)
        for group in GROUPS
        if (
            found := [
                _described(gate, entries[gate.name])
                for gate in GATES.values()
                if gate.name in entries and group_of(gate.name) == group
            ]
        )
    ]


def _live(policy: GatePolicy) -> list[dict[str, object]]:
    """The live gates, by the policy's thresholds, which are the usual ones where it sets none."""
    thresholds = live_part(policy.document)
    return [
        {
            "name": gate.name,
            "about": (gate.judge.__doc__ or "").splitlines()[0],
            "says": gate.says(thresholds.get(gate.name, {})),
            "baseline": gate.says(gate.default),
            "is_tripwire": gate.is_tripwire,
        }
        for gate in LIVE_GATES.values()
    ]


def _described(gate: Gate, entry: Mapping[str, Any]) -> dict[str, object]:
    """What passes, what it says to begin with, and whether it decides."""
    return {
        "name": gate.name,
        "says": gate.says(entry),
        "baseline": gate.says(FULL_POLICY["gates"][gate.name]),
        "is_required": entry["required"],
        "about": (gate.judge.__doc__ or "").splitlines()[0],
    }
