"""The layout that a newcomer navigates: folders of a readable size, and no import cycle."""

import re
import subprocess
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import grimp
import pytest
from django.conf import settings

REPOSITORY = Path(settings.BASE_DIR)
PACKAGES = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["mypy"]["packages"]
PRODUCT = [name for name in PACKAGES if name not in ("tests", "benchmarks")]
MODULES_PER_FOLDER = 15
UNCOUNTED = ("migrations", "management/commands")  # they grow with every migration and every command


def test_no_folder_has_more_than_fifteen_modules() -> None:
    folders = Counter(
        path.parent.relative_to(REPOSITORY).as_posix()
        for package in PRODUCT
        for path in (REPOSITORY / package).rglob("*.py")
        if path.name != "__init__.py"
    )
    assert folders, "no product module found"
    assert {
        folder: count
        for folder, count in folders.items()
        if count > MODULES_PER_FOLDER and not folder.endswith(UNCOUNTED)
    } == {}


def test_no_state_of_the_service_is_committed() -> None:
    """A state folder that lies in the repository holds secrets, and `git add` takes them along."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("no git checkout: NOTHING is shown of what is committed")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    paths = listed.decode(errors="replace").rstrip("\0").split("\0")
    assert len(paths) > 1000
    assert [path for path in paths if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", path)] == []
    secret = re.compile(r"(secret_key|.*\.(sqlite3?|db|pem|key|rdb)|\.env)")
    assert [path for path in paths if secret.fullmatch(Path(path).name)] == []


def test_no_two_modules_import_each_other_even_by_way_of_others() -> None:
    graph = grimp.build_graph(*PRODUCT, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 200
    assert find_cycles(imports) == []


@pytest.mark.parametrize(
    ("imports", "cycles"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [{"a", "b"}]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": {"d"}}, [{"a", "b", "c"}, {"d", "e"}]),
    ],
    ids=["none", "a pair", "two cycles"],
)
def test_cycles_are_found(imports: Mapping[str, set[str]], cycles: list[set[str]]) -> None:
    assert find_cycles(imports) == cycles


def find_cycles(imports: Mapping[str, set[str]]) -> list[set[str]]:
    """Groups of modules that reach each other by imports."""
    reachable = {module: _reach(module, imports) for module in imports}
    groups = {
        frozenset(other for other in reachable[module] if module in reachable[other])
        for module in imports
        if module in reachable[module]
    }
    return sorted((set(group) for group in groups), key=sorted)


def _reach(module: str, imports: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(imports[module])
    while waiting:
        if (imported := waiting.pop()) not in reached:
            reached.add(imported)
            waiting += imports[imported]
    return reached
