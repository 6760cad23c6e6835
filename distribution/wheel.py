"""`python -m distribution.wheel [FOLDER]`: build the wheel that bots install, from the same files that the service runs.

`distribution/pyproject.toml` lists its packages.
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PYPROJECT = REPOSITORY / "distribution" / "pyproject.toml"


def build(target: Path) -> Path:
    """Build the wheel in `target`, without the network."""
    packages = tomllib.loads(PYPROJECT.read_text())["tool"]["setuptools"]["packages"]
    with tempfile.TemporaryDirectory() as staged:
        source = Path(staged)
        shutil.copy(PYPROJECT, source)
        for package in packages:  # each parent is listed before its children
            folder = Path(*package.split("."))
            (source / folder).mkdir()
            for module in (REPOSITORY / folder).glob("*.py"):
                shutil.copy(module, source / folder)
            if len(folder.parts) == 1:
                (source / folder / "py.typed").touch()
        options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--wheel-dir", str(target)]
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (wheel,) = target.glob("crpbot_runtime-*.whl")
    return wheel


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "dist"
    sys.stdout.write(f"{build(folder)}\n")
