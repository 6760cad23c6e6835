"""Common to all pages: parts that refresh themselves, pagination, charts."""

import hashlib
import re
from collections.abc import Hashable, Mapping, MutableMapping
from typing import Any

from django.core.paginator import Page
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from common.paging import RowPaginator

ROWS_PER_PAGE = 25
_VOLATILE = re.compile(r"(<time [^>]*>)[^<]*|(name=\"csrfmiddlewaretoken\" value=\")[^\"]*")


def render_live(
    request: HttpRequest,
    page: str,
    part: str,
    context: Mapping[str, Any],
    *,
    every_seconds: int | None,
    status: int = 200,
    fingerprints: MutableMapping[Hashable, str] | None = None,
    reader: Hashable = None,
) -> HttpResponse:
    """Render `page` around `part`, which polls every few seconds and is replaced only when it changed.

    None ends the polling; a page that polled until then reloads, because its other parts have changed too.
    `fingerprints` belong to one reading of the data that many browsers share, by all else that the content depends on
    (`reader`): a browser that has this content already is answered without rendering it again.
    """
    if is_partial(request) and every_seconds is None:
        return HttpResponse(headers={"HX-Refresh": "true"})
    rendered = {} if fingerprints is None else fingerprints
    if is_partial(request) and reader in rendered and request.GET.get("seen") == rendered[reader]:
        return HttpResponse(status=204)
    content = render_to_string(part, dict(context), request=request)
    seen = rendered[reader] = compute_fingerprint(f"{every_seconds} {content}")
    if is_partial(request) and request.GET.get("seen") == seen:
        return HttpResponse(status=204)
    query = request.GET.copy()
    query["seen"] = seen
    shown = {**context, "content": content, "every_seconds": every_seconds, "query": query.urlencode()}
    template = "crpbot/_live.html" if is_partial(request) else page
    return render(request, template, shown, status=status)


def compute_fingerprint(content: str) -> str:
    """A hash of the content without ages ("2 s ago") and form tokens, which always differ."""
    stable = _VOLATILE.sub(r"\1\2", content)
    return hashlib.sha256(stable.encode()).hexdigest()[:16]


def is_partial(request: HttpRequest) -> bool:
    """Whether htmx requests a part of the page."""
    return bool(getattr(request, "htmx", False))


def paginate(request: HttpRequest, rows: QuerySet[Any]) -> Page[Any]:
    """The page of rows that `?page=` names, or the nearest one."""
    return RowPaginator(rows, ROWS_PER_PAGE).get_page(request.GET.get("page"))


def allow_charts(response: HttpResponse) -> HttpResponse:
    """Allow the styles that Plotly writes in the page's security policy."""
    response.has_charts = True  # type: ignore[attr-defined]
    return response
