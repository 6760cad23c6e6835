"""The runbooks of alarms and alerts as pages: docs/operations/runbooks, the folder that the image brings along."""

import re
from functools import cache
from pathlib import Path

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe
from markdown_it import MarkdownIt

FOLDER = "docs/operations/runbooks"
_MARKDOWN = MarkdownIt("commonmark", {"html": False})
_LINK = re.compile(r'<a href="([^"]*)">(.*?)</a>')


@cache
def list_names() -> frozenset[str]:
    """The alarms and alerts that have one."""
    return frozenset(path.stem for path in _get_folder().glob("*.md"))


@require_safe
def runbook(request: HttpRequest, name: str) -> HttpResponse:
    """One runbook. The address ends as that of the documentation site, so that an alert can lead to either."""
    if name not in list_names():
        raise Http404
    title, body = _load(name)
    return render(request, "crpbot/runbook.html", {"title": title, "body": body})


@cache
def _load(name: str) -> tuple[str, SafeString]:
    """Title and text as HTML. A link to a page that is none here becomes text."""
    heading, _, text = (_get_folder() / f"{name}.md").read_text().partition("\n")
    # The documentation site wants a command of a list further in than CommonMark does.
    html = _MARKDOWN.render(text).replace("<pre><code> ", "<pre><code>")
    return heading.removeprefix("# "), mark_safe(_LINK.sub(_keep_runbooks, html))


def _keep_runbooks(link: re.Match[str]) -> str:
    target = link[1].removesuffix(".md")
    return f'<a href="{target}.html">{link[2]}</a>' if target in list_names() else link[2]


def _get_folder() -> Path:
    return Path(settings.BASE_DIR) / FOLDER
