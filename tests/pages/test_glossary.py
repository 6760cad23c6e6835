"""The glossary page, and the links of the other pages to it."""

import re
from html import escape

import pytest
from django.conf import settings

from crpbot.web.glossary import find_entry, load_sections, parse_sections
from tests.pages.conftest import SignedIn
from tests.pages.example_data import ExampleData

TEXT = """# Glossary

Introduction.

## Releases

### fallback monitor

Checks the *fallback* <often>. See [release](#release), [the rules](rules.md) and [formulas](features.md).

| state | meaning |
| --- | --- |
| `live` | **runs** |

### release

One line for every coin.
"""
TERM = re.compile(r'{% term "([^"]+)"')


def test_a_section_has_its_entries_as_escaped_html() -> None:
    (section,) = parse_sections(TEXT)
    monitor, release = section.entries
    assert (section.title, monitor.anchor, release.anchor) == ("Releases", "fallback-monitor", "release")
    assert "<em>fallback</em> &lt;often&gt;" in monitor.definition
    assert (
        '<a href="#release">release</a>, the rules and <a href="/features/">formulas</a>.'
        in monitor.definition
    )
    assert "<td><code>live</code></td>\n<td><strong>runs</strong></td>" in monitor.definition
    assert '<th scope="col">state</th>' in monitor.definition
    assert monitor.summary == "Checks the fallback <often>."


def test_every_term_of_a_page_is_in_the_glossary() -> None:
    pages = [path.read_text() for path in (settings.BASE_DIR / "templates").rglob("*.html")]
    terms = {term for page in pages for term in TERM.findall(page)}
    assert len(terms) > 20
    assert {term for term in terms if find_entry(term) is None} == set()


@pytest.mark.django_db
def test_the_page_lists_every_term_of_the_file(examples: ExampleData, signed_in: SignedIn) -> None:
    page = signed_in("victor").get("/glossary/").content.decode()
    anchors = [entry.anchor for section in load_sections() for entry in section.entries]
    assert len(anchors) > 50
    assert [anchor for anchor in anchors if f'id="{anchor}"' not in page] == []


@pytest.mark.django_db
def test_the_page_of_features_has_what_the_document_has(examples: ExampleData, signed_in: SignedIn) -> None:
    client = signed_in("victor")
    page = client.get("/features/").content.decode()
    document = (settings.BASE_DIR / "docs" / "features.md").read_text()
    formulas = re.findall(r"^\| \d+ \| `(\w+)` \| `(.+?)` \| (t[^|]*) \|", document, re.MULTILINE)
    assert len(formulas) == 72 + 26
    for name, formula, bars in formulas:
        cells = (f"<code>{name}</code>", f"<code>{escape(formula)}</code>", bars)
        assert re.search(r"\s*".join(f"<td[^>]*><span>{re.escape(cell)}</span></td>" for cell in cells), page)
    assert 'href="/glossary/#lookback"' in page
    for linking in ("/datasets/", "/bundles/", "/glossary/"):
        assert 'href="/features/"' in client.get(linking).content.decode()
