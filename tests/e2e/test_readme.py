"""README and docs/getting-started.md show commands that exist. tests/e2e/test_demo.py runs them."""

import re

import pytest

from tests.e2e import readme
from tests.processes import REPOSITORY

pytestmark = pytest.mark.slow

SHOWN = (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize("line", readme.list_commands())
def test_a_command_is_one_that_a_test_runs(line: str) -> None:
    targets = re.findall(r"^(\w+):.*##", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    if line.startswith("make "):
        assert line.split()[1] in targets
    else:
        assert line.startswith((".venv/bin/python ", "export "))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?:docs/|CONTRIBUTING)[^)#]*)[^)]*\)", SHOWN))))
def test_a_link_leads_somewhere(path: str) -> None:
    assert (REPOSITORY / path).exists()


def test_the_readme_fits_on_two_screens() -> None:
    assert len(SHOWN.splitlines()) <= 120


def test_every_decision_is_in_the_index_in_its_order() -> None:
    folder = REPOSITORY / "docs" / "adr"
    listed = re.findall(r"^\| \[\d{4}\]\(([^)]+)\)", (folder / "README.md").read_text(), re.MULTILINE)
    assert listed == sorted(path.name for path in folder.glob("0*.md"))
