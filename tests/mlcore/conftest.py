"""Markets, trained coins and bundles, made once a session: training is the one slow thing here."""

import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mlcore.bundle.format import Bundle
from mlcore.bundle.writer import write_bundle
from mlcore.data import candles, simulate
from mlcore.fitting.fit import Trained, fit, prepare
from mlcore.fitting.recipes import RECIPES

REASON = (
    "CRPBOT_CANDLES_DIR is not set: this test needs the real candles (BTC.csv.gz, ETH.csv.gz, SOL.csv.gz)"
)

WriteBundle = Callable[[Trained, Path], Bundle]


@pytest.fixture(scope="session")
def real_candles() -> Callable[[str], pl.DataFrame]:
    folder = os.environ.get("CRPBOT_CANDLES_DIR")
    if not folder:
        pytest.skip(REASON)
    return lambda coin: candles.read(Path(folder) / f"{coin}.csv.gz")


@pytest.fixture(scope="session")
def market() -> pl.DataFrame:
    """A market with a drift to learn."""
    return simulate.simulate("BTC", 12_000, drift=1.2, seed=1)


@pytest.fixture(scope="session")
def v7(market: pl.DataFrame) -> Trained:
    recipe = RECIPES["v7_fixed"].with_parameters(epochs=8)
    return fit(prepare(market, recipe), recipe, seed=0, device="cpu")


@pytest.fixture(scope="session")
def v6(market: pl.DataFrame) -> Trained:
    recipe = RECIPES["v6_enhanced"]
    return fit(prepare(market, recipe), recipe, seed=0, device="cpu")


@pytest.fixture(scope="session")
def v5(market: pl.DataFrame) -> Trained:
    recipe = RECIPES["v5"]
    return fit(prepare(market, recipe), recipe, seed=0)


@pytest.fixture(scope="session")
def write(market: pl.DataFrame) -> WriteBundle:
    digest = candles.compute_digest(market)

    def written(trained: Trained, folder: Path) -> Bundle:
        return write_bundle(
            folder, trained, coin="BTC", dataset_digest=digest, simulated=True, code_version="test"
        )

    return written


@pytest.fixture(scope="session")
def v7_bundle(v7: Trained, write: WriteBundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write(v7, tmp_path_factory.mktemp("bundles") / "v7")


@pytest.fixture(scope="session")
def v6_bundle(v6: Trained, write: WriteBundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write(v6, tmp_path_factory.mktemp("bundles") / "v6")


@pytest.fixture(scope="session")
def v5_bundle(v5: Trained, write: WriteBundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write(v5, tmp_path_factory.mktemp("bundles") / "v5")
