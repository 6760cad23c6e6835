"""A bundle beside a second training of it: equal files, or how far the answers are apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlcore.bundle.format import MODEL_FILE, Bundle
from mlcore.errors import BundleRefused, MlcoreError
from mlcore.evaluation import measure
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.inspection import Inspection
from mlcore.evaluation.reproduction import measure_reproduction
from mlcore.fitting.fit import Trained
from tests.mlcore.conftest import WriteBundle

pytestmark = pytest.mark.slow


def context(one: Bundle, other: Bundle | None, frame: pl.DataFrame) -> EvaluationContext:
    return EvaluationContext(
        Inspection(one.folder, one.digest), frame, second_folder=other.folder if other else None
    )


def test_equal_trainings_have_equal_files_and_answers(
    v7: Trained, v7_bundle: Bundle, write: WriteBundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    found = measure_reproduction(context(v7_bundle, write(v7, tmp_path / "second"), market))
    assert found["bundle"] == v7_bundle.digest
    assert set(found["files_equal"].values()) == {True}
    assert (found["largest_difference"], found["directions_differing"]) == (0.0, 0)
    assert found["rows"] == len(v7.prepared.stop_labels)


def test_another_graph_is_seen_by_its_bytes_and_its_answers(
    v7: Trained, v7_bundle: Bundle, write: WriteBundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    bias = np.array([0.0, 0.5, 0.0], np.float32)
    weights = {**v7.weights, "fc4.bias": v7.weights["fc4.bias"] + bias}
    found = measure_reproduction(
        context(v7_bundle, write(replace(v7, weights=weights), tmp_path / "second"), market)
    )
    assert found["files_equal"] == {
        MODEL_FILE: False, "scaler.json": True, "weights.safetensors": False,
    }  # fmt: skip
    assert found["largest_difference"] == pytest.approx(0.5, abs=1e-5)
    assert 0 < found["directions_differing"] < found["rows"]


def test_a_training_with_another_seed_is_not_compared(
    v7: Trained, v7_bundle: Bundle, write: WriteBundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(MlcoreError, match="of another training: its manifest differs in seed"):
        measure_reproduction(
            context(v7_bundle, write(replace(v7, seed=v7.seed + 1), tmp_path / "second"), market)
        )


def test_damaged_files_are_not_compared(
    v7: Trained, v7_bundle: Bundle, write: WriteBundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    second = write(v7, tmp_path / "second")
    (second.folder / MODEL_FILE).write_bytes(b"not what the manifest lists")
    with pytest.raises(BundleRefused):
        measure_reproduction(context(v7_bundle, second, market))


def test_without_a_second_training_everything_is_null(v7_bundle: Bundle, market: pl.DataFrame) -> None:
    assert set(measure_reproduction(context(v7_bundle, None, market)).values()) == {None}


def test_the_command_measures_the_second_bundle_too(
    v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    document = measure.measure(
        v7_bundle.folder, market, expected_digest=v7_bundle.digest, second=v7_bundle.folder
    )
    assert document["reproduction"]["problem"] is None
    assert document["reproduction"]["bundle"] == v7_bundle.digest
