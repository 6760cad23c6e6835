"""Real bundles for the gates to measure: trained once, small, on a simulated market with a strong drift."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accounts.roles import Actor
from crpbot_runtime.train import Gate
from deploy.releases.coins import set_required
from gates.models import Measurement
from mlcore.bundle import writer
from mlcore.data.simulate import simulate
from mlcore.fitting import fit
from mlcore.fitting.recipes import RECIPES
from tests import factories
from training import artifact_store
from training.models import Artifact, Bundle, Coin, Dataset
from training.services import datasets

BARS, DRIFT, SEED = 8_000, 1.8, 6
SYSTEM = Actor("the tests", is_system=True)


@cache
def trained(line: str) -> fit.Trained:
    """One coin by this line's recipe, in fewer epochs than a release takes."""
    changes = {"epochs": 6, "batch_size": 256} if line == "v7_fixed" else {}
    recipe = RECIPES[line].with_parameters(**changes)
    return fit.fit(fit.prepare(simulate("BTC", BARS, DRIFT, SEED), recipe), recipe, seed=1, device="cpu")


def with_a_nan(healthy: fit.Trained) -> fit.Trained:
    """The same training with one weight that is not finite."""
    weights = {name: array.copy() for name, array in healthy.weights.items()}
    weights["fc2.weight"].flat[100] = np.nan
    return replace(healthy, weights=weights)


@dataclass(frozen=True)
class Desk:
    """A database and a file store with one coin's candles."""

    folder: Path
    dataset: Dataset

    def bundle(self, result: fit.Trained, *, coin: str = "BTC", registered_as: Coin | None = None) -> Bundle:
        """Write a bundle as a training worker does, and register it."""
        written = writer.write_bundle(
            self.folder / f"written-{Bundle.objects.count()}",
            result,
            coin=coin,
            dataset_digest=self.dataset.digest,
            simulated=True,
            code_version="tests",
        )
        made = Bundle.objects.create(
            digest=written.digest,
            coin=registered_as or self.dataset.coin,
            line=result.recipe.line,
            dataset=self.dataset,
            interval_seconds=self.dataset.interval_seconds,
            manifest=(written.folder / "manifest.json").read_text(),
            is_simulated=True,
        )
        for path in sorted(written.folder.iterdir()):
            data = path.read_bytes()
            Artifact.objects.create(
                bundle=made, name=path.name, sha256=artifact_store.store(data), size=len(data)
            )
        return made

    def stored(self, made: Bundle, name: str) -> Path:
        """Where the bytes of one file of a bundle lie."""
        return self.folder / "store" / artifact_store.key(made.artifacts.get(name=name).sha256)

    def candles(self) -> Path:
        return self.folder / "store" / artifact_store.key(self.dataset.digest.removeprefix("sha256:"))


@pytest.fixture(scope="session")
def kept_baselines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every V5 that was fitted for a test: as in one service, the next test on the same candles finds it."""
    return tmp_path_factory.mktemp("baselines")


@pytest.fixture
def desk(db: None, settings: Any, tmp_path: Path, kept_baselines: Path) -> Iterator[Desk]:
    """On a file store that may be damaged."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "training.atomic_storage.AtomicFileStorage",
            "OPTIONS": {"location": tmp_path / "store"},
        },
    }
    coin, _ = Coin.objects.get_or_create(symbol="BTC")
    dataset = datasets.simulate_candles(coin, bars=BARS, drift=DRIFT, seed=SEED, actor=SYSTEM).dataset
    stored = tmp_path / "store" / "baselines"
    shutil.copytree(kept_baselines, stored)
    yield Desk(tmp_path, dataset)
    shutil.copytree(stored, kept_baselines, dirs_exist_ok=True)


@pytest.fixture
def asked(desk: Desk) -> Callable[[fit.Trained], Measurement]:
    """A measurement that waits, of a bundle of this training."""

    def ask(result: fit.Trained) -> Measurement:
        return Measurement.objects.create(bundle=desk.bundle(result), dataset=desk.dataset)

    return ask


@pytest.fixture
def one_coin(settings: Any, tmp_path: Path, committed: None) -> Coin:
    """Bots trade one coin, and files lie in the test's own folder."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "training.atomic_storage.AtomicFileStorage",
            "OPTIONS": {"location": tmp_path / "store"},
        },
    }
    for coin in Coin.objects.exclude(symbol="BTC"):
        set_required(coin, False, actor=SYSTEM, reason="the desk trades one", is_confirmed=True)
    return Coin.objects.get(symbol="BTC")


@pytest.fixture
def gate(one_coin: Coin, live_server: Any) -> Iterator[Gate]:
    with connect(live_server, "operator") as gate:
        yield gate


def connect(live_server: Any, scope: str) -> Gate:
    person = factories.person(f"with-{scope}", "operator" if scope == "operator" else "viewer")
    return Gate(live_server.url, factories.token(person, scope), timeout_s=30)
