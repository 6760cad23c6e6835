"""`python -m distribution.wheel [FOLDER]`: build the wheel that bots install, from the same files that the service runs.

`runtime` whole, and of `mlcore` the modules that it imports, found by reading the imports: the list cannot grow old.
"""

import ast
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def modules() -> set[Path]:
    """Every file of `runtime` and of what it imports from `mlcore`, relative to the repository."""
    found: set[Path] = set()
    waiting = [path.relative_to(REPOSITORY) for path in sorted((REPOSITORY / "runtime").glob("*.py"))]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path)
    return found


def build(target: Path) -> Path:
    """The wheel, built in `target` without the network."""
    with tempfile.TemporaryDirectory() as staged:
        source = Path(staged)
        shutil.copy(REPOSITORY / "distribution" / "pyproject.toml", source)
        for path in modules():
            (source / path.parent).mkdir(exist_ok=True)
            shutil.copy(REPOSITORY / path, source / path)
        for package in ("runtime", "mlcore"):
            (source / package / "py.typed").touch()
        options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--wheel-dir", str(target)]
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (wheel,) = target.glob("crpbot_runtime-*.whl")
    return wheel


def _imported(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] in ("runtime", "mlcore"):
                yield from _file_of(Path(*parts))


def _file_of(dotted: Path) -> Iterator[Path]:
    """The module of that name, with the package around it; nothing where the name is of something inside a module."""
    for path in (dotted.with_suffix(".py"), dotted.parent / "__init__.py", dotted / "__init__.py"):
        if path.parent != Path() and (REPOSITORY / path).is_file():
            yield path


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "dist"
    sys.stdout.write(f"{build(folder)}\n")
