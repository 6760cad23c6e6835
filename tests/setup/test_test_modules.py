"""Test modules: names have at most 70 characters, shared code is in helper modules, and no test depends on their order."""

import re
from pathlib import Path

import pytest

from tests.processes import REPOSITORY

MODULES = sorted((REPOSITORY / "tests").rglob("*.py"))
LONGEST_NAME = 70
IMPORT = re.compile(r"^\s*(?:from|import) tests\.(?:\w+\.)*test_\w+", re.MULTILINE)

SHARED_GENERATOR = re.compile(
    r"^(\w+)(?:: [^=\n]+)? = (?:np\.random\.(?:default_rng|RandomState)|(?:random\.)?Random)\([^()]*\)$",
    re.MULTILINE,
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_names_are_short_and_no_test_module_is_imported(path: Path) -> None:
    text = path.read_text()
    names = re.findall(r"^\s*(?:async )?def (test_\w+)", text, re.MULTILINE)
    assert [name for name in names if len(name) > LONGEST_NAME] == []
    assert IMPORT.findall(text) == []
    assert SHARED_GENERATOR.findall(text) == [], "its numbers depend on the tests that ran before"
    if not path.name.startswith("test_") and path.name != "long_tests.py":
        # tests/conftest.py recognizes the modules of a pass by these words, and leaves the others out.
        assert re.findall(r"\bmark\.(?:postgresql|long)\b", text) == [], "write the mark in the test module"
