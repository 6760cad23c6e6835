import subprocess
import sys
import tomllib
from pathlib import Path

from django.conf import settings

REPOSITORY = Path(settings.BASE_DIR)
IMPORTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]


def test_imports_flow_the_way_the_contracts_say() -> None:
    linted = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert linted.returncode == 0, linted.stdout


def test_every_package_of_the_project_is_under_the_contracts() -> None:
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {
        "tests",
        "benchmarks",
        "distribution",
    }
    assert packages == set(IMPORTS["root_packages"])
