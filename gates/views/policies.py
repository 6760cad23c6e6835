"""Policies: the list, one with its thresholds, proposing and adopting."""

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import get_actor
from accounts.decisions import is_same_person
from accounts.roles import Role
from common.forms import ReasonForm, submit
from common.pages import paginate
from gates.catalogue.gate import AnyGate, Group, Parameters
from gates.catalogue.live import LIVE_GATES, get_live_thresholds
from gates.catalogue.registry import GROUPS
from gates.forms import ProposalForm
from gates.models import GatePolicy
from gates.policy import DRAFTS, find_draft
from gates.policy_changes import (
    Direction,
    compare_policies,
    explain_draft,
    weaker_than_baseline,
    weaker_than_full,
)
from gates.services import policies


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    page = paginate(request, GatePolicy.objects.prefetch_related("adoptions"))
    context = {
        "page": page,
        "rows": [(policy, *_list_weaknesses(policy)) for policy in page],
        "in_force": policies.policy_in_force(),
        "drafts": DRAFTS.values(),
        "can_propose": get_actor(request).has(Role.APPROVER),
    }
    return render(request, "gates/policies.html", context)


@require_safe
def show(request: HttpRequest, number: int) -> HttpResponse:
    return _render(request, _get_policy(number), ReasonForm())


@require_http_methods(["GET", "POST"])
def adopt(request: HttpRequest, number: int) -> HttpResponse:
    """Put a proposed policy in force, as another person than its proposer."""
    policy = _get_policy(number)
    if request.method != "POST":
        return redirect("policy", number)
    form = ReasonForm(request.POST)

    def act() -> HttpResponse:
        policies.adopt_policy(policy, actor=get_actor(request), reason=form.cleaned_data["reason"])
        messages.success(request, f"Policy {number} is in force.")
        return redirect("policy", number)

    return submit(form, act, lambda status: _render(request, policy, form, status))


@require_http_methods(["GET", "POST"])
def propose(request: HttpRequest) -> HttpResponse:
    """A new policy, from the one in force or from an older one."""
    in_force = policies.policy_in_force()
    begins_as = _get_starting_policy(request, in_force)
    form = ProposalForm(begins_as, request.POST if request.method == "POST" else None)
    context = {
        "form": form,
        "in_force": in_force,
        "begins_as": begins_as,
        "policies": GatePolicy.objects.all(),
        "can_propose": get_actor(request).has(Role.APPROVER),
    }

    def act() -> HttpResponse:
        reason = form.cleaned_data["reason"]
        policy = policies.propose_policy(form.document, actor=get_actor(request), reason=reason)
        messages.success(
            request, f"Proposed policy {policy.number}. It decides nothing until another approver adopts it."
        )
        return redirect("policy", policy.number)

    def show_form(status: int = 200) -> HttpResponse:
        return render(request, "gates/propose.html", context, status=status)

    return submit(form, act, show_form) if request.method == "POST" else show_form()


@require_http_methods(["GET", "POST"])
def draft(request: HttpRequest, name: str) -> HttpResponse:
    """A draft that comes with the code: what it asks otherwise than the full policy, and why; and proposing it."""
    if name not in DRAFTS:
        raise Http404
    found, form = find_draft(name), ReasonForm(request.POST if request.method == "POST" else None)
    changes = explain_draft(found)
    context = {
        "draft": found,
        "less": [pair for pair in changes if pair[0].direction == Direction.LOOSER],
        "more": [pair for pair in changes if pair[0].direction == Direction.STRICTER],
        "groups": _group_gates(found.document),
        "form": form,
        "is_in_force": policies.policy_in_force().document == found.document,
        "can_propose": get_actor(request).has(Role.APPROVER),
    }

    def act() -> HttpResponse:
        policy = policies.propose_draft(name, actor=get_actor(request), reason=form.cleaned_data["reason"])
        messages.success(
            request, f"Proposed policy {policy.number}. It decides nothing until another approver adopts it."
        )
        return redirect("policy", policy.number)

    def show_page(status: int = 200) -> HttpResponse:
        return render(request, "gates/draft.html", context, status=status)

    return submit(form, act, show_page) if request.method == "POST" else show_page()


def _get_starting_policy(request: HttpRequest, in_force: GatePolicy) -> GatePolicy:
    number = request.GET.get("from", "")
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    return (GatePolicy.objects.filter(number=int(number)).first() if is_number else None) or in_force


def _get_policy(number: int) -> GatePolicy:
    return get_object_or_404(GatePolicy.objects.prefetch_related("adoptions"), number=number)


def _render(request: HttpRequest, policy: GatePolicy, form: ReasonForm, status: int = 200) -> HttpResponse:
    in_force = policies.policy_in_force()
    actor = get_actor(request)
    before, thresholds = policy.predecessor, get_live_thresholds(policy.document)
    weak, weaker = _list_weaknesses(policy)
    context = {
        "policy": policy,
        "in_force": in_force,
        "groups": _group_gates(policy.document),
        "draft": next((draft for draft in DRAFTS.values() if draft.document == policy.document), None),
        "live": [_describe(gate, thresholds.get(gate.name, {})) for gate in LIVE_GATES.values()],
        "weaker_than_baseline": weak,
        "weaker_than_full": weaker,
        "before": before,
        "differences": compare_policies(before.document, policy.document) if before else [],
        "form": form,
        "can_adopt": actor.has(Role.APPROVER) and policy.number > in_force.number,
        "can_propose": actor.has(Role.APPROVER),
        "needs_another": is_same_person(actor, policy.proposed_by),
    }
    return render(request, "gates/policy.html", context, status=status)


def _list_weaknesses(policy: GatePolicy) -> tuple[list[str], list[str]]:
    """Where it is weaker than the baseline, and where beyond that it is weaker than the full policy."""
    weak = weaker_than_baseline(policy.document)
    return weak, [sentence for sentence in weaker_than_full(policy.document) if sentence not in weak]


def _group_gates(document: Mapping[str, Any]) -> list[tuple[Group, list[dict[str, object]]]]:
    entries = document["gates"]
    groups = [
        (group, [_describe(gate, entries[gate.name]) for gate in group.gates if gate.name in entries])
        for group in GROUPS
    ]
    return [(group, gates) for group, gates in groups if gates]


def _describe(gate: AnyGate, entry: Parameters) -> dict[str, object]:
    """What passes, what passes by default, and whether it decides."""
    return {
        "name": gate.name,
        "about": gate.about,
        "threshold": gate.describe(entry),
        "default": gate.describe(gate.defaults),
        "is_required": entry.get("required"),
        "is_tripwire": getattr(gate, "is_tripwire", False),
    }
