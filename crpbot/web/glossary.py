"""The glossary as a page: docs/glossary.md, with a section per `##` heading and an entry per `###` heading."""

import re
from dataclasses import dataclass
from functools import cache
from html import unescape

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.html import strip_tags
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe
from markdown_it import MarkdownIt

FILE = "docs/glossary.md"
_PAGES = {"features.md": "features"}
"""Documents that are pages too, by the names of these."""
_LINK_ELSEWHERE = re.compile(r'<a href="([^#"][^"]*)">(.*?)</a>')
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


@dataclass(frozen=True)
class Entry:
    """A term and its definition as HTML: paragraphs and tables."""

    term: str
    definition: SafeString

    @property
    def anchor(self) -> str:
        return make_anchor(self.term)

    @property
    def summary(self) -> str:
        """The first sentence without markup: the tooltip of a link to this entry."""
        paragraph, _, _ = self.definition.partition("</p>")
        text = " ".join(unescape(strip_tags(paragraph)).split())
        return re.split(r"(?<=[.!?]) ", text)[0]


@dataclass(frozen=True)
class Section:
    title: str
    entries: list[Entry]


@cache
def load_sections() -> list[Section]:
    """The sections in the order of the file; none where the file is missing."""
    path = settings.BASE_DIR / FILE
    return parse_sections(path.read_text()) if path.exists() else []


def parse_sections(text: str) -> list[Section]:
    return [
        Section(title.strip(), [_parse_entry(part) for part in body.split("\n### ")[1:]])
        for title, _, body in (part.partition("\n") for part in text.split("\n## ")[1:])
    ]


def find_entry(term: str) -> Entry | None:
    return _entries_by_anchor().get(make_anchor(term))


@cache
def _entries_by_anchor() -> dict[str, Entry]:
    return {entry.anchor: entry for section in load_sections() for entry in section.entries}


def make_anchor(term: str) -> str:
    """The anchor that Markdown renderers give a heading."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", term.lower()).strip())


def _parse_entry(text: str) -> Entry:
    """Links to documents that are no page become text; HTML in the file is shown as it is written."""
    term, _, body = text.partition("\n")
    html = _LINK_ELSEWHERE.sub(_link_page, _MARKDOWN.render(body)).replace("<th>", '<th scope="col">')
    return Entry(term.strip(), mark_safe(html))


def _link_page(link: re.Match[str]) -> str:
    page = _PAGES.get(link[1])
    return f'<a href="{reverse(page)}">{link[2]}</a>' if page else link[2]


@require_safe
def glossary(request: HttpRequest) -> HttpResponse:
    return render(request, "crpbot/glossary.html", {"sections": load_sections()})
