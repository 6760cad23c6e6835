"""What the documents name exists: commands, make targets, settings, files, API addresses."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from django.core.management import get_commands
from drf_spectacular.generators import SchemaGenerator

from tests.docs.prose import documents
from tests.processes import REPOSITORY

TEXTS = {str(path.relative_to(REPOSITORY)): path.read_text() for path in documents()}
ADDED_BY_A_READER = {"moves", "deploy/views/signing_keys.py", "tests/deploy/test_moves_command.py"}
"""Files and commands that the pages on first changes ask their reader to add."""


def named(pattern: str) -> set[tuple[str, str]]:
    return {(page, name) for page, text in TEXTS.items() for name in re.findall(pattern, text)}


def test_every_command_of_manage_py_exists() -> None:
    found = named(r"manage\.py ([a-z_]+)")
    assert not {(page, name) for page, name in found if name not in {*get_commands(), *ADDED_BY_A_READER}}


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert not {(page, name) for page, name in named(r"`make ([a-z-]+)") if name not in targets}


def test_every_setting_exists() -> None:
    files = (
        "crpbot/settings.py",
        "docker-compose.yml",
        "Dockerfile",
        "tests/settings.py",
        "crpbot_runtime/__main__.py",
    )
    folders = ("crpbot", "tests", "crpbot_runtime", "docs")
    known = "".join((REPOSITORY / name).read_text() for name in files)
    known += "".join(path.read_text() for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))
    assert not {(page, name) for page, name in named(r"CRPBOT_[A-Z0-9_]+") if name not in known}


@pytest.mark.parametrize("page", TEXTS)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    paths = re.findall(r"`((?:[a-z_]+/)+[\w.-]+\.(?:py|html|toml|yml|md))(?:::\w+)?`", TEXTS[page])
    missing = {path for path in paths if not _exists(path, Path(page).parent)}
    assert not missing - ADDED_BY_A_READER


def _exists(path: str, folder: Path) -> bool:
    return (REPOSITORY / path).exists() or (REPOSITORY / folder / path).exists()


def test_every_module_that_a_page_names_exists() -> None:
    packages = "accounts|audit|common|crpbot|deploy|gates|machines|mlcore|crpbot_runtime|training|studies"
    missing = set()
    for page, name in named(rf"`((?:{packages})(?:\.\w+)+)`"):
        parts = name.split(".")
        places = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
        if name.split(".")[-1] not in ("py", "md") and not _is_defined(parts, places):
            missing.add((page, name))
    assert not missing


def test_every_module_of_the_architecture_page_exists() -> None:
    package, missing = "", []
    for folder, modules in re.findall(
        r"^\| (?:`(\w+)/`)? ?\| (`[^|]*`) \|", TEXTS["docs/architecture.md"], re.MULTILINE
    ):
        package = folder or package
        for module in re.findall(r"`(\w+)`", modules):
            place = REPOSITORY / package / module
            if not place.is_dir() and not place.with_suffix(".py").exists():
                missing.append(f"{package}/{module}")
    assert package == "crpbot_runtime"
    assert not missing


def _is_defined(parts: list[str], places: list[str]) -> bool:
    """A package, a module, or a name that its module defines or imports."""
    for used, place in zip(range(len(parts), 0, -1), places, strict=True):
        for file in (REPOSITORY / f"{place}.py", REPOSITORY / place / "__init__.py"):
            if file.exists():
                rest = parts[used:]
                return not rest or re.search(rf"\b{re.escape(rest[0])}\b", file.read_text()) is not None
    return False


ROW = re.compile(r"^\| [^|]+ \| `(tests/[\w/]+\.py)::([\w:]+)` \| [^|]+ \|$", re.MULTILINE)
"""Of docs/security.md: attack or fault, the test that carries it out, and what the service does."""


def test_every_row_of_the_security_page_names_its_own_test() -> None:
    text = TEXTS["docs/security.md"]
    rows = ROW.findall(text)
    assert [(file, name) for file, name in rows if name not in _list_tests(file)] == []
    assert len(set(rows)) == len(rows) >= 80
    written = [line for line in text.splitlines() if re.match(r"\| (?!attack or fault \||---)", line)]
    assert [line for line in written if not ROW.match(line)] == [], "a row has three cells and one test"


@cache
def _list_tests(file: str) -> frozenset[str]:
    """The tests of a module, as pytest names them behind the file."""
    path = REPOSITORY / file
    body = ast.parse(path.read_text()).body if path.exists() else []
    groups = [("", body), *((f"{node.name}::", node.body) for node in body if isinstance(node, ast.ClassDef))]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(
        prefix + node.name
        for prefix, nodes in groups
        for node in nodes
        if isinstance(node, functions) and node.name.startswith("test_")
    )


def test_the_api_page_names_every_operation_and_no_other() -> None:
    paths = SchemaGenerator().get_schema(public=True)["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    shown = set(re.findall(r"(GET|POST|PATCH|PUT|DELETE) ([a-z]+/[\w/{}.]*)", TEXTS["docs/api.md"]))
    assert {_plain(operation) for operation in shown} == {_plain(operation) for operation in described}


def _plain(operation: tuple[str, str]) -> str:
    """Without the prefix, and without the names of what is in braces."""
    method, path = operation
    return f"{method} {re.sub(r'{[^}]*}', '{}', path.removeprefix('/api/v1/'))}"
