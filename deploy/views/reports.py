"""The report: one release against another, as a page, its charts, and one file to keep."""

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from common.errors import InvalidInput
from common.pages import allow_charts
from deploy.models import Release
from deploy.reports.comparison import Comparison
from deploy.reports.plots import draw_charts, list_chart_groups
from deploy.reports.standalone import name_of, standalone
from deploy.reports.stored import report


@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    found = _report(request, pk)
    others = Release.objects.exclude(pk=pk).select_related("status")
    context = {
        "report": found,
        "chart_groups": list_chart_groups(found),
        "others": others,
        "has_charts": True,
    }
    return allow_charts(render(request, "deploy/report.html", context))


@require_safe
def charts(request: HttpRequest, pk: int, symbol: str) -> JsonResponse:
    """One coin's pictures of both releases."""
    found = _report(request, pk)
    if symbol not in found.coins:
        raise Http404(f"Release {pk} holds no {symbol}.")
    return JsonResponse({"charts": draw_charts(found, symbol), "is_moving": False})


@require_safe
def file(request: HttpRequest, pk: int) -> HttpResponse:
    """The report to keep: one file that needs no network."""
    found = _report(request, pk)
    disposition = f'attachment; filename="{name_of(found)}"'
    return HttpResponse(standalone(found, at=timezone.now()), headers={"Content-Disposition": disposition})


def _report(request: HttpRequest, pk: int) -> Comparison:
    release = get_object_or_404(Release.objects.select_related("status", "policy"), pk=pk)
    return report(release, _against(request))


def _against(request: HttpRequest) -> int | None:
    asked = request.GET.get("against", "")
    if not asked:
        return None
    if not asked.isascii() or not asked.isdigit() or len(asked) > 18:
        raise InvalidInput(
            "Say which release to hold it against by its number, as in ?against=1.", field="against"
        )
    return int(asked)
