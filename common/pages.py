"""What the pages of every app have in common: parts that live, and lists by the page."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

ROWS_PER_PAGE = 25
_RESTLESS = re.compile(r"(<time [^>]*>)[^<]*|(name=\"csrfmiddlewaretoken\" value=\")[^\"]*")


def render_live(
    request: HttpRequest,
    page: str,
    part: str,
    context: Mapping[str, Any],
    *,
    every_seconds: int | None,
    status: int = 200,
) -> HttpResponse:
    """`page` around `part`, which loads itself again every few seconds, and is swapped only when it changed.

    None ends the asking; a page that asked until then is loaded afresh, as its other parts have changed too.
    """
    if is_partial(request) and every_seconds is None:
        return HttpResponse(headers={"HX-Refresh": "true"})
    content = render_to_string(part, dict(context), request=request)
    seen = fingerprint(f"{every_seconds} {content}")
    if is_partial(request) and request.GET.get("seen") == seen:
        return HttpResponse(status=204)
    query = request.GET.copy()
    query["seen"] = seen
    shown = {**context, "content": content, "every_seconds": every_seconds, "query": query.urlencode()}
    template = "crpbot/_live.html" if is_partial(request) else page
    return render(request, template, shown, status=status)


def fingerprint(content: str) -> str:
    """The same for the same content: ages ("2 s ago") and form tokens, which differ each time, do not count."""
    calm = _RESTLESS.sub(r"\1\2", content)
    return hashlib.sha256(calm.encode()).hexdigest()[:16]


def is_partial(request: HttpRequest) -> bool:
    """Whether htmx asks, for a part of the page it already shows."""
    return bool(getattr(request, "htmx", False))


def paginate(request: HttpRequest, rows: QuerySet[Any]) -> Page[Any]:
    """The page of rows that `?page=` names; the nearest one for a number out of range."""
    return Paginator(rows, ROWS_PER_PAGE).get_page(request.GET.get("page"))


def allow_charts(response: HttpResponse) -> HttpResponse:
    """Let this page's security policy allow the styles that Plotly writes."""
    response.has_charts = True  # type: ignore[attr-defined]
    return response
