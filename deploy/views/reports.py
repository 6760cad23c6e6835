"""The report: one release compared with another, as a page, its charts, and one file to keep."""

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from common.errors import InvalidInput
from common.pages import allow_charts
from deploy.models import Release
from deploy.reports.charts import draw_charts, list_chart_groups
from deploy.reports.comparison import Comparison
from deploy.reports.standalone import build_file_name, render_standalone
from deploy.reports.stored import compare_releases

OFFERED = 50
"""Releases that are offered for the comparison. The number of any other can be typed."""


@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    comparison = _compare(request, pk)
    newest = Release.objects.exclude(pk=pk).select_related("status")[:OFFERED]
    context = {
        "report": comparison,
        "chart_groups": list_chart_groups(comparison),
        "newest": newest,
        "has_charts": True,
    }
    return allow_charts(render(request, "deploy/report.html", context))


@require_safe
def charts(request: HttpRequest, pk: int, symbol: str) -> JsonResponse:
    """One coin's charts of both releases."""
    comparison = _compare(request, pk)
    if symbol not in comparison.coins:
        raise Http404(f"Release {pk} has no {symbol}.")
    return JsonResponse({"charts": draw_charts(comparison, symbol), "is_moving": False})


@require_safe
def file(request: HttpRequest, pk: int) -> HttpResponse:
    """The report to keep: one file that needs no network."""
    comparison = _compare(request, pk)
    disposition = f'attachment; filename="{build_file_name(comparison)}"'
    return HttpResponse(
        render_standalone(comparison, at=timezone.now()), headers={"Content-Disposition": disposition}
    )


def _compare(request: HttpRequest, pk: int) -> Comparison:
    release = get_object_or_404(Release.objects.select_related("status", "policy"), pk=pk)
    return compare_releases(release, _read_against(request))


def _read_against(request: HttpRequest) -> int | None:
    number = request.GET.get("against", "")
    if not number:
        return None
    if not number.isascii() or not number.isdigit() or len(number) > 18:
        raise InvalidInput(
            "Name the release to compare with by its number, as in ?against=1.", field="against"
        )
    return int(number)
