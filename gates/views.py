"""Policies: the list, one with its thresholds, proposing and adopting."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import actor_of
from accounts.forms import ReasonForm, show_refusal
from accounts.pages import paged
from accounts.rules import Role
from audit.errors import DomainError
from gates import services
from gates.forms import ProposalForm
from gates.models import GatePolicy
from gates.rules import GATES, SEED_POLICY, loosened


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    page = paged(request, GatePolicy.objects.prefetch_related("adoptions"))
    context = {
        "page": page,
        "rows": [(policy, loosened(policy.document)) for policy in page],
        "in_force": services.policy_in_force(),
        "can_propose": actor_of(request).has(Role.APPROVER),
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
        services.adopt_policy(policy, actor=actor_of(request), reason=form.cleaned_data["reason"])
    except DomainError as refusal:
        show_refusal(form, refusal)
        return _page(request, policy, form, status=refusal.status)
    messages.success(request, f"Policy {number} is in force.")
    return redirect("policy", number)


@require_http_methods(["GET", "POST"])
def propose(request: HttpRequest) -> HttpResponse:
    """A new policy, from the one in force."""
    in_force = services.policy_in_force()
    form = ProposalForm(in_force, request.POST if request.method == "POST" else None)
    context = {"form": form, "in_force": in_force, "can_propose": actor_of(request).has(Role.APPROVER)}
    if request.method != "POST":
        return render(request, "gates/propose.html", context)
    if not form.is_valid():
        return render(request, "gates/propose.html", context, status=400)
    try:
        policy = services.propose_policy(
            form.document, actor=actor_of(request), reason=form.cleaned_data["reason"]
        )
    except DomainError as refusal:
        show_refusal(form, refusal)
        return render(request, "gates/propose.html", context, status=refusal.status)
    messages.success(
        request, f"Proposed policy {policy.number}. It decides nothing until another approver adopts it."
    )
    return redirect("policy", policy.number)


def _policy(number: int) -> GatePolicy:
    return get_object_or_404(GatePolicy.objects.prefetch_related("adoptions"), number=number)


def _page(request: HttpRequest, policy: GatePolicy, form: ReasonForm, status: int = 200) -> HttpResponse:
    in_force = services.policy_in_force()
    actor = actor_of(request)
    context = {
        "policy": policy,
        "in_force": in_force,
        "gates": _gates(policy),
        "looser": loosened(policy.document),
        "form": form,
        "can_adopt": actor.has(Role.APPROVER) and policy.number > in_force.number,
        "needs_another": actor.name == policy.proposed_by,
    }
    return render(request, "gates/policy.html", context, status=status)


def _gates(policy: GatePolicy) -> list[dict[str, object]]:
    """Each gate of the policy: what passes, what the plan says, and whether it decides."""
    entries = policy.document["gates"]
    return [
        {
            "name": gate.name,
            "says": gate.says(entries[gate.name]),
            "plan": gate.says(SEED_POLICY["gates"][gate.name]),
            "is_required": entries[gate.name]["required"],
            "about": (gate.judge.__doc__ or "").splitlines()[0],
        }
        for gate in GATES.values()
        if gate.name in entries
    ]
