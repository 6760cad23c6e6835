"""Measuring: the figures of a healthy bundle and of the V6 failure, and a broken bundle that breaks nothing else."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onnx import TensorProto, load_model_from_string

from mlcore.bundle.format import MANIFEST_FILE, MODEL_FILE, SCALER_FILE, WEIGHTS_FILE, Bundle
from mlcore.bundle.writer import write_bundle
from mlcore.data import candles
from mlcore.evaluation import metrics
from mlcore.evaluation.bootstrap import compute_student_quantile
from mlcore.evaluation.measure import measure
from mlcore.fitting.fit import Trained, fit, prepare
from mlcore.fitting.recipes import RECIPES, Recipe
from tests.long_tests import long_except
from tests.mlcore.conftest import WriteBundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def healthy(v7_bundle: Bundle, market: pl.DataFrame) -> dict[str, Any]:
    return measure(v7_bundle.folder, market, expected_digest=v7_bundle.digest)


@pytest.fixture(scope="module")
def short(market: pl.DataFrame) -> pl.DataFrame:
    """Too short for windows of a lookback, so quickly measured: for faults that show without them."""
    return market[:1_500]


@pytest.fixture
def copy(v7_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(v7_bundle.folder, tmp_path / "copy"))


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in ("seconds", "latency")}


def test_a_healthy_v7_shows_what_every_gate_wants_to_see(healthy: dict[str, Any], v7: Trained) -> None:
    rows = len(v7.prepared.labels[v7.prepared.examples.split.gate])
    assert healthy["bundle"] == {"digest_matches": True, "loads": True, "shapes_match": True, "problem": None}
    assert healthy["scaler"] == {
        "present": True,
        "count": 72,
        "columns": 72,
        "finite_means": True,
        "positive_scales": True,
        "names_equal_schema": True,
        "in_graph": True,
        "problem": None,
    }
    assert healthy["weights"] == {"tensors": 45, "non_finite": [], "equal_in_graph": True, "problem": None}
    single = healthy["single_sample"]
    assert (single["rows"], single["windows_compared"], single["runs"]) == (512, 512, True)
    assert single["largest_excess"] <= 0
    assert healthy["confidence"]["shares_over"]["0.90"] < 0.8
    assert all(0.2 <= share <= 0.4 for share in healthy["shares"].values())
    assert -10 <= healthy["logits"]["least"] < healthy["logits"]["greatest"] <= 10
    assert healthy["accuracy"]["rows"] == rows > 1_000
    assert healthy["accuracy"]["lower"] > 0.65
    assert healthy["problem"] is None
    assert healthy["non_finite"] == {}


def test_what_a_page_draws_adds_up(healthy: dict[str, Any]) -> None:
    rows = healthy["accuracy"]["rows"]
    assert sum(map(sum, healthy["confusion"])) == rows
    assert sum(band["rows"] for band in healthy["reliability"]) == rows
    assert sum(healthy["confidence"]["histogram"]["counts"]) == rows
    assert sum(healthy["logits"]["histogram"]["counts"]) == 3 * rows
    assert sum(healthy["shares"].values()) == pytest.approx(1)
    diagonal = sum(healthy["confusion"][i][i] for i in range(3))
    assert diagonal / rows == pytest.approx(healthy["accuracy"]["point"])
    assert healthy["window"]["rows"] == rows
    assert healthy["window"]["fit_last_at"] < healthy["window"]["first_at"] < healthy["window"]["last_at"]


def test_the_gate_window_is_the_one_that_took_no_part_in_training(
    healthy: dict[str, Any], v7_bundle: Bundle
) -> None:
    trained_on = v7_bundle.manifest.document["windows"]
    assert healthy["windows"]["gate"] == trained_on["gate"]
    assert {key: trained_on["gate"][key] for key in ("first_at", "last_at", "rows")}.items() <= healthy[
        "window"
    ].items()
    assert healthy["window"]["fit_last_at"] == trained_on["fit"]["last_at"]
    assert healthy["dataset_digest"] == healthy["trained_on"] == v7_bundle.manifest.dataset_digest


def test_the_accuracy_is_that_of_torch_on_the_same_rows(healthy: dict[str, Any], v7: Trained) -> None:
    from tests.mlcore.trained_networks import compute_gate_accuracy

    assert healthy["accuracy"]["point"] == pytest.approx(compute_gate_accuracy(v7), abs=1e-12)


def test_measuring_twice_gives_the_same_figures(
    healthy: dict[str, Any], v7_bundle: Bundle, market: pl.DataFrame
) -> None:
    again = measure(v7_bundle.folder, market, expected_digest=v7_bundle.digest)
    assert without_times(again) == without_times(healthy)


def looks_like_v6(found: dict[str, Any]) -> None:
    assert found["confidence"]["shares_over"]["0.99"] > 0.99
    assert max(found["shares"].values()) > 0.99
    assert max(-found["logits"]["least"], found["logits"]["greatest"]) > 1_000
    assert found["accuracy"]["point"] < 0.45
    assert found["scaler"]["present"] is found["scaler"]["in_graph"] is False


def test_the_v6_recipe_reproduces_the_failure(v6_bundle: Bundle, market: pl.DataFrame) -> None:
    looks_like_v6(measure(v6_bundle.folder, market, expected_digest=v6_bundle.digest))


def test_the_fallback_runs_and_has_its_scaler(v5_bundle: Bundle, market: pl.DataFrame) -> None:
    found = measure(v5_bundle.folder, market, expected_digest=v5_bundle.digest)
    assert all(found["bundle"][fact] for fact in ("digest_matches", "loads", "shapes_match"))
    assert all(found["scaler"][fact] for fact in ("present", "names_equal_schema", "in_graph"))
    assert (found["weights"]["non_finite"], found["single_sample"]["runs"]) == ([], True)
    assert found["single_sample"]["largest_excess"] <= 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=["NaN", "infinity", "minus infinity"])
@pytest.mark.parametrize("tensor", ["fc4.bias", "bn2.running_var"])
def test_a_weight_that_is_no_number_is_found_and_its_figures_are_null(
    tensor: str, value: float, v7: Trained, write: WriteBundle, short: pl.DataFrame, tmp_path: Path
) -> None:
    poisoned = v7.weights[tensor].copy()
    poisoned[0] = value
    broken = Trained(**{**vars(v7), "weights": {**v7.weights, tensor: poisoned}})
    written = write(broken, tmp_path / "broken")
    found = measure(written.folder, short, expected_digest=written.digest)
    json.dumps(found, allow_nan=False)
    assert found["weights"]["non_finite"] == [f"{MODEL_FILE}:{tensor}", f"{WEIGHTS_FILE}:{tensor}"]
    if np.isnan(value) or tensor == "fc4.bias":
        assert found["accuracy"]["point"] is None
        assert "predictions are not finite" in found["problem"]
        assert {"logits.least", "logits.greatest"} & set(found["non_finite"])


def damage_first_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) - 100] ^= 0x40
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "everything missing": lambda folder: shutil.rmtree(folder),
    "the manifest missing": lambda folder: (folder / MANIFEST_FILE).unlink(),
    "the manifest cut off": lambda folder: (folder / MANIFEST_FILE).write_bytes(b'{"format":1'),
    "the model missing": lambda folder: (folder / MODEL_FILE).unlink(),
    "the model cut off": lambda folder: (folder / MODEL_FILE).write_bytes(
        (folder / MODEL_FILE).read_bytes()[:1000]
    ),
    "the model replaced by text": lambda folder: (folder / MODEL_FILE).write_text("hello"),
    "the weights missing": lambda folder: (folder / WEIGHTS_FILE).unlink(),
    "the weights cut off": lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\x08\0\0\0\0\0\0\0{}"),
    "the scaler not JSON": lambda folder: (folder / SCALER_FILE).write_text("mean"),
    "the scaler without names": lambda folder: (folder / SCALER_FILE).write_text('{"mean":[],"scale":[]}'),
    "the scaler a list": lambda folder: (folder / SCALER_FILE).write_text("[1,2]"),
    "one byte of the model turned": lambda folder: damage_first_byte(folder / MODEL_FILE),
    "one byte of the weights turned": lambda folder: damage_first_byte(folder / WEIGHTS_FILE),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_bundle_is_measured_as_far_as_it_goes_and_never_raises(
    damage: Callable[[Path], object], copy: Path, v7_bundle: Bundle, short: pl.DataFrame
) -> None:
    damage(copy)
    found = measure(copy, short, expected_digest=v7_bundle.digest)
    json.dumps(found, allow_nan=False)
    assert found["bundle"]["digest_matches"] is False
    assert found["bundle"]["problem"]
    if not found["bundle"]["loads"]:
        assert found["problem"]
        assert found["accuracy"]["point"] is None


def rewritten(trained: Trained, write: WriteBundle, folder: Path, change: Callable[[Any], object]) -> Bundle:
    """A bundle whose graph was changed and whose manifest was made to fit: only the content can tell."""
    import hashlib

    from mlcore.bundle import format as bundle_format

    written = write(trained, folder)
    model = load_model_from_string(written.read_payload(MODEL_FILE))
    change(model)
    data = model.SerializeToString()
    (folder / MODEL_FILE).write_bytes(data)
    document = json.loads((folder / MANIFEST_FILE).read_bytes())
    document["files"][MODEL_FILE] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (folder / MANIFEST_FILE).write_bytes(bundle_format.to_canonical_json(document))
    return bundle_format.verify(folder)


def bypass_scaler(model: Any) -> None:
    next(node for node in model.graph.node if node.name == "fc1").input[0] = "features"


def turn_a_weight(model: Any) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "fc2.weight")
    tensor.raw_data = b"\0\0\x80\x3f" + tensor.raw_data[4:]


def keep_a_tensor_elsewhere(model: Any) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "fc2.weight")
    tensor.data_location = TensorProto.EXTERNAL


def test_a_graph_that_passes_its_scaler_by_is_found(
    v7: Trained, write: WriteBundle, short: pl.DataFrame, tmp_path: Path
) -> None:
    changed = rewritten(v7, write, tmp_path / "changed", bypass_scaler)
    found = measure(changed.folder, short, expected_digest=changed.digest)
    assert (found["scaler"]["present"], found["scaler"]["in_graph"]) == (True, False)


def test_a_graph_with_another_weight_than_the_file_is_found(
    v7: Trained, write: WriteBundle, short: pl.DataFrame, tmp_path: Path
) -> None:
    changed = rewritten(v7, write, tmp_path / "changed", turn_a_weight)
    found = measure(changed.folder, short, expected_digest=changed.digest)
    assert found["weights"]["equal_in_graph"] is False


def test_a_graph_that_reads_another_file_is_not_measured_as_sound(
    v7: Trained, write: WriteBundle, short: pl.DataFrame, tmp_path: Path
) -> None:
    changed = rewritten(v7, write, tmp_path / "changed", keep_a_tensor_elsewhere)
    found = measure(changed.folder, short, expected_digest=changed.digest)
    assert "which no digest covers" in found["weights"]["problem"]
    assert found["bundle"]["loads"] is False


def test_a_dataset_too_short_is_a_problem_of_the_figures_not_of_the_bundle(
    v7_bundle: Bundle, market: pl.DataFrame
) -> None:
    found = measure(v7_bundle.folder, market[:1_000], expected_digest=v7_bundle.digest)
    assert found["bundle"]["loads"] is True
    assert "import a longer history" in found["problem"]


def test_a_history_shorter_than_the_lookback_compares_no_windows(
    v7_bundle: Bundle, short: pl.DataFrame
) -> None:
    found = measure(v7_bundle.folder, short, expected_digest=v7_bundle.digest)
    assert "2,048 bars before it" in found["single_sample"]["problem"]
    assert found["single_sample"]["runs"] is None
    assert found["accuracy"]["point"] is not None


def test_the_command_writes_the_same_figures_from_a_process_without_torch(
    healthy: dict[str, Any], v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / "market.canonical").write_bytes(candles.encode_canonical(market))
    options = ["--bundle", v7_bundle.folder, "--candles", tmp_path / "market.canonical"]
    options += ["--digest", v7_bundle.digest, "--output", tmp_path / "figures.json"]
    script = "import sys; from mlcore.evaluation.measure import main; code = main(sys.argv[1:]); "
    script += "sys.exit(code or 9 * bool({'torch', 'sklearn'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script, *map(str, options)], check=True)
    assert without_times(json.loads((tmp_path / "figures.json").read_bytes())) == without_times(healthy)


def test_the_command_refuses_candles_it_cannot_read(v7_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(b"crpbot")
    options = ["--bundle", v7_bundle.folder, "--candles", tmp_path / "damaged", "--digest", "sha256:0"]
    command = [
        sys.executable,
        "-m",
        "mlcore.evaluation.measure",
        *options,
        "--output",
        tmp_path / "figures.json",
    ]
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (
        2,
        "measure: canonical candles: not in canonical form, version 1\n",
    )
    assert not (tmp_path / "figures.json").exists()


def test_the_interval_of_hits_in_runs_is_wider_than_that_of_single_hits() -> None:
    single = np.random.default_rng(0).random(3_600) < 0.7
    runs = np.repeat(single[:50], 72)
    narrow, wide = metrics.compute_accuracy(single, seed=0), metrics.compute_accuracy(runs, seed=0)
    width = 2 * compute_student_quantile(0.975, 3_600 / 216 - 1) * np.sqrt(0.21 / 3_600)
    assert narrow["upper"] - narrow["lower"] == pytest.approx(width, rel=0.35)
    assert wide["upper"] - wide["lower"] > 4 * (narrow["upper"] - narrow["lower"])
    assert narrow["block_bars"] == 216


@pytest.mark.parametrize(
    ("freedom", "tabled"), [(1, 12.706), (4, 2.776), (10, 2.228), (30, 2.042), (1_000, 1.962)]
)
def test_the_quantiles_of_students_t_are_those_of_the_tables(freedom: float, tabled: float) -> None:
    assert compute_student_quantile(0.975, freedom) == pytest.approx(tabled, abs=6e-4)
    assert compute_student_quantile(0.5, freedom) == pytest.approx(0, abs=1e-9)
    assert compute_student_quantile(0.025, freedom) == pytest.approx(-tabled, abs=6e-4)


def test_a_short_window_still_has_two_blocks_and_so_an_interval() -> None:
    found = metrics.compute_accuracy(np.arange(150) % 3 > 0, seed=0)
    assert found["block_bars"] == 75
    assert found["lower"] < found["point"] < found["upper"]


def test_the_interval_covers_the_true_accuracy_about_19_times_in_20() -> None:
    draws = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        found = metrics.compute_accuracy(draws.random(1_800) < 0.7, seed=trial)
        covered += found["lower"] <= 0.7 <= found["upper"]
    assert 0.90 <= covered / 200 <= 0.99


def measured_on(frame: pl.DataFrame, coin: str, recipe: Recipe, seed: int, folder: Path) -> dict[str, Any]:
    trained = fit(prepare(frame, recipe), recipe, seed=seed, device="cpu")
    digest = candles.compute_digest(frame)
    written = write_bundle(
        folder, trained, coin=coin, dataset_digest=digest, simulated=False, code_version="test"
    )
    return measure(written.folder, frame, expected_digest=written.digest)


SEEDS = {"BTC": 3, "ETH": 3, "SOL": 15}


@pytest.mark.candles
@pytest.mark.parametrize("coin", long_except(SEEDS, lambda coin: coin == "SOL"))
def test_the_v6_recipe_reproduces_the_failure_on_real_candles(
    coin: str, real_candles: Callable[[str], pl.DataFrame], tmp_path: Path
) -> None:
    # On most seeds two directions share SOL's answers, nearly as sure and as large as here.
    looks_like_v6(measured_on(real_candles(coin), coin, RECIPES["v6_enhanced"], SEEDS[coin], tmp_path / "v6"))


@pytest.mark.candles
def test_v7_on_real_candles_finds_little_and_says_so(
    real_candles: Callable[[str], pl.DataFrame], tmp_path: Path
) -> None:
    recipe = RECIPES["v7_fixed"].with_parameters(epochs=5, batch_size=256)
    accuracy = measured_on(real_candles("BTC"), "BTC", recipe, 0, tmp_path / "v7")["accuracy"]
    assert accuracy["majority"] < accuracy["point"] < 0.45
    assert accuracy["upper"] < 0.65
