"""A diagnosis: every gate's outcome for one bundle, the figures, and the verdicts of other policies on them."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import get_actor
from accounts.roles import Role
from common.forms import submit
from common.pages import allow_charts
from common.plotting import Figure
from gates.catalogue.registry import GROUPS, find_group, read_gate
from gates.charts.diagnosis import draw_charts
from gates.models import Diagnosis, GatePolicy
from gates.services import judging, policies
from mlcore.verdict import Verdict


class JudgeAgainForm(forms.Form):
    policy = forms.IntegerField(min_value=1, max_value=2**31 - 1)


@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    return _render(request, _get_diagnosis(pk), JudgeAgainForm())


@require_safe
def charts(request: HttpRequest, pk: int) -> JsonResponse:
    """Its charts, with the thresholds of the policy it was judged by."""
    diagnosis = _get_diagnosis(pk)
    return JsonResponse({"charts": _draw(diagnosis), "is_moving": False})


@require_http_methods(["GET", "POST"])
def judge_again(request: HttpRequest, pk: int) -> HttpResponse:
    """Judge the same figures by another policy. Nothing is measured, and no release changes."""
    diagnosis = _get_diagnosis(pk)
    if request.method != "POST":
        return redirect("diagnosis", pk)
    form = JudgeAgainForm(request.POST)

    def act() -> HttpResponse:
        policy = policies.find_policy(form.cleaned_data["policy"])
        judged = judging.judge_again(diagnosis, policy, actor=get_actor(request))
        messages.success(request, f"Under policy {policy.number} the verdict is: {judged.verdict}.")
        return redirect("diagnosis", judged.pk)

    return submit(form, act, lambda status: _render(request, diagnosis, form, status))


def _get_diagnosis(pk: int) -> Diagnosis:
    rows = Diagnosis.objects.select_related("coin", "bundle", "dataset", "policy", "measurement")
    return get_object_or_404(rows.prefetch_related("results", "release_coins"), pk=pk)


def _render(
    request: HttpRequest, diagnosis: Diagnosis, form: JudgeAgainForm, status: int = 200
) -> HttpResponse:
    actor = get_actor(request)
    others = {row.policy_id: row for row in diagnosis.measurement.diagnoses.select_related("policy")}
    context = {
        "diagnosis": diagnosis,
        "groups": _group_results(diagnosis),
        "context": diagnosis.context_document,
        "measured": diagnosis.document,
        "others": [row for row in others.values() if row.pk != diagnosis.pk],
        "form": form,
        "open_policies": [p for p in GatePolicy.objects.all() if p.pk not in others],
        "can_judge": actor.has(Role.OPERATOR) or actor.has(Role.APPROVER),
        "charts": {name: figure["layout"]["title"]["text"] for name, figure in _draw(diagnosis).items()},
        "has_charts": True,
    }
    return allow_charts(render(request, "gates/diagnosis.html", context, status=status))


def _draw(diagnosis: Diagnosis) -> dict[str, Figure]:
    return draw_charts(diagnosis.document, diagnosis.policy_document)


def _group_results(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Its results by group; within a group those that did not pass come first."""
    measured, policy = diagnosis.judged_document, diagnosis.policy_document
    rows: dict[str, list[dict[str, Any]]] = {group.title: [] for group in GROUPS}
    for result in sorted(
        diagnosis.results.all(), key=lambda row: (row.verdict == Verdict.PASSED, row.position)
    ):
        group = find_group(result.gate, is_required=result.is_required)
        reading = read_gate(result.gate, measured, policy)
        rows[group.title].append({"result": result, "reading": reading})
    return [{"group": group, "rows": rows[group.title]} for group in GROUPS if rows[group.title]]
