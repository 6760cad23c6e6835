"""Studies: the list, the form, one study while it runs, cancelling it."""

from django.contrib import messages
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.authentication import get_actor
from accounts.roles import Role
from common.errors import DomainError
from common.forms import ReasonForm, submit
from common.pages import allow_charts, is_partial, paginate, render_live
from studies import search_space
from studies.charts import draw_study
from studies.forms import RANGE, StudyForm, list_searched_lines
from studies.models import Study, Trial
from studies.rules import Objective, StudyState, TrialState
from studies.services import launch as launch_service
from studies.services import results
from training.services.lines import DEFAULT_LINE

MOVING_SECONDS = 3
_COUNT_TRIALS = (
    Trial.objects.filter(study=OuterRef("pk")).order_by().values("study").values(count=Count("pk"))
)


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    rows = Study.objects.select_related("dataset__coin").annotate(
        trial_count=Coalesce(Subquery(_COUNT_TRIALS), 0)
    )
    state = request.GET.get("state")
    if state in set(StudyState):
        rows = rows.filter(state=state)
    context = {
        "page": paginate(request, rows),
        "states": list(StudyState),
        "state": state,
        "can_launch": get_actor(request).has(Role.OPERATOR),
    }
    return render(request, "studies/studies.html", context)


@require_http_methods(["GET", "POST"])
def launch(request: HttpRequest) -> HttpResponse:
    """The form; posted, it launches. Asked by htmx for another line, it answers with that line's settings."""
    if request.method != "POST":
        kept = {name: value for name, value in request.GET.items() if name in ("dataset", "seed")}
        return _form_page(request, StudyForm(_line(request.GET.get("line")), initial=kept))
    form = StudyForm(_line(request.POST.get("line")), request.POST)

    def act() -> HttpResponse:
        data = form.cleaned_data
        names = (
            *("line", "dataset", "ranges", "objective", "sampler", "prunes", "max_trials", "parallel"),
            *("time_limit_seconds", "spending_limit_usd", "seed"),
        )
        try:
            study = launch_service.launch(
                actor=get_actor(request), parameters=form.fixed, **{name: data[name] for name in names}
            )
        except DomainError as refusal:
            if refusal.field and RANGE + refusal.field in form.fields and refusal.field in data["ranges"]:
                refusal.field = RANGE + refusal.field
            raise
        messages.success(request, f"Launched study {study.pk}; this page follows it.")
        return redirect("study", study.pk)

    return submit(form, act, lambda status: _form_page(request, form, status))


@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    return _page(request, _study(pk))


@require_safe
def charts(request: HttpRequest, pk: int) -> JsonResponse:
    study = _study(pk)
    drawn = draw_study(study, results.summarize(study).trials)
    return JsonResponse({"charts": drawn, "is_moving": not study.has_ended})


@require_http_methods(["GET", "POST"])
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    study = _study(pk)
    if request.method != "POST":
        return redirect("study", pk)
    form = ReasonForm(request.POST)

    def act() -> HttpResponse:
        launch_service.cancel(study, actor=get_actor(request), reason=form.cleaned_data["reason"])
        messages.success(request, f"Cancelled study {pk}. What its trials found stays.")
        return redirect("study", pk)

    return submit(form, act, lambda status: _page(request, _study(pk), cancel_form=form, status=status))


def _study(pk: int) -> Study:
    return get_object_or_404(Study.objects.select_related("dataset__coin", "budget"), pk=pk)


def _line(asked: str | None) -> str:
    return asked if asked in dict(list_searched_lines()) else DEFAULT_LINE


def _form_page(request: HttpRequest, form: StudyForm, status: int = 200) -> HttpResponse:
    context = {"form": form, "can_launch": get_actor(request).has(Role.OPERATOR)}
    template = "studies/_study_form.html" if is_partial(request) else "studies/launch.html"
    return render(request, template, context, status=status)


def _page(
    request: HttpRequest, study: Study, *, cancel_form: ReasonForm | None = None, status: int = 200
) -> HttpResponse:
    is_operator = get_actor(request).has(Role.OPERATOR)
    found = results.summarize(study)
    objective = Objective(study.objective)
    is_running = any(not trial.state.has_ended for trial in found.trials)
    context = {
        "study": study,
        "found": found,
        "ended": found.ended,
        "objective": objective,
        "best_figure": results.read_figure(study, found.best) if found.best else None,
        "best_parameters": results.list_best_parameters(study, found.best) if found.best else {},
        "bias": results.estimate_bias(study),
        "rows": [
            {
                "trial": trial,
                "values": [trial.parameters.get(name) for name in study.ranges],
                "is_best": trial == found.best,
            }
            for trial in reversed(found.trials)
        ],
        "ranges": [
            (name.replace("_", " "), search_space.describe(name, chosen))
            for name, chosen in study.ranges.items()
        ],
        "charts": [(name, name.replace("_", " ")) for name in study.ranges],
        "complete": found.counts.get(TrialState.COMPLETE, 0),
        "cancel_form": cancel_form or ReasonForm(),
        "cancel_refused": cancel_form is not None,
        "can_cancel": is_operator and not study.has_ended,
        "can_release": is_operator and found.best is not None,
        "has_charts": True,
    }
    every = MOVING_SECONDS if is_running or not study.has_ended else None
    names = "studies/study.html", "studies/_study.html"
    return allow_charts(render_live(request, *names, context, every_seconds=every, status=status))
