"""Plotly's script as a static file from the installed package: no copy in the repository, no network."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.files.storage import FileSystemStorage

SCRIPT = "plotly.min.js"


class PlotlyFinder(BaseFinder):
    """Finds only `plotly.min.js`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        package = find_spec("plotly")
        folders = list(package.submodule_search_locations or []) if package else []
        self.storage = FileSystemStorage(location=str(Path(folders[0]) / "package_data") if folders else None)

    def check(self, **kwargs: Any) -> list[Any]:
        return []

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:
        paths = [self.storage.path(SCRIPT)] if path == SCRIPT and self.storage.exists(SCRIPT) else []
        return paths if find_all else (paths[0] if paths else [])

    def list(self, ignore_patterns: Any) -> Iterator[tuple[str, FileSystemStorage]]:
        if self.storage.exists(SCRIPT):
            yield SCRIPT, self.storage
