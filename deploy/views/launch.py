"""Launching a release, with what it would take."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.authentication import get_actor
from accounts.roles import Role
from common.errors import DomainError, FactorNeeded
from common.forms import submit
from common.pages import is_partial
from deploy.forms import DATASET, LaunchForm, list_launched_lines
from deploy.outcomes import list_required_coins
from deploy.releases import launch as launch_service
from deploy.rules import Purpose
from studies.services.launch import find_study
from training.jobs.worker_registry import list_alive_workers
from training.services import estimates
from training.services.datasets import latest_dataset
from training.services.lines import DEFAULT_LINE


@require_http_methods(["GET", "POST"])
def launch(request: HttpRequest) -> HttpResponse:
    """The form; posted, it launches. Asked by htmx for another line, it answers with that line's settings."""
    if request.method != "POST":
        line = _line(request.GET.get("line"))
        return _page(request, LaunchForm(line, initial=_kept(request)))
    form = LaunchForm(_line(request.POST.get("line")), request.POST)

    def act() -> HttpResponse:
        data = form.cleaned_data
        release = launch_service.launch(
            data["line"],
            actor=get_actor(request),
            parameters=form.parameters,
            datasets=form.datasets,
            seed=data["seed"],
            purpose=Purpose(data["purpose"]),
            reproduce=data["reproduce"],
        )
        messages.success(request, f"Launched release {release.pk} of {release.line}; this page follows it.")
        return redirect("release", release.pk)

    return submit(form, act, lambda status: _page(request, form, status))


@require_POST
def launch_study(request: HttpRequest, pk: int) -> HttpResponse:
    """Launch a release with the parameters of a study's best trial, on the default datasets."""
    study = find_study(pk)
    try:
        release = launch_service.launch(study.line, actor=get_actor(request), study=study)
    except FactorNeeded:
        raise
    except DomainError as refusal:
        messages.error(request, refusal.message)
        return redirect("study", pk)
    messages.success(request, f"Launched release {release.pk}: {release.selection}.")
    return redirect("release", release.pk)


@require_safe
def estimate(request: HttpRequest) -> HttpResponse:
    """What the form as it stands would take; for a form that cannot be launched, why it cannot be estimated."""
    form = LaunchForm(_line(request.GET.get("line")), request.GET)
    context: dict[str, object] = {"form": form, "has_worker": bool(list_alive_workers("training"))}
    if form.is_valid():
        named = form.datasets
        try:
            coins = list_required_coins()
            fitting = launch_service.choose_default_datasets(coins, named.values())
            datasets = [named.get(coin.symbol) or fitting.get(coin) or latest_dataset(coin) for coin in coins]
            trainings = 2 if form.cleaned_data["reproduce"] else 1
            context["estimate"] = estimates.estimate(form.line_name, datasets * trainings, form.parameters)
        except DomainError as refusal:
            context["refusal"] = refusal
    return render(request, "deploy/_estimate.html", context)


def _page(request: HttpRequest, form: LaunchForm, status: int = 200) -> HttpResponse:
    context = {"form": form, "can_launch": get_actor(request).has(Role.OPERATOR)}
    template = "deploy/_launch_form.html" if is_partial(request) else "deploy/launch.html"
    return render(request, template, context, status=status)


def _kept(request: HttpRequest) -> dict[str, str]:
    """What was filled in that holds for any line; settings and purpose go by the line that is chosen."""
    return {
        name: str(value)
        for name, value in request.GET.items()
        if name in ("seed", "reproduce") or name.startswith(DATASET)
    }


def _line(asked: str | None) -> str:
    return asked if asked in dict(list_launched_lines()) else DEFAULT_LINE
