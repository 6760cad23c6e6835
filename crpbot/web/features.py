"""The 72 features and the label as a page: the sections of `mlcore.features.reference`, which docs/features.md has too."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe
from markdown_it import MarkdownIt

from mlcore.features import reference

_MARKDOWN = MarkdownIt("commonmark", {"html": False})
_NOWRAP = ("function", "feature", "bars", "replaces")
"""The columns whose cells stay on one line, where the screen is wide enough."""


@require_safe
def features(request: HttpRequest) -> HttpResponse:
    context = {"title": reference.TITLE, "sections": _list_sections(), "nowrap": _NOWRAP}
    return render(request, "crpbot/features.html", context)


def _list_sections() -> list[dict[str, Any]]:
    """Each section with its texts as HTML, and its tables as heads and rows of (head, cell)."""
    return [
        {
            "title": section.title,
            "paragraphs": [_render(text) for text in section.paragraphs],
            "tables": [
                {
                    "head": table.head,
                    "rows": [
                        [(head, _render(cell)) for head, cell in zip(table.head, row, strict=True)]
                        for row in table.rows
                    ],
                }
                for table in section.tables
            ],
        }
        for section in reference.list_sections()
    ]


def _render(text: str) -> SafeString:
    """Links into the glossary lead to its page."""
    html: str = _MARKDOWN.renderInline(text)
    return SafeString(html.replace('href="glossary.md', f'href="{reverse("glossary")}'))
