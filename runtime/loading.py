"""From announced bundles to predictors that may decide: every coin's, or none."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from mlcore import bundle, features
from mlcore.errors import BundleRefused
from mlcore.predictor import Predictor
from runtime.errors import SetRefused
from runtime.snapshot import Model, Snapshot

Verify = Callable[[Path], None]
Locate = Callable[[Model, Verify], Path]
"""Gives the folder of a model's bundle, after the function handed to it found that folder sound."""


def load(snapshot: Snapshot, locate: Locate) -> Mapping[str, Predictor]:
    """A predictor for each coin, ready. Raises SetRefused, and whatever `locate` raises."""
    return MappingProxyType(
        {coin: _loaded(snapshot, model, locate) for coin, model in snapshot.models.items()}
    )


def _loaded(snapshot: Snapshot, model: Model, locate: Locate) -> Predictor:
    _expect_own_schema(model)  # before anything is downloaded
    folder = locate(model, partial(_verify, snapshot, model))
    try:
        return Predictor(folder)
    except BundleRefused as error:
        raise SetRefused(f"{model.coin}: {error}") from error


def _expect_own_schema(model: Model) -> None:
    own = features.SCHEMAS.get(model.feature_schema)
    if own is None:
        raise SetRefused(
            f"{model.coin}: this client does not know the features {model.feature_schema!r}: update it"
        )
    if own.digest != model.schema_digest:
        raise SetRefused(
            f"{model.coin}: {model.feature_schema} is {model.schema_digest} at the service and {own.digest} here: "
            "the two compute different features; bring both to one version"
        )


def _verify(snapshot: Snapshot, model: Model, folder: Path) -> None:
    """Raise SetRefused unless `folder` is this coin's bundle, of this line, as announced."""
    try:
        manifest = bundle.verify(folder, model.bundle).manifest
    except BundleRefused as error:
        raise SetRefused(f"{model.coin}: {error}") from error
    announced = {
        "coin": (manifest.coin, model.coin),
        "line": (manifest.line, snapshot.line),
        "feature schema": (manifest.schema_name, model.feature_schema),
        "classes": (manifest.classes, model.classes),
        "files": (sorted([*manifest.files, bundle.MANIFEST_FILE]), sorted(model.files)),
    }
    for name, (found, expected) in announced.items():
        if found != expected:
            raise SetRefused(f"{model.coin}: the bundle's {name}: {found}; the snapshot says {expected}")
    if manifest.is_simulated and not snapshot.is_simulated:
        raise SetRefused(f"{model.coin}: trained on a simulated market, and the snapshot does not say so")
