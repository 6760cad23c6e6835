"""Datasets: the list, uploading one, one with its price and what was found of it."""

from typing import Any

from django.contrib import messages
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.authentication import get_actor
from accounts.roles import Role
from common.downloads import send_file
from common.forms import ReasonForm, submit
from common.pages import allow_charts, is_partial, paginate
from mlcore.verdict import Verdict
from training import artifact_store, charts
from training.api.datasets import load_import_report
from training.forms import UploadForm
from training.models import Dataset, TrainingRun
from training.services import candle_checks, datasets, downloads

_COUNT_RUNS = (  # for the rows of a page only: a join would count those of every dataset
    TrainingRun.objects.filter(dataset=OuterRef("pk")).order_by().values("dataset").values(count=Count("pk"))
)


@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The list, and the form above it; posted, it adds a dataset."""
    if request.method != "POST":
        return _page(request, UploadForm())
    form = UploadForm(request.POST, request.FILES)

    def act() -> HttpResponse:
        kept = datasets.import_candles(**_read_upload(request, form))
        dataset = kept.dataset
        told = "Added" if kept.is_new else "These candles are here already:"
        messages.success(request, f"{told} dataset {dataset.pk}, {dataset.rows:,} bars of {dataset.coin}.")
        if dataset.verdict != Verdict.PASSED:
            messages.warning(
                request, f"{candle_checks.format_verdict(dataset)} No release can train on them."
            )
        return redirect("dataset", dataset.pk)

    return submit(form, act, lambda status: _page(request, form, status))


@require_POST
def check(request: HttpRequest) -> HttpResponse:
    """What an import of the posted file would store; nothing is stored. For htmx the part below the form alone."""
    form = UploadForm(request.POST, request.FILES)

    def act() -> HttpResponse:
        return _show_preview(request, form, datasets.preview_import(**_read_upload(request, form)))

    return submit(form, act, lambda status: _show_preview(request, form, None, status))


def _read_upload(request: HttpRequest, form: UploadForm) -> dict[str, Any]:
    """The arguments of an import, or of its preview."""
    upload = form.cleaned_data["file"]
    return {
        "coin": form.cleaned_data["coin"],
        "data": upload.read(),
        "name": upload.name,
        "actor": get_actor(request),
        "closing_times": form.cleaned_data["closing_times"],
        "repeated_once": form.cleaned_data["repeated_once"],
    }


def _show_preview(
    request: HttpRequest, form: UploadForm, preview: datasets.ImportPreview | None, status: int = 200
) -> HttpResponse:
    context: dict[str, Any] = {"preview": preview, "must_choose_again": not is_partial(request)}
    if preview is not None:
        context["failed_checks"] = candle_checks.sort_worst_first(
            [row for row in preview.checks.document()["checks"] if row["verdict"] != Verdict.PASSED]
        )
    if is_partial(request):  # htmx swaps in nothing of an answer with another status
        return render(request, "training/_preview.html", {**context, "form": form})
    return _page(request, form, status, **context)


@require_safe
def download(request: HttpRequest, pk: int, form: str) -> HttpResponseBase:
    found = downloads.open_download(datasets.find_dataset(pk), form)
    return send_file(request, found.stream, size=found.size, name=found.name, content_type=found.content_type)


@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    return page(request, get_object_or_404(Dataset.objects.select_related("coin"), pk=pk))


def page(
    request: HttpRequest, dataset: Dataset, *, withdrawal: ReasonForm | None = None, status: int = 200
) -> HttpResponse:
    """One dataset; after a withdrawal that was refused, with its form as it was filled in."""
    actor = get_actor(request)
    context = {
        "dataset": dataset,
        "sentence": candle_checks.format_verdict(dataset),
        "refused_datasets": candle_checks.list_datasets_refused_for(dataset),
        "withdrawn_peers": candle_checks.list_withdrawn_peers(dataset),
        "withdrawal": withdrawal or ReasonForm(),
        "can_withdraw": not dataset.is_withdrawn and (actor.has(Role.OPERATOR) or actor.has(Role.APPROVER)),
        "runs": dataset.runs.select_related("coin")[:10],
        "checks": candle_checks.sort_worst_first(candle_checks.load_checks(dataset)),
        "report": load_import_report(dataset),
        "bars_per_candle": charts.count_bars_per_candle(dataset.rows),
        "charts": charts.MARKET_CHARTS,
        "has_charts": True,
    }
    return allow_charts(render(request, "training/dataset.html", context, status=status))


@require_safe
def price(request: HttpRequest, pk: int) -> JsonResponse:
    dataset = get_object_or_404(Dataset, pk=pk)
    drawn = charts.draw_candlesticks(artifact_store.read_candles(dataset)) | charts.draw_market_statistics(
        candle_checks.load_check_results(dataset)
    )
    return JsonResponse({"charts": drawn, "is_moving": False})


def _page(request: HttpRequest, form: UploadForm, status: int = 200, **more: Any) -> HttpResponse:
    rows = (
        Dataset.objects.select_related("coin")
        .annotate(run_count=Coalesce(Subquery(_COUNT_RUNS), 0))
        .order_by("coin__symbol", "-id")
    )
    context = {
        "page": paginate(request, rows),
        "form": form,
        "can_upload": get_actor(request).has(Role.OPERATOR),
        **more,
    }
    return render(request, "training/datasets.html", context, status=status)
