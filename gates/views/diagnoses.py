"""A diagnosis: every gate's word on one bundle, what it was said of, and another policy's word on the same figures."""

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import get_actor
from accounts.rules import Role
from common.errors import DomainError
from common.forms import show_refusal
from common.pages import allow_charts
from gates import services
from gates.catalogue.groups import GROUPS, group_of
from gates.catalogue.readings import reading
from gates.charts.diagnosis import TITLES
from gates.charts.diagnosis import charts as draw
from gates.models import Diagnosis, GatePolicy, GateResult
from gates.policy import Verdict


class JudgeAgainForm(forms.Form):
    """By which policy."""

    policy = forms.IntegerField(min_value=1, max_value=2**31 - 1)


@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    return _page(request, _diagnosis(pk), JudgeAgainForm())


@require_safe
def charts(request: HttpRequest, pk: int) -> JsonResponse:
    """Its pictures, with the thresholds of the policy it was judged by."""
    diagnosis = _diagnosis(pk)
    return JsonResponse({"charts": draw(diagnosis.document, diagnosis.frozen_policy), "is_moving": False})


@require_http_methods(["GET", "POST"])
def judge_again(request: HttpRequest, pk: int) -> HttpResponse:
    """Another policy's word on the same figures; nothing is measured, and no release changes by it."""
    diagnosis = _diagnosis(pk)
    if request.method != "POST":
        return redirect("diagnosis", pk)
    form = JudgeAgainForm(request.POST)
    if not form.is_valid():
        return _page(request, diagnosis, form, status=400)
    try:
        policy = services.find_policy(form.cleaned_data["policy"])
        judged = services.judge_again(diagnosis, policy, actor=get_actor(request))
    except DomainError as refusal:
        show_refusal(form, refusal)
        return _page(request, diagnosis, form, status=refusal.status)
    messages.success(request, f"Policy {policy.number} says of the same figures: {judged.verdict}.")
    return redirect("diagnosis", judged.pk)


def _diagnosis(pk: int) -> Diagnosis:
    rows = Diagnosis.objects.select_related("coin", "bundle", "dataset", "policy", "measurement")
    return get_object_or_404(rows.prefetch_related("results", "release_coins"), pk=pk)


def _page(
    request: HttpRequest, diagnosis: Diagnosis, form: JudgeAgainForm, status: int = 200
) -> HttpResponse:
    actor = get_actor(request)
    others = {row.policy_id: row for row in diagnosis.measurement.diagnoses.select_related("policy")}
    context = {
        "diagnosis": diagnosis,
        "groups": _groups(diagnosis),
        "known": json.loads(diagnosis.circumstances),
        "measured": diagnosis.document,
        "others": [row for row in others.values() if row.pk != diagnosis.pk],
        "form": form,
        "open_policies": [p for p in GatePolicy.objects.all() if p.pk not in others],
        "can_judge": actor.has(Role.OPERATOR) or actor.has(Role.APPROVER),
        "charts": {name: TITLES[name] for name in TITLES if name in _drawn(diagnosis)},
        "has_charts": True,
    }
    return allow_charts(render(request, "gates/diagnosis.html", context, status=status))


def _drawn(diagnosis: Diagnosis) -> set[str]:
    return set(draw(diagnosis.document, diagnosis.frozen_policy))


def _groups(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Its results under the groups of their gates; within a group what did not pass stands first."""
    measured = {**diagnosis.document, **json.loads(diagnosis.circumstances)}
    rows = [
        {"result": result, "reading": reading(result.gate, measured, diagnosis.frozen_policy)}
        for result in sorted(diagnosis.results.all(), key=_rank)
    ]
    found = [(group, [row for row in rows if _group(row["result"]) == group]) for group in GROUPS]
    return [{"group": group, "rows": rows} for group, rows in found if rows]


def _group(result: Any) -> object:
    return group_of(result.gate, is_required=result.is_required)


def _rank(result: GateResult) -> tuple[bool, int]:
    return result.verdict == Verdict.PASSED, result.position
