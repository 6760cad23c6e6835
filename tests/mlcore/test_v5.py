"""The V5 that a candidate is compared with: by its recipe, on the candidate's candles and windows, and nothing else."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load

from mlcore.bundle.format import WEIGHTS_FILE, Bundle
from mlcore.data import candles
from mlcore.evaluation import skill, v5
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.inspection import Inspection
from mlcore.features import labels
from mlcore.features.examples import build_examples
from mlcore.features.indicators import SCHEMAS

pytestmark = pytest.mark.slow


def fitted(folder: Path, frame: pl.DataFrame) -> Bundle:
    return v5.fit_baseline(folder, frame, coin="BTC", simulated=True, code_version="test")


def test_it_is_the_v5_that_the_recipe_trains_on_these_candles(
    v5_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    assert fitted(tmp_path / "v5", market).manifest.files == v5_bundle.manifest.files


def test_the_same_candles_give_the_same_bytes(market: pl.DataFrame, tmp_path: Path) -> None:
    assert fitted(tmp_path / "one", market).digest == fitted(tmp_path / "two", market).digest


def test_candles_after_the_fit_window_and_its_labels_change_no_weight(
    market: pl.DataFrame, tmp_path: Path
) -> None:
    examples = build_examples(market, SCHEMAS["relative72"])
    last = int(examples.bars[examples.split.fit.stop - 1]) + labels.HORIZON_BARS
    later = pl.int_range(pl.len()) > last
    changed = market.with_columns(
        pl.when(later).then(pl.col(name) * 1.5).otherwise(pl.col(name)).alias(name)
        for name in ("open", "high", "low", "close", "volume")
    )
    weights = [
        load((fitted(tmp_path / name, frame).folder / WEIGHTS_FILE).read_bytes())
        for name, frame in (("as it was", market), ("changed", changed))
    ]
    for name, values in weights[0].items():
        assert np.array_equal(values, weights[1][name])


def test_candles_are_split_at_the_same_bars_for_every_schema(market: pl.DataFrame) -> None:
    windows = [build_examples(market, schema).windows_with_digests() for schema in SCHEMAS.values()]
    assert windows == [windows[0]] * len(SCHEMAS)


def test_the_command_writes_the_bundle_or_says_why_not(
    market: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--coin", "BTC", "--simulated", "--code-version", "test"]

    def run(frame: pl.DataFrame, name: str) -> int:
        (tmp_path / "candles").write_bytes(candles.encode_canonical(frame))
        return v5.main(["--candles", str(tmp_path / "candles"), *options, "--output", str(tmp_path / name)])

    assert run(market, "v5") == 0
    assert (tmp_path / "v5" / "manifest.json").exists()
    assert run(market[:900], "short") == 2
    assert "v5: 688 usable rows; training needs 1,000" in capsys.readouterr().err


def test_a_baseline_of_other_bars_is_not_compared_with(
    v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    context = EvaluationContext(
        Inspection(v7_bundle.folder, v7_bundle.digest),
        market,
        baseline_folder=fitted(tmp_path / "v5", market[:8_000]).folder,
    )
    found = skill.measure_skill(context)["baseline"]
    assert "the baseline: it was fitted on 5,443 other bars" in found["problem"]
    assert found["difference"] is None
