"""The steps of "Your first change: a gate", made in a copy of the repository; the tests of the copy pass."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import REPOSITORY

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / "docs" / "development" / "first-change-gate.md"
BLOCK = re.compile(
    r'^```\w+\n# (?P<file>[\w./]+)(?:, below "(?P<line>[^\n]+)"|, at the end)?\n(?P<code>.*?)^```',
    re.M | re.S,
)
FOLDERS = (
    "accounts", "audit", "common", "crpbot", "deploy", "docs", "gates", "machines", "mlcore", "crpbot_runtime", "templates",
    "studies", "tests", "training",
)  # fmt: skip
TESTS = (
    "tests/gates/test_mean_confidence.py",
    "tests/gates/test_differences.py",
    "tests/docs/test_terms.py::test_the_glossary_defines_every_gate",
    "tests/faults/test_faults.py::test_a_planted_fault_is_caught_by_the_gate_it_names[unsure of everything]",
    "tests/faults/test_faults.py::test_every_fault_has_a_name_of_its_own_and_names_a_required_gate",
)


def apply(block: re.Match[str], folder: Path) -> None:
    """Append the code to its file, or insert it below the line that the block names."""
    path = folder / block["file"]
    if block["line"] is None:
        before = path.read_text() + "\n\n" if path.exists() else ""
        path.write_text(before + block["code"])
        return
    text = path.read_text()
    assert text.count(f"{block['line']}\n") == 1, f"{path} has no single line {block['line']}"
    path.write_text(text.replace(f"{block['line']}\n", f"{block['line']}\n{block['code']}"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "manage.py"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


@pytest.mark.long
def test_a_gate_takes_one_product_file_a_test_and_a_fault(copy: Path) -> None:
    blocks = list(BLOCK.finditer(PAGE.read_text()))
    for block in blocks:
        apply(block, copy)
    product = [block["file"] for block in blocks if not block["file"].startswith(("tests/", "docs/"))]
    assert product == ["gates/catalogue/skill.py"]

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *TESTS]
    ran = subprocess.run(
        command,
        cwd=copy,
        env={**os.environ, "SLIPCOVER_ENABLED": "", "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
