"""The glossary defines every state and gate that the code knows; docs/rules.md holds every rule that is cited."""

import importlib
import re
from enum import StrEnum
from pathlib import Path

import pytest

from gates.catalogue.live import LIVE_GATES
from gates.catalogue.registry import GATES
from tests.processes import REPOSITORY

PRODUCT = (
    "common",
    "audit",
    "accounts",
    "training",
    "studies",
    "machines",
    "gates",
    "deploy",
    "mlcore",
    "crpbot_runtime",
    "crpbot",
)
CITING = (*PRODUCT, "templates", "docs", "tests", "benchmarks")
GLOSSARY = (REPOSITORY / "docs" / "glossary.md").read_text()
RULES = {
    int(n) for n in re.findall(r"^## (\d+)\. ", (REPOSITORY / "docs" / "rules.md").read_text(), re.MULTILINE)
}
CITATION = re.compile(r"\brules? (\d+)\b|rules\.md#(\d+)", re.IGNORECASE)


def _state_enums() -> list[type[StrEnum]]:
    """Every StrEnum of the product. Only modules that declare one are imported."""
    for package in PRODUCT:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            if "(StrEnum)" in path.read_text():
                importlib.import_module(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))
    return [enum for enum in StrEnum.__subclasses__() if enum.__module__.split(".")[0] in PRODUCT]


def _tables() -> list[set[str]]:
    """The first column of each table of the glossary."""
    blocks = re.findall(r"(?:^\|.*\n)+", GLOSSARY, re.MULTILINE)
    return [set(re.findall(r"^\| `([^`]+)` \|", block, re.MULTILINE)) for block in blocks]


def _citing_files() -> list[Path]:
    named = [
        path
        for folder in CITING
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in (".py", ".html", ".md", ".js")
    ]
    return [*named, *REPOSITORY.glob("*.md")]


@pytest.mark.parametrize("enum", _state_enums(), ids=lambda enum: enum.__name__)
def test_one_table_of_the_glossary_defines_all_states_of_an_enum(enum: type[StrEnum]) -> None:
    states = {str(state) for state in enum}
    assert states in _tables(), f"no table of docs/glossary.md lists exactly {', '.join(sorted(states))}"


def test_the_glossary_defines_every_gate() -> None:
    defined = set().union(*_tables())
    assert set(GATES) | set(LIVE_GATES) <= defined


def test_the_glossary_defines_a_term_once() -> None:
    terms = re.findall(r"^### (.+)$", GLOSSARY, re.MULTILINE)
    assert sorted(terms) == sorted(set(terms))


def test_every_rule_that_is_cited_exists() -> None:
    missing = [
        f"{path.relative_to(REPOSITORY)}: rule {number}"
        for path in _citing_files()
        for match in CITATION.finditer(path.read_text())
        if (number := int(match[1] or match[2])) not in RULES
    ]
    assert not missing


def test_every_decision_that_is_cited_exists() -> None:
    decisions = {path.name[:4] for path in (REPOSITORY / "docs" / "adr").glob("0*.md")}
    cited = {
        (path.name, n)
        for path in _citing_files()
        for n in re.findall(r"(?:ADR |adr/)(\d{4})", path.read_text())
    }
    assert not {(name, number) for name, number in cited if number not in decisions}


def test_rules_are_numbered_without_a_gap_and_each_has_its_anchor() -> None:
    text = (REPOSITORY / "docs" / "rules.md").read_text()
    anchors = [int(n) for n in re.findall(r'^<a id="(\d+)"></a>$', text, re.MULTILINE)]
    assert anchors == sorted(RULES) == list(range(1, len(RULES) + 1))


def test_a_link_into_the_glossary_leads_to_a_term() -> None:
    terms = {
        term.lower().replace(",", "").replace(" ", "-")
        for term in re.findall(r"^### (.+)$", GLOSSARY, re.MULTILINE)
    }
    broken = [
        f"{path.relative_to(REPOSITORY)}: #{anchor}"
        for path in _citing_files()
        for anchor in re.findall(r"glossary\.md#([\w-]+)", path.read_text())
        if anchor not in terms
    ]
    assert not broken
