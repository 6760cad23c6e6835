"""From a release that is named to its predictors: what the folder holds is used, the rest is downloaded, all is verified."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from runtime.errors import FileRefused, SetRefused, Superseded
from runtime.loading import Predictors, Verify, load
from runtime.protocol.service import Target
from runtime.protocol.snapshot import File, Model, Named
from runtime.storage.cache import Cache

logger = logging.getLogger(__name__)

Fetch = Callable[[File, Target], None]
"""Downloads one file."""


class Fetcher:
    """Brings sets of bundles into one cache folder. Each wait for the folder's lock ends after `timeout_s`."""

    def __init__(self, cache: Cache, fetch: Fetch, *, timeout_s: float) -> None:
        self._cache, self._fetch, self._timeout_s = cache, fetch, timeout_s

    def bring(self, named: Named, is_wanted: Callable[[], bool]) -> Predictors:
        """Every coin's predictor, warm, its bundle on the disk. Raises ClientError: Superseded once it is not wanted."""
        with self._cache.exclusive(self._timeout_s):
            self._cache.notes.write_marks()
            # Before the download: a disk full of what crashes and refusals left has room again.
            self._cache.prune(named.models.values())
            return load(named, partial(self._bundle, is_wanted))

    def from_disk(self, named: Named) -> Predictors:
        """The same, and nothing is downloaded. Raises CacheFailed and Refused."""
        return load(named, self._on_disk)

    def complete(self, named: Named, is_wanted: Callable[[], bool]) -> None:
        """Bring back what has gone from a folder that several clients share. The caller holds its lock."""
        if not all(self._cache.holds(model) for model in named.models.values()):
            load(named, partial(self._bundle, is_wanted))

    def _bundle(self, is_wanted: Callable[[], bool], model: Model, verify: Verify) -> Path:
        """The bundle's folder, downloaded where it is not at hand or not what it should be."""
        if self._cache.holds(model):
            try:
                return self._on_disk(model, verify)
            except SetRefused as error:
                logger.warning("downloading again what lies damaged in the cache: %s", error)
        return self._cache.admit(model, partial(self._download, is_wanted, model), verify)

    def _on_disk(self, model: Model, verify: Verify) -> Path:
        folder = self._cache.bundle(model)
        verify(folder)
        return folder

    def _download(self, is_wanted: Callable[[], bool], model: Model, name: str, target: BinaryIO) -> None:
        try:
            self._fetch(model.files[name], _Interruptible(target, is_wanted))
        except FileRefused as error:
            raise FileRefused(f"{model.coin}: {name}: {error}") from error


class _Interruptible:
    """A file that a download writes to for as long as it is wanted."""

    def __init__(self, file: BinaryIO, is_wanted: Callable[[], bool]) -> None:
        self._file, self._is_wanted = file, is_wanted

    def write(self, chunk: bytes, /) -> object:
        if not self._is_wanted():
            raise Superseded("the pointer meanwhile names something else")
        return self._file.write(chunk)
