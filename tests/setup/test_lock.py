"""constraints.txt is what `make setup` installs: all of it, at one version each, by the hash of its files."""

import ast
import hashlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from django.conf import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from distribution.lock import ENTRY, get_name

REPOSITORY = Path(settings.BASE_DIR)
PRODUCT = (
    "accounts", "audit", "common", "crpbot", "crpbot_runtime", "deploy", "distribution", "gates", "machines", "mlcore",
    "studies", "training",
)  # fmt: skip
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
TEXT = (REPOSITORY / "constraints.txt").read_text()
SECTIONS = {
    section.partition("\n")[0]: ENTRY.findall(section.partition("\n")[2])
    for section in TEXT.split("# == ")[1:]
}
ENTRIES = [entry for section in SECTIONS.values() for entry in section]
HERE = [
    requirement
    for name, section in SECTIONS.items()
    if name != "cuda"  # only with torch's CUDA build
    for entry in section
    if not (requirement := Requirement(entry.partition(" \\")[0])).marker or requirement.marker.evaluate()
]
LOCKED = {canonicalize_name(each.name): Version(str(each.specifier).removeprefix("==")) for each in HERE}
DIRECT = [
    Requirement(text)
    for group in (PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"].values())
    for text in group
]


def test_every_package_is_locked_at_one_version_with_its_hashes() -> None:
    assert list(SECTIONS) == ["torch", "service", "sbom", "development", "cuda"]
    entry = re.compile(r"[a-z0-9-]+==[0-9][A-Za-z0-9.]*( ; [^\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+")
    assert [each[:60] for each in ENTRIES if not entry.fullmatch(each)] == []
    assert len({get_name(each) for each in ENTRIES}) == len(ENTRIES)
    assert len(LOCKED) == len(HERE)


def test_a_package_file_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    """The command of the Makefile, with one bit of a hash changed."""
    wheel = tmp_path / "crpbot_example-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = "crpbot_example-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: crpbot-example\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    options = re.search(
        r"^LOCKED_INSTALL = \$\(PY\) (.+) -r /dev/stdin$", (REPOSITORY / "Makefile").read_text(), re.M
    )
    assert options
    pip = [sys.executable, *shlex.split(options[1]), "--no-index", "--find-links", str(tmp_path), "--dry-run"]
    for hash, expected in ((digest, 0), (f"{int(digest[0], 16) ^ 1:x}{digest[1:]}", 1)):
        locked = f"crpbot-example==1.0 --hash=sha256:{hash}\n"
        done = subprocess.run([*pip, "-r", "/dev/stdin"], input=locked, text=True, capture_output=True)
        assert done.returncode == expected, done.stderr
    assert "DO NOT MATCH THE HASHES" in done.stderr


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


@pytest.mark.slow
@pytest.mark.parametrize("package", PRODUCT)
def test_the_product_imports_no_package_of_development(package: str) -> None:
    """Nor do functions when they are called: `make demo` installs only what the service needs."""
    imported = {name for module in (REPOSITORY / package).rglob("*.py") for name in _list_imports(module)}
    assert len(imported) > 1
    assert imported & {*_list_modules_of_development(), "tests", "benchmarks"} == set()


@pytest.mark.slow
@pytest.mark.long
def test_the_product_loads_without_the_packages_of_development() -> None:
    """Whatever settings name as text, or packages of the service import in turn."""
    code = f"""
import importlib, pkgutil, sys
import importlib.abc
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {_list_modules_of_development()}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import django
django.setup()
for package in {PRODUCT}:
    for module in pkgutil.walk_packages([package], f"{{package}}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "crpbot.settings"},
        capture_output=True,
        text=True,
    )
    assert loaded.returncode == 0, loaded.stderr


def _list_modules_of_development() -> set[str]:
    """The top-level modules that only packages of the development section bring."""
    packages = {canonicalize_name(get_name(entry)) for entry in SECTIONS["development"]}
    found = metadata.packages_distributions().items()
    return {name for name, distributions in found if {*map(canonicalize_name, distributions)} <= packages}


def _list_imports(module: Path) -> set[str]:
    """The top-level names that a module imports while it runs."""
    tree = ast.parse(module.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


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
