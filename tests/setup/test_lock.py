"""constraints.txt is what `make setup` installs: all of it, at one version each, from any index."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from django.conf import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(settings.BASE_DIR)
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
LINES = [
    line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")
]
LOCKED = {
    canonicalize_name(name): Version(version) for name, _, version in (x.partition("==") for x in LINES)
}
DIRECT = [
    Requirement(text) for text in PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
]


def test_every_line_is_a_name_at_one_version() -> None:
    assert [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert len(LOCKED) == len(LINES)


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_what_the_project_asks_for_is_locked_within_its_bounds(requirement: Requirement) -> None:
    assert LOCKED[canonicalize_name(requirement.name)] in requirement.specifier


def test_what_those_need_in_turn_is_locked_too() -> None:
    unlocked = {
        f"{name} needs {needed}"
        for name, needed in _needed_in_turn(DIRECT)
        if (found := LOCKED.get(canonicalize_name(needed.name))) is None
        or not needed.specifier.contains(found, prereleases=True)
    }
    assert unlocked == set()


def test_nothing_is_locked_that_nobody_needs() -> None:
    needed = {canonicalize_name(r.name) for r in DIRECT}
    needed |= {canonicalize_name(r.name) for _, r in _needed_in_turn(DIRECT)}
    assert set(LOCKED) - needed == set()


def test_torch_is_the_release_the_service_was_measured_with() -> None:
    assert str(LOCKED[canonicalize_name("torch")]) == "2.13.0"


def test_the_tests_run_on_the_locked_versions() -> None:
    found = {name: Version(metadata.version(name)).public for name in LOCKED}
    assert found == {name: str(version) for name, version in LOCKED.items()}


def _needed_in_turn(requirements: list[Requirement]) -> list[tuple[str, Requirement]]:
    """(who, what) for everything below these requirements, on this Python."""
    found: list[tuple[str, Requirement]] = []
    waiting = list(requirements)
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        asked = waiting.pop()
        key = (canonicalize_name(asked.name), frozenset(asked.extras))
        if key in seen:
            continue
        seen.add(key)
        for text in metadata.requires(asked.name) or []:
            needed = Requirement(text)
            contexts = [{"extra": extra} for extra in (*asked.extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(context) for context in contexts):
                found.append((asked.name, needed))
                waiting.append(needed)
    return found
