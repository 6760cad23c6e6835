"""The Predictor gives torch's answers, one row like many, and never an answer that is not a number."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mlcore.bundle import format as bundle_format
from mlcore.bundle.format import MANIFEST_FILE, MODEL_FILE, Bundle
from mlcore.bundle.predictor import Predictor, softmax
from mlcore.constants import CLASSES
from mlcore.errors import BundleRefused, NotEnoughBars
from mlcore.features import indicators
from mlcore.fitting.fit import Trained
from tests.mlcore.conftest import WriteBundle
from tests.mlcore.trained_networks import load_network


def torch_logits(trained: Trained, rows: np.ndarray) -> np.ndarray:
    if trained.recipe.keeps_scaler:
        rows = trained.scaler.transform(rows)
    if trained.recipe.network == "logistic":
        return rows @ trained.weights["coef.weight"].T + trained.weights["coef.bias"]
    return load_network(trained)(torch.from_numpy(rows)).detach().numpy()


@pytest.mark.parametrize("line", ["v5", "v6", "v7"])
def test_the_bundle_gives_torchs_logits(line: str, request: pytest.FixtureRequest) -> None:
    trained, written = request.getfixturevalue(line), request.getfixturevalue(f"{line}_bundle")
    rows = trained.prepared.examples.features[trained.prepared.examples.split.gate]
    expected = torch_logits(trained, rows)
    found = Predictor(written.folder).logits(rows)
    assert (found.dtype, found.shape) == (np.dtype(np.float32), (len(rows), 3))
    # V6's logits are differences of hundreds of thousands: float32 leaves no 1e-5 of the smaller ones.
    size = np.abs(expected).max(axis=1, keepdims=True) if line == "v6" else np.abs(expected)
    assert (np.abs(found - expected) <= 1e-5 + 1e-5 * size).all()


def test_one_row_is_answered_as_in_a_batch(v7_bundle: Bundle, v7: Trained) -> None:
    rows = v7.prepared.examples.features[:64]
    predictor = Predictor(v7_bundle.folder)
    singles = np.concatenate([predictor.logits(row[None]) for row in rows])
    assert np.abs(singles - predictor.logits(rows)).max() <= 1e-5


def test_a_prediction_names_direction_probabilities_and_the_bar_it_saw(
    v7_bundle: Bundle, market: pl.DataFrame
) -> None:
    prediction = Predictor(v7_bundle.folder).predict(market)
    assert prediction.direction == max(prediction.probabilities, key=prediction.probabilities.__getitem__)
    assert tuple(prediction.probabilities) == CLASSES
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert prediction.at == market["timestamp"][-1]
    assert len(prediction.logits) == 3


def test_bars_before_the_lookback_change_nothing(v7_bundle: Bundle, market: pl.DataFrame) -> None:
    predictor = Predictor(v7_bundle.folder)
    assert predictor.predict(market) == predictor.predict(market.tail(indicators.LOOKBACK))


def test_too_few_bars_are_refused(v7_bundle: Bundle, market: pl.DataFrame) -> None:
    with pytest.raises(NotEnoughBars, match="needs the last 2,048"):
        Predictor(v7_bundle.folder).predict(market.tail(2_047))


def test_probabilities_of_exploded_logits_are_still_probabilities() -> None:
    shares = softmax(np.array([[16_946.0, -52_717.0, 0.0], [1e38, 1e38, -1e38]], np.float32))
    assert shares.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]


def test_logits_that_are_not_finite_are_not_acted_on(
    v7: Trained, write: WriteBundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    broken = Trained(
        **{**vars(v7), "weights": {**v7.weights, "fc4.bias": np.array([np.nan, 0, 0], np.float32)}}
    )
    predictor = Predictor(write(broken, tmp_path / "broken").folder)
    with pytest.raises(BundleRefused, match="not finite, not to be acted on"):
        predictor.predict(market)


def test_a_changed_byte_keeps_a_bundle_from_loading(v7_bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(v7_bundle.folder, tmp_path / "copy"))
    data = bytearray((folder / MODEL_FILE).read_bytes())
    data[-200] ^= 1
    (folder / MODEL_FILE).write_bytes(data)
    with pytest.raises(BundleRefused, match=r"model\.onnx is not the file the manifest names"):
        Predictor(folder)


@pytest.mark.parametrize("model", [b"", b"not a graph", None], ids=["empty", "junk", "of other shapes"])
def test_a_model_that_cannot_be_run_is_refused(
    model: bytes | None, v7_bundle: Bundle, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(v7_bundle.folder, tmp_path / "copy"))
    (folder / MODEL_FILE).write_bytes(two_class_model() if model is None else model)
    with pytest.raises(
        BundleRefused, match=r"model.onnx(: the graph is damaged| cannot be loaded| has inputs and outputs)"
    ):
        Predictor(folder, verify=False)


def test_a_bundle_of_other_classes_is_refused(v7_bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(v7_bundle.folder, tmp_path / "copy"))
    document = json.loads((folder / MANIFEST_FILE).read_bytes()) | {"classes": ["up", "neutral", "down"]}
    (folder / MANIFEST_FILE).write_bytes(bundle_format.to_canonical_json(document))
    with pytest.raises(BundleRefused, match="classes"):
        Predictor(folder)


def two_class_model() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.zeros((72, 2), np.float32), "weight")
    node = helper.make_node("MatMul", ["features", "weight"], ["logits"])
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 72])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    made = helper.make_graph([node], "two", inputs, outputs, [weight])
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


HEAVY = {"torch", "sklearn", "onnx", "safetensors", "pandas", "django", "celery", "scipy"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "allowed"),
    [
        (
            "mlcore.data.candles, mlcore.features.indicators, mlcore.bundle.format, mlcore.bundle.predictor",
            set(),
        ),
        (
            "mlcore.evaluation.measure, mlcore.data.simulate, mlcore.fitting.recipes, mlcore.features.labels",
            {"onnx", "safetensors"},
        ),
        ("mlcore.fitting.fit", {"torch", "safetensors"}),
    ],
    ids=["what the bot imports", "what the gate imports", "what a worker imports"],
)
def test_each_part_imports_only_what_it_needs(modules: str, allowed: set[str]) -> None:
    script = f"import sys, {modules}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert HEAVY & set(found.split()) <= allowed
