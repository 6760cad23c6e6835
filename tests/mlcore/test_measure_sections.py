"""The sections that later gates read: each right on a healthy bundle, and wrong where its kind of fault is planted."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from onnx import helper, load_model_from_string

from mlcore.bundle import format as bundle_format
from mlcore.bundle import onnx_graph
from mlcore.bundle.format import MANIFEST_FILE, MODEL_FILE, SCALER_FILE, Bundle, Layout
from mlcore.data import candles
from mlcore.evaluation import lookahead, measure, metrics, provenance, skill, stability
from mlcore.evaluation.bootstrap import Blocks, compute_student_quantile
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.inspection import Inspection
from mlcore.features import indicators
from mlcore.features.scaler import Scaler
from mlcore.fitting.fit import Trained, fit
from mlcore.fitting.recipes import RECIPES
from tests.mlcore.conftest import WriteBundle

pytestmark = pytest.mark.slow

SECTIONS = (
    "windows", "schema", "reload", "lookahead", "skill", "lead", "calibration", "stability", "drift", "latency",
)  # fmt: skip


@pytest.fixture(scope="module")
def healthy(v7_bundle: Bundle, v5_bundle: Bundle, market: pl.DataFrame) -> dict[str, Any]:
    return measured(v7_bundle, market, baseline=v5_bundle.folder)


def measured(written: Bundle, frame: pl.DataFrame, **options: Any) -> dict[str, Any]:
    found = measure.measure(written.folder, frame, expected_digest=written.digest, **options)
    json.dumps(found, allow_nan=False)
    return found


def asked(
    section: Callable[[EvaluationContext], dict[str, Any]],
    written: Bundle,
    frame: pl.DataFrame,
    **options: Any,
) -> dict[str, Any]:
    """One section alone, without waiting for the others."""
    return section(EvaluationContext(Inspection(written.folder, written.digest), frame, **options))


def restated(written: Bundle, folder: Path, change: Callable[[dict[str, Any]], object]) -> Bundle:
    """A copy whose manifest tells something else, and is otherwise in order."""
    shutil.copytree(written.folder, folder)
    document = json.loads((folder / MANIFEST_FILE).read_bytes())
    change(document)
    (folder / MANIFEST_FILE).write_bytes(bundle_format.to_canonical_json(document))
    return bundle_format.verify(folder)


def with_scaler_file(written: Bundle, folder: Path, change: Callable[[dict[str, Any]], object]) -> Bundle:
    def listed(document: dict[str, Any]) -> None:
        held = json.loads((folder / SCALER_FILE).read_bytes())
        change(held)
        data = bundle_format.to_canonical_json(held)
        (folder / SCALER_FILE).write_bytes(data)
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        document["files"][SCALER_FILE] = entry

    return restated(written, folder, listed)


def test_a_healthy_bundle_leaves_no_section_without_its_figures(healthy: dict[str, Any]) -> None:
    assert {name: healthy[name]["problem"] for name in SECTIONS} == dict.fromkeys(SECTIONS)
    assert healthy["skill"]["baseline"]["problem"] is None


def test_skill_is_the_paired_difference_of_the_very_accuracies_shown(healthy: dict[str, Any]) -> None:
    found = healthy["skill"]
    assert found["accuracy"] == healthy["accuracy"]["point"]
    assert found["naive"]["majority"]["accuracy"] == healthy["accuracy"]["majority"]
    assert found["naive"]["last_move"]["accuracy"] == healthy["accuracy"]["last_move"]
    assert found["best_naive"] == "last_move"
    for other in (*found["naive"].values(), found["baseline"]):
        assert other["difference"] == pytest.approx(found["accuracy"] - other["accuracy"])
        assert other["lower"] < other["difference"] < other["upper"]
    assert found["naive"]["majority"]["lower"] > 0


def test_a_base_rate_is_the_share_of_the_most_frequent_class(
    healthy: dict[str, Any],
) -> None:
    found, quick = healthy["lead"], healthy["skill"]["naive"]
    assert found["accuracy"] == healthy["accuracy"]["point"]
    assert found["block_bars"] == healthy["accuracy"]["block_bars"] > healthy["skill"]["block_bars"]
    true = np.array(healthy["confusion"]).sum(axis=1)
    np.testing.assert_allclose(list(found["label_shares"].values()), true / true.sum())
    assert found["over"]["majority"]["accuracy"] == max(found["label_shares"].values())
    for name, lead in found["over"].items():
        if name in quick:
            assert lead["difference"] == pytest.approx(quick[name]["difference"])
        assert lead["lower"] < lead["difference"] < lead["upper"]
        freedom = found["rows"] / found["block_bars"] - 1
        reach = compute_student_quantile(0.975, freedom) * lead["standard_error"]
        assert (lead["upper"] - lead["lower"]) / 2 == pytest.approx(reach)


def test_calls_in_one_direction_are_as_good_as_the_calls_in_the_other(healthy: dict[str, Any]) -> None:
    """Over its own calls with every move named up, a model leads by its calls of down: the right less the opposite ones."""
    confusion, over, rows = np.array(healthy["confusion"]), healthy["lead"]["over"], healthy["lead"]["rows"]
    assert over["all_up"]["difference"] == pytest.approx((confusion[0, 0] - confusion[2, 0]) / rows)
    assert over["all_down"]["difference"] == pytest.approx((confusion[2, 2] - confusion[0, 2]) / rows)


def test_a_paired_interval_is_narrower_than_that_of_the_accuracy_itself(healthy: dict[str, Any]) -> None:
    last_move = healthy["skill"]["naive"]["last_move"]
    alone = healthy["accuracy"]["upper"] - healthy["accuracy"]["lower"]
    assert last_move["upper"] - last_move["lower"] < 0.75 * alone


def test_a_bundle_that_always_says_the_same_has_no_skill(
    v6_bundle: Bundle, v5_bundle: Bundle, market: pl.DataFrame
) -> None:
    found = asked(skill.measure_skill, v6_bundle, market, baseline_folder=v5_bundle.folder)
    assert found["naive"]["majority"]["lower"] <= 0
    assert found["naive"]["last_move"]["upper"] < 0
    assert found["baseline"]["upper"] < 0


def test_a_bundle_is_no_better_than_itself(v5_bundle: Bundle, market: pl.DataFrame) -> None:
    found = asked(skill.measure_skill, v5_bundle, market, baseline_folder=v5_bundle.folder)["baseline"]
    assert found["digest"] == f"sha256:{v5_bundle.manifest.files[MODEL_FILE].sha256}"
    assert found["is_itself"] is True
    assert (found["difference"], found["lower"]) == (0, 0)


def test_a_baseline_of_another_schema_is_compared_on_the_shared_rows(
    v7_bundle: Bundle, v6_bundle: Bundle, market: pl.DataFrame
) -> None:
    found = asked(skill.measure_skill, v7_bundle, market, baseline_folder=v6_bundle.folder)["baseline"]
    assert found["problem"] is None
    assert found["lower"] > 0.2


def test_a_baseline_that_cannot_be_run_takes_only_its_own_part_down(
    healthy: dict[str, Any], v7_bundle: Bundle, v5_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(v5_bundle.folder, tmp_path / "v5"))
    (broken / MODEL_FILE).write_bytes(b"not the model")
    found = asked(skill.measure_skill, v7_bundle, market, baseline_folder=broken)
    assert "the baseline: model.onnx" in found["baseline"]["problem"]
    assert found["baseline"]["lower"] is None
    assert found["naive"] == healthy["skill"]["naive"]


def test_without_a_baseline_it_says_that_there_was_none(v7_bundle: Bundle, market: pl.DataFrame) -> None:
    found = asked(skill.measure_skill, v7_bundle, market[:1_500])["baseline"]
    assert found == dict.fromkeys(found) | {"problem": "no baseline was given"}
    found = asked(skill.measure_skill, v7_bundle, market[:1_500], no_baseline="no memory")["baseline"]
    assert found["problem"] == "no memory"


def test_features_without_the_future_are_those_of_the_whole_series(healthy: dict[str, Any]) -> None:
    assert healthy["lookahead"] == {
        "problem": None, "rows": 64 + 512, "columns_differing": [], "largest_difference": 0.0
    }  # fmt: skip


@pytest.mark.parametrize("bars", [1_500, 12_000], ids=["no whole lookback", "a long history"])
def test_a_feature_that_sees_one_bar_ahead_is_named(
    bars: int, v7_bundle: Bundle, market: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = indicators.FORMULAS["rsi_14"]

    def leaking(bars: Any) -> np.ndarray:
        values = honest.values(bars)
        return np.concatenate([values[..., 1:], values[..., -1:]], axis=-1)

    monkeypatch.setitem(indicators.FORMULAS, "rsi_14", replace(honest, values=leaking))
    found = asked(lookahead.measure_lookahead, v7_bundle, market[:bars])
    assert found["columns_differing"] == ["rsi_14"]
    assert found["largest_difference"] > 0.1


def test_the_windows_are_those_of_the_manifest_and_share_no_row(
    healthy: dict[str, Any], v7_bundle: Bundle
) -> None:
    found, stated = healthy["windows"], v7_bundle.manifest.document["windows"]
    assert {name: found[name] for name in ("fit", "stop", "gate")} == stated
    assert found["fit"]["last_at"] < found["stop"]["first_at"] < found["gate"]["first_at"]
    assert (found["horizon_bars"], found["interval_seconds"]) == (8, 3600)
    assert (found["on_training_candles"], found["recomputed"], found["rows_shared"]) == (True, True, 0)
    assert len({found[name]["digest"] for name in ("fit", "stop", "gate")}) == 3


def moved(frame: pl.DataFrame) -> pl.DataFrame:
    """The same bars under other dates and at another price level."""
    prices = [pl.col(name) * 3 for name in ("open", "high", "low", "close")]
    return frame.with_columns(pl.col("timestamp") + pl.duration(days=2_000), *prices)


@pytest.mark.parametrize(
    "disguised", [lambda frame: frame, moved], ids=["as they are", "moved in time and price"]
)
def test_rows_of_the_training_in_the_gate_window_are_counted(
    disguised: Callable[[pl.DataFrame], pl.DataFrame], v7_bundle: Bundle, market: pl.DataFrame
) -> None:
    found = asked(provenance.measure_windows, v7_bundle, disguised(market[:6_000]), training_frame=market)
    assert found["on_training_candles"] is False
    assert found["rows_shared"] >= 0.99 * found["gate"]["rows"] > 0
    assert found["recomputed"] is True


def test_a_gate_window_that_training_never_saw_shares_no_row(v7_bundle: Bundle, market: pl.DataFrame) -> None:
    assert (
        asked(provenance.measure_windows, v7_bundle, market[4_000:], training_frame=market)["rows_shared"]
        == 0
    )


def test_without_the_training_candles_nothing_is_claimed_to_be_recomputed(
    v7_bundle: Bundle, market: pl.DataFrame
) -> None:
    found = measured(v7_bundle, market[:1_500])
    assert found["windows"]["fit"] == v7_bundle.manifest.document["windows"]["fit"]
    assert found["windows"]["recomputed"] is found["windows"]["rows_shared"] is None
    assert found["schema"]["statistics_match"] is None
    assert found["reload"]["largest_difference"] is None
    assert "not at hand" in found["reload"]["problem"]


def test_of_a_bundle_from_outside_nothing_of_its_training_is_known(
    v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    def forget(document: dict[str, Any]) -> None:
        document.update(dataset=None, windows=None, training=None)
        document["labels"]["cuts"] = None

    found = measured(restated(v7_bundle, tmp_path / "outside", forget), market[:1_500], training_frame=market)
    windows = found["windows"]
    assert windows["problem"] is None
    unknown = ("fit", "stop", "on_training_candles", "recomputed", "rows_shared")
    assert {windows[name] for name in unknown} == {None}
    assert windows["gate"]["rows"] == found["accuracy"]["rows"] == found["skill"]["rows"]
    assert (found["schema"]["names_match"], found["schema"]["statistics_match"]) == (True, None)
    assert (found["reload"]["cuts_match"], found["reload"]["largest_difference"]) == (None, None)


def test_candles_that_the_manifest_does_not_name_are_not_its_training(
    v7_bundle: Bundle, market: pl.DataFrame
) -> None:
    found = measured(v7_bundle, market[:1_500], training_frame=market[1:])
    for name in ("windows", "schema", "reload"):
        assert "the manifest names" in found[name]["problem"]
    assert found["stability"]["problem"] is not None  # nor are its classes known


@pytest.mark.parametrize(
    "claim",
    [
        {"first_at": "2021-02-01T00:00:00Z"},
        {"rows": 8_000},
        {"digest": "sha256:" + 64 * "0"},
        {"last_at": None},
        "all of them",
    ],
    ids=["another beginning", "fewer rows", "other candles", "no end", "no window at all"],
)
def test_a_manifest_that_tells_another_fit_window_is_found_out(
    claim: Any, v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    def tell(document: dict[str, Any]) -> None:
        stated = document["windows"]["fit"]
        document["windows"]["fit"] = {**stated, **claim} if isinstance(claim, dict) else claim

    found = asked(provenance.measure_windows, restated(v7_bundle, tmp_path / "told", tell), market)
    assert found["recomputed"] is False
    assert found["fit"] == v7_bundle.manifest.document["windows"]["fit"]


def test_the_scaler_of_a_healthy_bundle_is_that_of_its_fit_window(healthy: dict[str, Any]) -> None:
    assert healthy["schema"] == {
        "problem": None,
        "name": "relative72",
        "digest_matches": True,
        "names_match": True,
        "statistics_match": True,
        "columns_out_of_place": [],
    }


def test_a_scaler_fitted_before_splitting_is_found(
    v7: Trained, write: WriteBundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    early = replace(v7, prepared=replace(v7.prepared, scaler=Scaler.fit(v7.prepared.examples.features)))
    found = asked(provenance.measure_schema, write(early, tmp_path / "early"), market)
    assert (found["names_match"], found["statistics_match"]) == (True, False)
    assert len(found["columns_out_of_place"]) > 36


def swap_two_columns(held: dict[str, Any]) -> None:
    for figures_held in (held["mean"], held["scale"]):
        figures_held[3], figures_held[40] = figures_held[40], figures_held[3]


def test_two_columns_in_each_others_place_are_named(
    v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    found = asked(
        provenance.measure_schema, with_scaler_file(v7_bundle, tmp_path / "swapped", swap_two_columns), market
    )
    columns = indicators.SCHEMAS["relative72"].columns
    assert found["columns_out_of_place"] == [columns[3], columns[40]]
    assert found["statistics_match"] is False


def test_names_in_alphabetical_order_are_found(
    v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    written = with_scaler_file(v7_bundle, tmp_path / "sorted", lambda held: held["names"].sort())
    found = asked(provenance.measure_schema, written, market)
    assert (found["names_match"], found["statistics_match"]) == (False, True)
    assert len(found["columns_out_of_place"]) > 60


def test_another_schema_digest_is_found_even_if_nothing_else_is_measured(
    v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    other = restated(v7_bundle, tmp_path / "other", lambda held: held["schema"].update(digest="sha256:0"))
    found = measured(other, market[:1_500])
    assert found["schema"]["digest_matches"] is False
    assert found["schema"]["problem"] is None
    assert found["accuracy"]["point"] is None


def test_a_bundle_without_a_scaler_says_that_there_is_none(v6_bundle: Bundle, market: pl.DataFrame) -> None:
    assert "holds no scaler" in asked(provenance.measure_schema, v6_bundle, market)["problem"]


@pytest.mark.parametrize("line", ["v5", "v7"])
def test_what_training_reported_is_recomputed_from_the_bytes(
    line: str, market: pl.DataFrame, request: pytest.FixtureRequest
) -> None:
    written, trained = request.getfixturevalue(f"{line}_bundle"), request.getfixturevalue(line)
    found = asked(provenance.measure_reload, written, market)
    kept = trained.epochs[trained.best_epoch - 1]
    rows = len(trained.prepared.stop[1])
    assert found["reported"] == {
        "loss": kept.validation_loss, "accuracy": kept.validation_accuracy, "rows": rows, "epoch": kept.number
    }  # fmt: skip
    assert found["recomputed"]["rows"] == rows
    assert found["largest_difference"] < 1e-6
    assert (found["cuts_match"], found["weights_equal_in_graph"]) == (True, True)


def test_the_loss_without_the_scaler_is_far_from_the_reported_loss(
    v6_bundle: Bundle, market: pl.DataFrame
) -> None:
    assert asked(provenance.measure_reload, v6_bundle, market)["largest_difference"] > 100


def nudge(trained: Trained) -> Trained:
    weights = {name: array.copy() for name, array in trained.weights.items()}
    weights["fc4.weight"] += np.float32(0.01) * np.sign(weights["fc4.weight"])
    return replace(trained, weights=weights)


def cooled(trained: Trained) -> Trained:
    """As if a temperature had been divided by in training, and forgotten afterwards."""
    names = ("fc4.weight", "fc4.bias")
    return replace(
        trained, weights={**trained.weights, **{name: trained.weights[name] * 1.5 for name in names}}
    )


@pytest.mark.parametrize("spoiled", [nudge, cooled], ids=["another epoch's weights", "a temperature lost"])
def test_other_weights_than_those_reported_show_in_the_loss(
    spoiled: Callable[[Trained], Trained],
    v7: Trained,
    write: WriteBundle,
    market: pl.DataFrame,
    tmp_path: Path,
) -> None:
    found = asked(provenance.measure_reload, write(spoiled(v7), tmp_path / "spoiled"), market)
    assert found["largest_difference"] > 1e-3


def test_labels_shifted_by_a_bar_in_training_show_in_what_is_recomputed(
    v5: Trained, write: WriteBundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    shifted = replace(v5.prepared, labels=np.roll(v5.prepared.labels, 1))
    trained = fit(shifted, RECIPES["v5"], seed=0)
    found = asked(provenance.measure_reload, write(trained, tmp_path / "shifted"), market)
    assert found["largest_difference"] > 1e-3


def test_claimed_cuts_that_are_not_the_terciles_are_found_and_not_used(
    healthy: dict[str, Any], v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    told = restated(v7_bundle, tmp_path / "told", lambda held: held["labels"].update(cuts=[-9.0, 9.0]))
    found = measured(told, market)
    assert found["reload"]["cuts_match"] is False
    assert found["accuracy"] == healthy["accuracy"]


@pytest.mark.parametrize(
    "claim",
    [
        None,
        {},
        {"loss": "0.5", "accuracy": 0.7},
        {"loss": True, "accuracy": 0.7},
        [0.5, 0.7],
        {"loss": 10**400},
    ],
    ids=["nothing", "no figure", "a word", "a truth", "a list", "more than a number holds"],
)
def test_a_manifest_without_figures_to_compare_says_so(
    claim: Any, v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    told = restated(v7_bundle, tmp_path / "told", lambda held: held["training"].update(validation=claim))
    found = measured(told, market[:1_500], training_frame=market)
    assert found["reload"]["largest_difference"] is None
    assert found["reload"]["problem"]
    assert found["skill"]["problem"] is None


def skip_a_batch_norm(model: Any) -> None:
    after = next(node for node in model.graph.node if node.name == "fc3")
    after.input[0] = "relu2"
    model.graph.node.remove(next(node for node in model.graph.node if node.name == "bn2"))


def double_the_logits(model: Any) -> None:
    model.graph.node[-1].output[0] = "single"
    model.graph.node.append(helper.make_node("Add", ["single", "single"], ["logits"]))


@pytest.mark.parametrize(
    "change", [skip_a_batch_norm, double_the_logits], ids=["BatchNorm skipped", "a step more"]
)
def test_a_graph_that_computes_something_else_with_the_weights_is_found(
    change: Callable[[Any], object], v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    folder = tmp_path / "changed"

    def changed(document: dict[str, Any]) -> None:
        model = load_model_from_string((folder / MODEL_FILE).read_bytes())
        change(model)
        data = model.SerializeToString()
        (folder / MODEL_FILE).write_bytes(data)
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        document["files"][MODEL_FILE] = entry

    subject = EvaluationContext(Inspection(folder, restated(v7_bundle, folder, changed).digest), market)
    found = provenance.measure_reload(subject)
    assert found["weights_equal_in_graph"] is False
    assert found["largest_difference"] > 1e-3


@pytest.mark.parametrize("layout", Layout)
def test_a_network_of_either_layout_is_followed(
    layout: Layout, v7: Trained, v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    folder = tmp_path / "imported"

    def imported(document: dict[str, Any]) -> None:
        data = onnx_graph.build_model(v7.weights, v7.scaler, layout)
        (folder / MODEL_FILE).write_bytes(data)
        document["files"][MODEL_FILE] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        document["parameters"]["layout"] = layout.value

    found = asked(provenance.measure_reload, restated(v7_bundle, folder, imported), market)
    assert found["weights_equal_in_graph"] is True


@pytest.mark.parametrize("smoothing", [0.0, 0.15])
@pytest.mark.parametrize(
    "weights", [[1.0, 1.0, 1.0], [0.5, 2.0, 1.1]], ids=["equal weights", "weighted classes"]
)
def test_the_loss_is_that_of_torch(weights: list[float], smoothing: float) -> None:
    random = np.random.default_rng(0)
    logits, true = random.normal(0, 30, (500, 3)).astype(np.float32), random.integers(0, 3, 500)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double(),
        torch.from_numpy(true),
        torch.tensor(weights, dtype=torch.float64),
        label_smoothing=smoothing,
    )
    found = provenance.compute_smoothed_loss(logits, true, np.array(weights), smoothing)
    assert found == pytest.approx(float(expected), rel=1e-12)


def test_probabilities_that_come_true_as_often_as_they_say_are_calibrated() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], 50_000)
    true = (probabilities.cumsum(axis=1) < random.random((50_000, 1))).sum(axis=1)
    found = metrics.compute_calibration(probabilities, true)
    assert found["ece"] < 0.01
    assert (found["bins"], found["rows"]) == (15, 50_000)


def test_certainty_that_is_wrong_half_the_time_is_not() -> None:
    probabilities = np.tile([1.0, 0.0, 0.0], (100, 1))
    found = metrics.compute_calibration(probabilities, np.arange(100) % 2)
    assert (found["ece"], found["brier"]) == (0.5, 1.0)


def test_a_third_each_has_the_brier_score_of_knowing_nothing() -> None:
    found = metrics.compute_calibration(np.full((9, 3), 1 / 3), np.arange(9) % 3)
    assert found["brier"] == pytest.approx(2 / 3)
    assert found["ece"] == pytest.approx(0)


def test_months_and_terciles_hold_every_row_and_average_to_the_accuracy(healthy: dict[str, Any]) -> None:
    for parts in healthy["stability"]["months"], healthy["stability"]["volatility"]:
        rows = [part["rows"] for part in parts]
        assert sum(rows) == healthy["accuracy"]["rows"]
        mean = np.average([part["accuracy"] for part in parts], weights=rows)
        assert mean == pytest.approx(healthy["accuracy"]["point"])
    months = [part["month"] for part in healthy["stability"]["months"]]
    assert months == sorted(months)
    assert months[0] == healthy["window"]["first_at"][:7]
    terciles = {part["tercile"]: part["rows"] for part in healthy["stability"]["volatility"]}
    assert list(terciles) == ["calm", "usual", "wild"]
    assert max(terciles.values()) - min(terciles.values()) <= 2


def test_recent_hours_ten_times_as_wild_have_drifted(
    healthy: dict[str, Any], v7_bundle: Bundle, market: pl.DataFrame
) -> None:
    calm, recent = market[:-600], market[-600:]
    open_, close = recent["open"].to_numpy(), recent["close"].to_numpy()
    bodies = np.exp(10 * np.log(close / open_))
    wild_close = open_ * np.clip(bodies, 0.5, 2)
    wild = recent.with_columns(
        close=pl.Series(wild_close),
        high=pl.Series(np.maximum(open_, wild_close)),
        low=pl.Series(np.minimum(open_, wild_close)),
    )
    found = asked(stability.measure_drift, v7_bundle, pl.concat([calm, wild]), training_frame=market)
    assert found["psi"]["volatility_20"] > 1
    assert found["over"] > 2 * healthy["drift"]["over"]
    assert found["largest"]["psi"] == max(found["psi"].values())
    assert list(found["psi"]) == list(indicators.SCHEMAS["relative72"].columns)
    assert (found["recent_rows"], found["fit_rows"]) == (500, 5_000)


def test_the_latency_is_that_of_the_rows_asked_for_one_at_a_time(healthy: dict[str, Any]) -> None:
    found = healthy["latency"]
    assert found["rows"] == 50
    assert 0 < found["p50_ms"] <= found["p99_ms"] < 1_000


def test_a_history_too_short_for_a_bot_has_no_latency(v7_bundle: Bundle, market: pl.DataFrame) -> None:
    found = measured(v7_bundle, market[:1_500])["latency"]
    assert found["p50_ms"] is None
    assert "2,048 bars before it" in found["problem"]


def test_a_model_that_does_not_load_leaves_what_needs_none_of_it(
    v7_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(v7_bundle.folder, tmp_path / "copy"))
    (copy / MODEL_FILE).write_bytes(b"hello")
    found = measure.measure(copy, market, expected_digest=v7_bundle.digest)
    fine = {name for name in SECTIONS if found[name]["problem"] is None}
    assert fine == {"windows", "schema", "lookahead", "drift"}
    for name in set(SECTIONS) - fine:
        assert set(found[name]) - {"problem"}
        assert all(value is None for key, value in found[name].items() if key != "problem")
    assert found["windows"]["recomputed"] is True


def test_the_standard_error_of_single_hits_is_the_textbook_one() -> None:
    hits = np.random.default_rng(0).random(7_200) < 0.7
    assert metrics.compute_accuracy(hits, seed=0)["standard_error"] == pytest.approx(
        np.sqrt(0.21 / 7_200), rel=0.15
    )


def test_the_same_seed_draws_the_same_blocks() -> None:
    values = np.random.default_rng(0).integers(-1, 2, 3_000)
    assert Blocks(3_000, 5).estimate(values) == Blocks(3_000, 5).estimate(values)
    assert Blocks(3_000, 5).estimate(values) != Blocks(3_000, 6).estimate(values)


def test_the_command_takes_a_baseline_and_the_candles_of_the_training(
    v7_bundle: Bundle, v5_bundle: Bundle, market: pl.DataFrame, tmp_path: Path
) -> None:
    newer = market[4_000:]
    (tmp_path / "training").write_bytes(candles.encode_canonical(market))
    (tmp_path / "newer").write_bytes(candles.encode_canonical(newer))
    options = ["--bundle", v7_bundle.folder, "--candles", tmp_path / "newer", "--digest", v7_bundle.digest]
    options += ["--baseline", v5_bundle.folder, "--training", tmp_path / "training"]
    command = [
        sys.executable,
        "-m",
        "mlcore.evaluation.measure",
        *options,
        "--output",
        tmp_path / "figures.json",
    ]
    subprocess.run([str(part) for part in command], check=True)
    found = json.loads((tmp_path / "figures.json").read_bytes())
    expected = measured(v7_bundle, newer, baseline=v5_bundle.folder, training_frame=market)
    for name in ("skill", "windows", "schema", "reload"):
        assert found[name] == expected[name]
        assert found[name]["problem"] is None
