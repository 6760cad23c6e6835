"""A page as a test reads it: its links, fields and labels, and what is inline."""

from html.parser import HTMLParser
from typing import Any


class Document(HTMLParser):
    """What a page holds that matters here."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.labelled: set[str] = set()
        self.fields: list[dict[str, Any]] = []
        self.inline: list[str] = []
        self._script: dict[str, Any] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.inline += [f"{tag} {name}" for name in found if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and not found.get("src")):
            self.inline.append(tag)
        if "id" in found:
            self.ids.append(str(found["id"]))
        if tag == "label":
            self.labelled.add(str(found.get("for")))
        if tag in ("input", "select", "textarea") and found.get("type") not in ("hidden", "submit"):
            self.fields.append(found)
        for name in ("href", "hx-get", "data-charts", "src"):
            if found.get(name):
                self.links.add(str(found[name]))
