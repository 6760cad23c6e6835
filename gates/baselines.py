"""The V5 that a candidate is compared with, as the workers keep it: fitted once for the same candles, terms and recipe."""

import hashlib
import io
import json
import logging
import shutil
import zipfile
from pathlib import Path

from django.conf import settings

from mlcore.bundle import format as bundle_format
from mlcore.bundle.format import MANIFEST_FILE, PAYLOAD_FILES
from mlcore.errors import BundleRefused
from mlcore.features.terms import DEFAULT_TERMS, Terms
from mlcore.fitting.recipes import BASELINE_LINE, RECIPES, build_baseline_recipe
from training import artifact_store
from training.models import Bundle, Dataset

logger = logging.getLogger(__name__)

_FILES = (MANIFEST_FILE, *PAYLOAD_FILES)


def build_key(dataset: Dataset, terms: Terms = DEFAULT_TERMS) -> str:
    """Of the candles and terms, which decide the windows and classes, of the recipe, and of the code."""
    recipe = build_baseline_recipe(terms)
    facts = [dataset.digest, recipe.input.digest, recipe.parameters(), terms.warm_up, settings.CODE_VERSION]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def find_trained(dataset: Dataset, terms: Terms = DEFAULT_TERMS) -> Bundle | None:
    """A V5 that this code trained on these candles: the same fit, since the recipe has no setting and draws nothing."""
    if terms != DEFAULT_TERMS:
        return None  # the line has no other terms
    for bundle in Bundle.objects.filter(line=BASELINE_LINE, dataset=dataset, origin="").order_by("id"):
        manifest = json.loads(bundle.manifest)
        stated = manifest.get("parameters"), manifest.get("code_version")
        if stated == (RECIPES[BASELINE_LINE].parameters(), settings.CODE_VERSION):
            return bundle
    return None


def load(dataset: Dataset, folder: Path, terms: Terms = DEFAULT_TERMS) -> bool:
    """Write the bundle that was fitted earlier into a new folder; False where there is none, or none that is whole."""
    data = artifact_store.find_baseline(build_key(dataset, terms))
    if data is None:
        return False
    folder.mkdir()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as stored:
            for name in _FILES:
                (folder / name).write_bytes(stored.read(name))
    except (zipfile.BadZipFile, KeyError):
        shutil.rmtree(folder)
        return False
    return is_whole(folder)


def is_whole(folder: Path) -> bool:
    """Whether the folder holds a bundle with all its files as listed; what is not whole is deleted."""
    try:
        bundle_format.verify(folder)
    except BundleRefused:
        shutil.rmtree(folder)
        return False
    return True


def store(dataset: Dataset, folder: Path, terms: Terms = DEFAULT_TERMS) -> None:
    """Keep a bundle that was just fitted. A store that takes nothing costs another fit, and no measurement."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in _FILES:
            archive.write(folder / name, name)
    try:
        artifact_store.store_baseline(build_key(dataset, terms), packed.getvalue())
    except artifact_store.StoreUnavailable as error:
        logger.warning("the V5 that was fitted is not kept: %s", error)
