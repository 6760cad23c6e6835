"""The glossary as a page: docs/glossary.md, with a section per `##` heading and an entry per `###` heading."""

import re
from dataclasses import dataclass
from functools import cache
from html import unescape

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe

FILE = "docs/glossary.md"
_LINK = re.compile(r"\[([^\]]+)\]\(([^)]*)\)")
_MARKUP = (
    (re.compile(r"`(.+?)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*(.+?)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"\*(.+?)\*"), r"<em>\1</em>"),
)


@dataclass(frozen=True)
class Entry:
    """A term and its definition as HTML: paragraphs and tables."""

    term: str
    blocks: list[SafeString]

    @property
    def anchor(self) -> str:
        return make_anchor(self.term)

    @property
    def summary(self) -> str:
        """The first sentence without markup: the tooltip of a link to this entry."""
        text = unescape(re.sub(r"<[^>]+>", "", self.blocks[0])) if self.blocks else ""
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
    term, _, body = text.partition("\n")
    blocks = (block.strip() for block in re.split(r"\n\s*\n", body))
    return Entry(term.strip(), [_format_block(block) for block in blocks if block])


def _format_block(block: str) -> SafeString:
    if block.startswith("|"):
        return _format_table(block.splitlines())
    return format_html("<p>{}</p>", _format_text(" ".join(block.split())))


def _format_table(lines: list[str]) -> SafeString:
    """A Markdown table; its second line is the rule below the heads."""
    head, _, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    heads = format_html_join("", '<th scope="col">{}</th>', ((_format_text(cell),) for cell in head))
    body = format_html_join("", "<tr>{}</tr>", ((_format_cells(row),) for row in rows))
    return format_html("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", heads, body)


def _format_cells(row: list[str]) -> SafeString:
    return format_html_join("", "<td>{}</td>", ((_format_text(cell),) for cell in row))


def _format_text(text: str) -> SafeString:
    """Escaped text with emphasis, code and links within the glossary. Links to other documents become text."""
    html = _LINK.sub(_format_link, escape(text))
    for pattern, replacement in _MARKUP:
        html = pattern.sub(replacement, html)
    return mark_safe(html)


def _format_link(match: re.Match[str]) -> str:
    text, target = match.groups()
    return f'<a href="{target}">{text}</a>' if target.startswith("#") else text


@require_safe
def glossary(request: HttpRequest) -> HttpResponse:
    return render(request, "crpbot/glossary.html", {"sections": load_sections()})
