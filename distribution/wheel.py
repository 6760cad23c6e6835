"""`python -m distribution.wheel [FOLDER]`: build the wheel that bots install, from the same files that the service runs.

It installs one top-level package, `crpbot_runtime`. The modules of `mlcore`, `gates` and `common` that the client imports,
directly or not, lie below it as `crpbot_runtime.mlcore` and so on, and every import of them is changed to that name.
"""

import ast
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PYPROJECT = REPOSITORY / "distribution" / "pyproject.toml"
CLIENT, SHARED = "crpbot_runtime", ("mlcore", "gates", "common")


def build(target: Path) -> Path:
    """Build the wheel in `target`, without the network."""
    with tempfile.TemporaryDirectory() as staged:
        source = Path(staged)
        shutil.copy(PYPROJECT, source)
        for module in sorted(find_modules()):
            below = module.relative_to(REPOSITORY)
            place = source / (below if below.parts[0] == CLIENT else Path(CLIENT) / below)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(rename_imports(module.read_text()))
        shutil.copy(REPOSITORY / CLIENT / "py.typed", source / CLIENT)
        options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--wheel-dir", str(target)]
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (wheel,) = target.glob("crpbot_runtime-*.whl")
    return wheel


def find_modules() -> set[Path]:
    """The files of the client, and those that they import of SHARED, directly or not, with their packages."""
    found: set[Path] = set()
    waiting = list((REPOSITORY / CLIENT).rglob("*.py"))
    while waiting:
        if (module := waiting.pop()) not in found:
            found.add(module)
            waiting += _find_imported(module)
    return found


def rename_imports(source: str) -> str:
    """The module's text with each import of `mlcore` changed to `crpbot_runtime.mlcore`, and so of all of SHARED.

    Raises ValueError for `import mlcore.x` without `as`: the name that it binds would be another.
    """
    lines = source.encode().splitlines(keepends=True)  # positions of `ast` count bytes
    starts = sorted(_find_names(ast.parse(source)), reverse=True)
    for line, column in starts:
        place = min(at for name in SHARED if (at := lines[line - 1].find(name.encode(), column)) >= 0)
        lines[line - 1] = lines[line - 1][:place] + f"{CLIENT}.".encode() + lines[line - 1][place:]
    return b"".join(lines).decode()


def _find_names(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """From which line and column on the name of a shared module follows."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _is_shared(node.module or ""):
            yield node.lineno, node.col_offset
        elif isinstance(node, ast.Import):
            for alias in filter(lambda alias: _is_shared(alias.name), node.names):
                if alias.asname is None:
                    raise ValueError(
                        f"line {node.lineno}: write `from mlcore import …`, not `import {alias.name}`"
                    )
                yield alias.lineno, alias.col_offset


def _find_imported(module: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(module.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in filter(_is_shared, names):
            parts = name.split(".")
            yield from filter(Path.exists, (_locate_package(parts[:end]) for end in range(1, len(parts) + 1)))
            yield from filter(Path.exists, [(REPOSITORY / Path(*parts)).with_suffix(".py")])


def _locate_package(parts: list[str]) -> Path:
    return REPOSITORY / Path(*parts) / "__init__.py"


def _is_shared(name: str) -> bool:
    return name.partition(".")[0] in SHARED


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "dist"
    sys.stdout.write(f"{build(folder)}\n")
