"""Runs: the list, and one run while it trains."""

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import get_actor
from accounts.roles import Role
from common.errors import DomainError
from common.forms import ReasonForm, submit
from common.pages import allow_charts, paginate, render_live
from training.charts import draw_compared_curves, draw_learning_curves
from training.forms import AgainForm, AnnotationForm, RunListForm
from training.models import TrainingRun
from training.rules import JobState
from training.services import annotations, lines, run_comparison, runs
from training.services.run_filters import RunFilter

MOVING_SECONDS = 2
LOG_LINES_SHOWN = 300
ENDED_WITHOUT_BUNDLE = (JobState.FAILED, JobState.CANCELLED)


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """The list. An unknown filter or value is left out: the form shows what holds."""
    rows = TrainingRun.objects.select_related("coin", "dataset", "release_coin", "trial").prefetch_related(
        "epoch_rows", "tags"
    )
    form = RunListForm(request.GET)
    form.is_valid()
    page = paginate(request, RunFilter(form.filters, rows).qs)
    context = {
        "page": page,
        "states": list(JobState),
        "state": form.filters.get("state"),
        "form": form,
        "sorted_by": form.filters.get("ordering", "-id"),
        "is_narrowed": form.is_narrowed,
        "kept": urlencode({name: value for name, value in form.filters.items() if name != "state"}),
    }
    is_moving = any(not run.has_ended for run in page)
    every = MOVING_SECONDS if is_moving else None
    return render_live(request, "training/runs.html", "training/_runs.html", context, every_seconds=every)


@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    return _page(request, _run(pk))


@require_safe
def charts(request: HttpRequest, pk: int) -> JsonResponse:
    """The curves so far; `is_moving` says whether there may be more."""
    run = get_object_or_404(TrainingRun.objects.prefetch_related("epoch_rows"), pk=pk)
    epochs = list(run.epoch_rows.all())
    return JsonResponse({"charts": draw_learning_curves(epochs, run.epochs), "is_moving": not run.has_ended})


@require_safe
def compare(request: HttpRequest) -> HttpResponse:
    """Runs side by side; with too few or too many, or an unknown one, it says what to choose."""
    keys = _read_keys(request)
    context: dict[str, object] = {"query": urlencode([("run", key) for key in keys])}
    try:
        compared = run_comparison.compare(keys)
    except DomainError as refusal:
        return render(request, "training/compare.html", {"refusal": refusal}, status=refusal.status)
    context |= {"compared": compared, "has_charts": True}
    return allow_charts(render(request, "training/compare.html", context))


@require_safe
def compare_charts(request: HttpRequest) -> JsonResponse:
    try:
        compared = run_comparison.compare(_read_keys(request))
    except DomainError as refusal:
        raise Http404(refusal.message) from refusal
    is_moving = any(not run.has_ended for run in compared.runs)
    return JsonResponse({"charts": draw_compared_curves(compared.runs), "is_moving": is_moving})


def _read_keys(request: HttpRequest) -> list[int]:
    """The runs that are named, without repetitions and without words."""
    named = [key for key in request.GET.getlist("run") if key.isascii() and key.isdigit() and len(key) <= 18]
    return [int(key) for key in dict.fromkeys(named)]


@require_http_methods(["GET", "POST"])
def annotate(request: HttpRequest, pk: int) -> HttpResponse:
    """Replace a run's tags and notes."""
    if request.method != "POST":
        return redirect("run", pk)
    form = AnnotationForm(request.POST)

    def act() -> HttpResponse:
        annotations.annotate(_run(pk), actor=get_actor(request), **form.cleaned_data)
        messages.success(request, f"Saved what you wrote about run {pk}.")
        return redirect("run", pk)

    return submit(form, act, lambda status: _page(request, _run(pk), annotation_form=form, status=status))


@require_http_methods(["GET", "POST"])
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    run = _run(pk)
    if request.method != "POST":
        return redirect("run", pk)
    form = ReasonForm(request.POST)

    def act() -> HttpResponse:
        runs.cancel_run(run, actor=get_actor(request), reason=form.cleaned_data["reason"])
        messages.success(request, f"Run {pk} ends {'now' if run.has_ended else 'after its present epoch'}.")
        return redirect("run", pk)

    return submit(form, act, lambda status: _page(request, _run(pk), cancel_form=form, status=status))


@require_http_methods(["GET", "POST"])
def again(request: HttpRequest, pk: int) -> HttpResponse:
    """Launch a run that failed again, with changes."""
    run = _run(pk)
    if request.method != "POST":
        return redirect("run", pk)
    form = AgainForm(run, request.POST)

    def act() -> HttpResponse:
        launched = runs.relaunch(run, changes=form.changes, actor=get_actor(request))
        messages.success(request, f"Launched run {launched.pk}, after run {pk}. It belongs to no release.")
        return redirect("run", launched.pk)

    return submit(form, act, lambda status: _page(request, run, again_form=form, status=status))


def _run(pk: int) -> TrainingRun:
    rows = TrainingRun.objects.select_related(
        "coin", "dataset", "budget", "bundle", "release_coin__release", "trial"
    )
    run: TrainingRun = get_object_or_404(rows.prefetch_related("epoch_rows", "tags"), pk=pk)
    return run


def _page(
    request: HttpRequest,
    run: TrainingRun,
    *,
    cancel_form: ReasonForm | None = None,
    again_form: AgainForm | None = None,
    annotation_form: AnnotationForm | None = None,
    status: int = 200,
) -> HttpResponse:
    """The run; after a request that was refused, with its form as it was filled in."""
    is_operator = get_actor(request).has(Role.OPERATOR)
    epochs = list(run.epoch_rows.all())
    context = {
        "run": run,
        "epochs": epochs,
        "last_epoch": epochs[-1] if epochs else None,
        "best_epoch": next((epoch for epoch in reversed(epochs) if epoch.is_best), None),
        "log": list(reversed(run.log.order_by("-id")[:LOG_LINES_SHOWN])),
        "recipe": lines.list_settings(run.line, run.parameters),
        "cancel_form": cancel_form or ReasonForm(),
        "cancel_refused": cancel_form is not None,
        "again_form": again_form or AgainForm(run),
        "again_refused": again_form is not None,
        "tags": [tag.name for tag in run.tags.all()],
        "annotation_form": annotation_form or AnnotationForm(initial=AnnotationForm.read(run)),
        "annotation_refused": annotation_form is not None,
        "can_annotate": is_operator,
        "can_cancel": is_operator and not run.has_ended,
        "can_repeat": is_operator and run.state in ENDED_WITHOUT_BUNDLE,
        "has_charts": True,
    }
    every = None if run.has_ended else MOVING_SECONDS
    page = render_live(
        request, "training/run.html", "training/_run.html", context, every_seconds=every, status=status
    )
    return allow_charts(page)
