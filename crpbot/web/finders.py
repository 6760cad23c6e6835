"""Plotly's script as a static file, from the package that pip installed: no copy in the repository, no network."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.files.storage import FileSystemStorage

SCRIPT = "plotly.min.js"


class PlotlyFinder(BaseFinder):
    """Finds `plotly.min.js` and nothing else of that folder."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        package = find_spec("plotly")
        places = list(package.submodule_search_locations or []) if package else []
        self.storage = FileSystemStorage(location=str(Path(places[0]) / "package_data") if places else None)

    def check(self, **kwargs: Any) -> list[Any]:
        return []

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:
        found = [self.storage.path(SCRIPT)] if path == SCRIPT and self.storage.exists(SCRIPT) else []
        return found if find_all else (found[0] if found else [])

    def list(self, ignore_patterns: Any) -> Iterator[tuple[str, FileSystemStorage]]:
        if self.storage.exists(SCRIPT):
            yield SCRIPT, self.storage
