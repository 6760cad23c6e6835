"""From a model set to its predictors: bundles are taken from the cache or downloaded, verified, loaded and warmed up.

Every coin of a set loads, or the whole set is refused.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO
from weakref import WeakValueDictionary

import numpy as np

from crpbot_runtime.errors import DownloadAborted, FileRefused, SetRefused
from crpbot_runtime.protocol.service import Write
from crpbot_runtime.protocol.snapshot import File, Model, ModelSet
from crpbot_runtime.storage.cache import Cache
from mlcore.bundle import format as bundle_format
from mlcore.bundle.predictor import Predictor
from mlcore.errors import BundleRefused
from mlcore.features import indicators

logger = logging.getLogger(__name__)

Download = Callable[[File, Write], None]
IsWanted = Callable[[], bool]
Verify = Callable[[Path], None]
Locate = Callable[[Model, Verify], Path]
"""Returns the folder of a model's bundle, after `Verify` accepted that folder."""

Predictors = Mapping[str, Predictor]
"""The predictor of each coin of one release."""

_predictors: WeakValueDictionary[str, Predictor] = WeakValueDictionary()
_loading = threading.Lock()


def renew_after_fork() -> None:
    """In the child no other thread loads."""
    global _loading
    _loading = threading.Lock()


class BundleLoader:
    """Loads model sets through one cache folder. Each wait for the folder's lock ends after `timeout_s`."""

    def __init__(self, cache: Cache, download: Download, *, timeout_s: float) -> None:
        self._cache, self._download, self._timeout_s = cache, download, timeout_s

    def load(self, model_set: ModelSet, is_wanted: IsWanted) -> Predictors:
        """Load a set, downloading what is missing. Raises ClientError: DownloadAborted once it is not wanted any more."""
        with self._cache.lock(self._timeout_s):
            self._cache.saved_state.save_revisions()
            # Before the download: this frees the space of crashed and refused downloads.
            self._cache.delete_unused(model_set.models.values())
            return _load_set(model_set, partial(self._locate_or_download, is_wanted))

    def load_from_disk(self, model_set: ModelSet) -> Predictors:
        """Load a set without the network. Raises CacheFailed and Refused."""
        return _load_set(model_set, self._locate)

    def restore_missing(self, model_set: ModelSet, is_wanted: IsWanted) -> None:
        """Download what was deleted from a folder that several clients share. The caller holds its lock."""
        if not all(self._cache.has_bundle(model) for model in model_set.models.values()):
            _load_set(model_set, partial(self._locate_or_download, is_wanted))

    def _locate_or_download(self, is_wanted: IsWanted, model: Model, verify: Verify) -> Path:
        if self._cache.has_bundle(model):
            try:
                return self._locate(model, verify)
            except SetRefused as error:
                logger.warning("a damaged bundle in the cache is downloaded again: %s", error)
        return self._cache.add_bundle(model, partial(self._download_file, is_wanted, model), verify)

    def _locate(self, model: Model, verify: Verify) -> Path:
        folder = self._cache.locate_bundle(model)
        verify(folder)
        return folder

    def _download_file(self, is_wanted: IsWanted, model: Model, name: str, target: BinaryIO) -> None:
        def write(chunk: bytes) -> None:
            if not is_wanted():
                raise DownloadAborted("the pointer names another release by now")
            target.write(chunk)

        try:
            self._download(model.files[name], write)
        except FileRefused as error:
            raise FileRefused(f"{model.coin}: {name}: {error}") from error


def _load_set(model_set: ModelSet, locate: Locate) -> Predictors:
    """A verified, warm predictor for each coin. Raises SetRefused, and whatever `locate` raises."""
    return MappingProxyType(
        {coin: _load_model(model_set, model, locate) for coin, model in model_set.models.items()}
    )


def _load_model(model_set: ModelSet, model: Model, locate: Locate) -> Predictor:
    _require_known_schema(model)  # before anything is downloaded
    folder = locate(model, partial(_verify_bundle, model_set, model))
    try:
        return _load_predictor(model.bundle, folder)
    except BundleRefused as error:
        raise SetRefused(f"{model.coin}: {error}") from error


def _load_predictor(digest: str, folder: Path) -> Predictor:
    """The bundle's predictor, shared by all clients of this process and by all releases with this bundle."""
    with _loading:
        predictor = _predictors.get(digest)
        if predictor is None:
            predictor = Predictor(folder)
            if predictor.digest != digest:
                raise BundleRefused(f"{folder} was changed while it was loaded")
            # The first prediction takes longer than later ones: warm up before a decision depends on it.
            predictor.logits(np.zeros((1, *predictor.schema.shape), np.float32))
            _predictors[digest] = predictor
        return predictor


def _require_known_schema(model: Model) -> None:
    own = indicators.find_schema(model.feature_schema)
    if own is None:
        raise SetRefused(
            f"{model.coin}: this client does not know the features {model.feature_schema!r}: update it"
        )
    if own.digest != model.schema_digest:
        raise SetRefused(
            f"{model.coin}: {model.feature_schema} is {model.schema_digest} at the service and {own.digest} here: "
            "the two compute different features; bring both to one version"
        )


def _verify_bundle(model_set: ModelSet, model: Model, folder: Path) -> None:
    """Raise SetRefused unless `folder` is this coin's bundle, of this line, as announced."""
    try:
        manifest = bundle_format.verify(folder, model.bundle).manifest
    except BundleRefused as error:
        raise SetRefused(f"{model.coin}: {error}") from error
    comparisons = {
        "coin": (manifest.coin, model.coin),
        "line": (manifest.line, model_set.line),
        "bar interval": (manifest.interval_seconds, model_set.interval_seconds),
        "feature schema": (manifest.schema_name, model.feature_schema),
        "classes": (manifest.classes, model.classes),
        "files": (sorted([*manifest.files, bundle_format.MANIFEST_FILE]), sorted(model.files)),
    }
    for name, (actual, expected) in comparisons.items():
        if actual != expected:
            raise SetRefused(f"{model.coin}: the bundle's {name}: {actual}; the snapshot says {expected}")
    if manifest.is_simulated and not model_set.is_simulated:
        raise SetRefused(f"{model.coin}: trained on a simulated market, and the snapshot does not say so")
