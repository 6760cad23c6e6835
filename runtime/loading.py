"""From announced bundles to predictors that may decide: every coin's, or none."""

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from weakref import WeakValueDictionary

import numpy as np

from mlcore.bundle import format as bundle_format
from mlcore.bundle.predictor import Predictor
from mlcore.errors import BundleRefused
from mlcore.features import indicators
from runtime.errors import SetRefused
from runtime.protocol.snapshot import Model, Named

Verify = Callable[[Path], None]
Locate = Callable[[Model, Verify], Path]
"""Gives the folder of a model's bundle, after the function handed to it found that folder sound."""

Predictors = Mapping[str, Predictor]
"""What decides for each coin of one release."""

_in_use: WeakValueDictionary[str, Predictor] = WeakValueDictionary()
_loading = threading.Lock()


def load(named: Named, locate: Locate) -> Predictors:
    """A predictor for each coin, verified and warm. Raises SetRefused, and whatever `locate` raises."""
    return MappingProxyType({coin: _loaded(named, model, locate) for coin, model in named.models.items()})


def _loaded(named: Named, model: Model, locate: Locate) -> Predictor:
    _expect_own_schema(model)  # before anything is downloaded
    folder = locate(model, partial(_verify, named, model))
    try:
        return _predictor(model.bundle, folder)
    except BundleRefused as error:
        raise SetRefused(f"{model.coin}: {error}") from error


def _predictor(digest: str, folder: Path) -> Predictor:
    """The bundle's predictor; all clients of this process, and a release and its successor, share what is the same."""
    with _loading:
        found = _in_use.get(digest)
        if found is None:
            found = Predictor(folder)
            if found.digest != digest:
                raise BundleRefused(f"{folder} was changed while it was loaded")
            # The first answer takes longer than those after it, and must not be the first that counts.
            found.logits(np.zeros((1, len(found.schema.columns)), np.float32))
            _in_use[digest] = found
        return found


def _expect_own_schema(model: Model) -> None:
    own = indicators.SCHEMAS.get(model.feature_schema)
    if own is None:
        raise SetRefused(
            f"{model.coin}: this client does not know the features {model.feature_schema!r}: update it"
        )
    if own.digest != model.schema_digest:
        raise SetRefused(
            f"{model.coin}: {model.feature_schema} is {model.schema_digest} at the service and {own.digest} here: "
            "the two compute different features; bring both to one version"
        )


def _verify(named: Named, model: Model, folder: Path) -> None:
    """Raise SetRefused unless `folder` is this coin's bundle, of this line, as announced."""
    try:
        manifest = bundle_format.verify(folder, model.bundle).manifest
    except BundleRefused as error:
        raise SetRefused(f"{model.coin}: {error}") from error
    announced = {
        "coin": (manifest.coin, model.coin),
        "line": (manifest.line, named.line),
        "feature schema": (manifest.schema_name, model.feature_schema),
        "classes": (manifest.classes, model.classes),
        "files": (sorted([*manifest.files, bundle_format.MANIFEST_FILE]), sorted(model.files)),
    }
    for name, (found, expected) in announced.items():
        if found != expected:
            raise SetRefused(f"{model.coin}: the bundle's {name}: {found}; the snapshot says {expected}")
    if manifest.is_simulated and not named.is_simulated:
        raise SetRefused(f"{model.coin}: trained on a simulated market, and the snapshot does not say so")
