"""Checkpoints from outside: what they hold comes through exactly, what they do not say is asked for, and nothing is run."""

import gzip
import io
import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.numpy import save as save_file

from mlcore.bundle import format as bundle_format
from mlcore.bundle.format import Bundle
from mlcore.bundle.predictor import Predictor
from mlcore.errors import MlcoreError
from mlcore.evaluation.inspection import Inspection
from mlcore.features import indicators
from mlcore.importers import convert
from tests import model_files
from tests.mlcore.candle_formats import zipped
from tests.model_files import COLUMNS, LAYOUTS, LINEAR, linear_tensors, logits, network, onnx_file, saved

ROWS = np.random.default_rng(7).normal(size=(64, 72)).astype(np.float32)
SAID: dict[str, Any] = {
    "coin": "BTC",
    "line": "v6_enhanced",
    "schema": "raw72",
    "layout": LAYOUTS[0],
    "simulated": False,
    "interval_seconds": 3600,
    "code_version": "tests",
}


def imported(data: bytes, folder: Path, **said: Any) -> tuple[Bundle, list[str]]:
    return convert.import_model(data, convert.Request(**{**SAID, **said}), folder / "bundle")


def answers(data: bytes, folder: Path, rows: np.ndarray = ROWS, **said: Any) -> np.ndarray:
    return Predictor(imported(data, folder, **said)[0].folder).logits(rows)


def inspected(made: Bundle) -> dict[str, Any]:
    inspection = Inspection(made.folder, made.digest)
    parts = (inspection.inspect_bundle(), inspection.inspect_scaler(), inspection.weights)
    return {name: value for part in reversed(parts) for name, value in part.items()}


def fitted_scaler() -> Any:
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit(np.random.default_rng(3).normal(4.0, 3.0, size=(500, 72)))


class TestATorchCheckpoint:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_answers_what_the_network_answers_in_either_layout(self, tmp_path: Path, layout: str) -> None:
        made = network(layout)
        np.testing.assert_allclose(
            answers(saved(made.state_dict()), tmp_path, layout=layout),
            logits(made, ROWS),
            atol=1e-5,
            rtol=1e-5,
        )

    def test_answers_otherwise_when_the_other_layout_is_said(self, tmp_path: Path) -> None:
        made = network(LAYOUTS[0])
        other = answers(saved(made.state_dict()), tmp_path, layout=LAYOUTS[1])
        assert np.abs(other - logits(made, ROWS)).max() > 0.01

    def test_without_a_scaler_is_a_bundle_without_one_and_says_so(self, tmp_path: Path) -> None:
        made, notes = imported(saved(network().state_dict()), tmp_path)
        assert set(made.manifest.files) == {"model.onnx", "weights.safetensors"}
        assert any("no scaler" in note for note in notes)
        found = inspected(made)
        assert found["present"] is False
        assert (
            found["digest_matches"] and found["loads"] and found["shapes_match"] and found["equal_in_graph"]
        )

    @pytest.mark.parametrize(
        "scaler",
        [
            lambda fitted: {"scaler_params": {"mean": fitted.mean_, "scale": fitted.scale_}},
            lambda fitted: {
                "scaler_params": {"mean": fitted.mean_.tolist(), "scale": fitted.scale_.tolist()}
            },
            lambda fitted: {
                "scaler": {"mean": torch.tensor(fitted.mean_), "scale": torch.tensor(fitted.scale_)}
            },
            lambda fitted: {"scaler": {"mean_": fitted.mean_, "scale_": fitted.scale_}},
            lambda fitted: {"scaler": fitted},
        ],
        ids=["arrays", "lists", "tensors", "the names of scikit-learn", "scikit-learn's own object"],
    )
    def test_with_a_scaler_takes_raw_features(self, tmp_path: Path, scaler: Any) -> None:
        fitted, made = fitted_scaler(), network()
        data = saved(
            {"model_state_dict": made.state_dict(), "feature_columns": list(COLUMNS), **scaler(fitted)}
        )
        bundle_made, notes = imported(data, tmp_path)
        raw = fitted.inverse_transform(ROWS.astype(np.float64))
        got = Predictor(bundle_made.folder).logits(raw)
        np.testing.assert_allclose(got, logits(made, fitted.transform(raw)), atol=1e-5, rtol=1e-5)
        found = inspected(bundle_made)
        assert found["count"] == 72
        assert (
            found["finite_means"]
            and found["positive_scales"]
            and found["names_equal_schema"]
            and found["in_graph"]
        )
        assert notes == []

    @pytest.mark.parametrize(
        "temperature", [2.5, np.float64(2.5), torch.tensor([2.5])], ids=["a number", "NumPy's", "a tensor"]
    )
    def test_with_a_temperature_has_its_logits_divided(self, tmp_path: Path, temperature: Any) -> None:
        made = network()
        data = saved({"model_state_dict": made.state_dict(), "temperature": temperature})
        np.testing.assert_allclose(answers(data, tmp_path), logits(made, ROWS) / 2.5, atol=1e-5, rtol=1e-5)

    def test_may_hold_its_temperature_as_a_parameter(self, tmp_path: Path) -> None:
        made = network()
        state = {**made.state_dict(), "temperature": torch.nn.Parameter(torch.ones(1) * 0.5)}
        np.testing.assert_allclose(
            answers(saved(state), tmp_path), logits(made, ROWS) * 2, atol=1e-5, rtol=1e-5
        )

    def test_with_its_features_named_in_another_order_is_put_in_ours(self, tmp_path: Path) -> None:
        made, fitted = network(), fitted_scaler()
        alphabetical = sorted(COLUMNS)
        places = [COLUMNS.index(name) for name in alphabetical]
        data = saved(
            {
                "model_state_dict": made.state_dict(),
                "feature_columns": alphabetical,
                "scaler_params": {"mean": fitted.mean_, "scale": fitted.scale_},
            }
        )
        got, notes = imported(data, tmp_path)
        want = logits(made, fitted.transform(ROWS[:, places].astype(np.float64)))
        np.testing.assert_allclose(Predictor(got.folder).logits(ROWS), want, atol=1e-5, rtol=1e-5)
        assert any("another order" in note for note in notes)

    @pytest.mark.parametrize(
        ("columns", "says"),
        [
            ([*COLUMNS[:-1], "moon_phase"], "moon_phase"),
            ([*COLUMNS[:-1]], COLUMNS[-1]),
            ([*COLUMNS, COLUMNS[0]], "more than once"),
            ([*COLUMNS[:-1], 3], "not a list of names"),
            ("returns", "not a list of names"),
        ],
        ids=["unknown", "missing", "twice", "not a name", "one text"],
    )
    def test_with_other_names_is_refused_naming_them(self, tmp_path: Path, columns: Any, says: str) -> None:
        data = saved({"model_state_dict": network().state_dict(), "feature_columns": columns})
        with pytest.raises(MlcoreError, match=says):
            imported(data, tmp_path)

    def test_a_gpu_parallel_or_half_precision_save_is_the_same_network(self, tmp_path: Path) -> None:
        made = network()
        state = made.state_dict()
        want = answers(saved(state), tmp_path / "plain")
        on_gpu = model_files.saved_on_a_gpu({"model_state_dict": state, "epoch": 9})
        parallel = saved({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}})
        assert (answers(on_gpu, tmp_path / "gpu") == want).all()
        assert (answers(parallel, tmp_path / "parallel") == want).all()
        half = saved({name: tensor.half() for name, tensor in state.items()})
        np.testing.assert_allclose(
            answers(half, tmp_path / "half"), logits(made.half().float(), ROWS), atol=1e-5
        )

    def test_names_what_it_did_not_use(self, tmp_path: Path) -> None:
        held = {"model_state_dict": network().state_dict(), "epoch": 3, "optimizer_state_dict": {}}
        assert any("'epoch', 'optimizer_state_dict'" in note for note in imported(saved(held), tmp_path)[1])

    def test_that_is_sick_is_imported_for_the_gates_to_see(self, tmp_path: Path) -> None:
        state = network().state_dict()
        state["bn2.running_var"][5] = float("nan")
        made, _ = imported(saved(state), tmp_path)
        assert inspected(made)["non_finite"] == [
            "model.onnx:bn2.running_var",
            "weights.safetensors:bn2.running_var",
        ]

    @pytest.mark.parametrize(
        ("held", "says"),
        [
            ({"scaler_params": {"mean": [0.0] * 72}}, "has no scale; it has mean"),
            ({"scaler_params": {"mean": [0.0] * 71, "scale": [1.0] * 71}}, "not one figure for each of 72"),
            ({"scaler_params": {"mean": [float("nan")] * 72, "scale": [1.0] * 72}}, "not finite"),
            ({"scaler_params": {"mean": ["0"] * 72, "scale": [1.0] * 72}}, "not a row of numbers"),
            (
                {"scaler_params": {"mean": np.array(["a"] * 72), "scale": [1.0] * 72}},
                "scaler_params.mean is not a row of numbers",
            ),
            ({"scaler_params": 3}, "scaler_params is a int"),
            ({"scaler": {}, "scaler_params": {}}, "two scalers"),
            ({"scaler": {"mean": [0.0] * 72, "scale": [1.0] * 72, "clip": 5.0}}, "its scaler has clip: only"),
            (
                {"scaler": {"mean": [0.0] * 72, "scale": [1.0] * 72, "type": "minmax"}},
                "its scaler has minmax: only",
            ),
            ({"scaler": {"center_": [0.0] * 72, "scale_": [1.0] * 72}}, "its scaler has center_: only"),
            (
                {"scaler": {"mean": [0.0] * 72, "std": [1.0] * 72, "scale": [1.0] * 72}},
                "scale and std; keep the one",
            ),
            (
                {"feature_scaler": {"mean": [0.0] * 72}},
                "its feature_scaler may be what its features were scaled by",
            ),
            ({"scaler_mean": [0.0] * 72, "scaler_std": [1.0] * 72}, "its scaler_mean and scaler_std may be"),
            ({"mean": np.zeros(72)}, "its mean may be what its features were scaled by"),
            ({"ema": network().state_dict()}, r"several state dicts \(model_state_dict, ema\)"),
            ({"temperature": 0.0}, "above 0"),
            ({"temperature": float("nan")}, "above 0"),
            ({"temperature": 1e-45}, "float32"),
            ({"temperature": "hot"}, "not a number"),
            ({"state_dict": {}}, "several state dicts"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_that_holds_what_cannot_be_meant_is_refused(
        self, tmp_path: Path, held: dict[str, Any], says: str
    ) -> None:
        with pytest.raises(MlcoreError, match=says):
            imported(saved({"model_state_dict": network().state_dict(), **held}), tmp_path)
        assert not (tmp_path / "bundle").exists()


class TestAsPeopleSaveIt:
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
            lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
            lambda state: {
                "state_dict": {f"model.{name}": value for name, value in state.items()},
                "epoch": 3,
            },
            lambda state: {"net": state, "epoch": 3},
            lambda state: {f"_forward_module.net.{name}": value for name, value in state.items()},
            lambda state: {"checkpoint": {"state_dict": state, "epoch": 3}, "version": 2},
            lambda state: {
                "n_averaged": torch.tensor(3),
                **{f"module.{name}": value for name, value in state.items()},
            },
            lambda state: {
                "state_dict": {
                    "criterion.weight": torch.ones(3),
                    **{f"model.{name}": value for name, value in state.items()},
                }
            },
            lambda state: {"model": state, "scaler": torch.amp.GradScaler("cpu").state_dict()},
            lambda state: {"agent": {f"model.module.{name}": value for name, value in state.items()}},
            lambda state: {"model": state, "feature_columns": np.array(COLUMNS)},
            lambda state: {"model": state, "feature_columns": np.array(COLUMNS, dtype=object)},
        ],
        ids=[
            "torch.compile",
            "torch.compile in DataParallel",
            "Lightning",
            "under another key",
            "prefixes of other names",
            "two dicts around it",
            "an average of weights",
            "the weights of its loss beside it",
            "the scaler of torch.amp beside it",
            "prefixes under another key",
            "names as an array of text",
            "names as an array of objects",
        ],
    )
    def test_is_the_same_network(self, tmp_path: Path, wrap: Any) -> None:
        made = network()
        got = answers(saved(wrap(made.state_dict())), tmp_path)
        np.testing.assert_allclose(got, logits(made, ROWS), atol=1e-5, rtol=1e-5)

    def test_a_refusal_lists_the_names_that_were_found(self, tmp_path: Path) -> None:
        layers = {f"layers.{number}.weight": torch.zeros(3) for number in range(20)}
        with pytest.raises(
            MlcoreError, match=r"lacks fc1\.weight.*It holds 'layers\.0\.weight', .* and 12 more"
        ):
            imported(saved(layers), tmp_path)
        layers["step"] = torch.tensor(3)
        with pytest.raises(MlcoreError, match=r"It holds 'step', 'layers\.0\.weight'"):
            imported(saved(layers), tmp_path)
        with pytest.raises(MlcoreError, match=r"It holds 'encoder\.a', 'epoch'"):
            imported(saved({"encoder": {"a": torch.zeros(1)}, "epoch": 3}), tmp_path)

    def test_two_that_fit_under_other_keys_are_not_chosen_between(self, tmp_path: Path) -> None:
        state = network().state_dict()
        with pytest.raises(MlcoreError, match=r"several state dicts \(student, teacher\)"):
            imported(saved({"student": state, "teacher": state}), tmp_path)

    @pytest.mark.parametrize("as_dict", [True, False], ids=["as a dict", "as its own object"])
    @pytest.mark.parametrize(("with_mean", "with_std"), [(False, True), (True, False), (False, False)])
    def test_a_scaler_does_what_its_switches_say(
        self, tmp_path: Path, with_mean: bool, with_std: bool, as_dict: bool
    ) -> None:
        """scikit-learn keeps a mean that it does not subtract."""
        from sklearn.preprocessing import StandardScaler

        rows = np.random.default_rng(3).normal(4.0, 3.0, size=(500, 72))
        fitted, made = StandardScaler(with_mean=with_mean, with_std=with_std).fit(rows), network()
        held = dict(vars(fitted)) if as_dict else fitted
        data = saved({"model_state_dict": made.state_dict(), "scaler": held})
        got = answers(data, tmp_path, rows[:64].astype(np.float32))
        np.testing.assert_allclose(got, logits(made, fitted.transform(rows[:64])), atol=1e-3, rtol=1e-3)

    @pytest.mark.parametrize("switch", [False, np.bool_(False)], ids=["Python's", "NumPy's"])
    def test_a_scaler_may_name_standard_deviations(self, tmp_path: Path, switch: Any) -> None:
        made = network()
        held = {
            "type": "StandardScaler",
            "mean": np.ones(72),
            "std": np.full(72, 2.0),
            "with_mean": switch,
            "clip": None,
        }
        got = answers(saved({"model": made.state_dict(), "scaler": held}), tmp_path, ROWS)
        np.testing.assert_allclose(got, logits(made, ROWS / 2), atol=1e-3, rtol=1e-3)

    def test_a_switch_that_is_no_switch_is_refused(self, tmp_path: Path) -> None:
        scaler = {"mean": [0.0] * 72, "scale": [1.0] * 72, "with_mean": "no"}
        with pytest.raises(MlcoreError, match=r"scaler\.with_mean is 'no', neither true nor false"):
            imported(saved({"model": network().state_dict(), "scaler": scaler}), tmp_path)

    def test_another_scaler_is_refused_by_name(self, tmp_path: Path) -> None:
        from sklearn.preprocessing import MinMaxScaler

        scaler = MinMaxScaler().fit(np.random.default_rng(3).normal(size=(9, 72)))
        with pytest.raises(MlcoreError, match="MinMaxScaler"):
            imported(saved({"model": network().state_dict(), "scaler": scaler}), tmp_path)


def torch_script() -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # deprecated, and what people have
        torch.jit.save(torch.jit.trace(torch.nn.Linear(72, 3), torch.zeros(2, 72)), out)
    return out.getvalue()


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, a=np.zeros(3))
    return out.getvalue()


OTHER_FILES: dict[str, tuple[Any, str]] = {
    "TorchScript": (torch_script, "a TorchScript model"),
    "npz": (npz, r"NumPy arrays \(npz\)"),
    "npy": (lambda: b"\x93NUMPY\x01\x00", "a NumPy array"),
    "git-lfs pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 259033\n",
        "a git-lfs pointer.*begins with 'version",
    ),
    "an HTML page": (lambda: b"<!DOCTYPE html><html>404</html>", "an HTML page"),
    "JSON": (lambda: b'{"weights": []}', "JSON"),
    "a pickle": (lambda: pickle.dumps({"a": 1}), "a Python pickle"),
    "torch before 1.6": (
        lambda: saved(network().state_dict(), _use_new_zipfile_serialization=False),
        "a Python pickle",
    ),
    "safetensors": (lambda: save_file({"a": np.zeros(3, np.float32)}), "a safetensors file"),
    "gzip": (lambda: gzip.compress(saved(network().state_dict())), "gzip data; unpack it"),
    "a web page without its first tag": (lambda: b"<!-- moved -->\n<html>", "an HTML page"),
    "source code": (lambda: b"import torch\n\nclass Net: pass\n", "text.*begins with 'import torch'"),
    "CatBoost": (lambda: b"CBM1" + bytes(50), "a CatBoost model"),
    "XGBoost": (lambda: b"{L\0\0\0\0\0\0\0\x07learner", "an XGBoost model"),
    "TensorFlow Lite": (lambda: b"\x1c\0\0\0TFL3" + bytes(50), "a TensorFlow Lite model"),
    "Arrow": (lambda: b"ARROW1\0\0" + bytes(20), "an Arrow file"),
    "a Windows program": (lambda: b"MZ" + bytes(60), "a program of Windows"),
    "an RTF document": (lambda: b"{\\rtf1 text}", "an RTF document"),
    "Keras": (lambda: zipped({"config.json": b"{}", "model.weights.h5": b"x"}), "a Keras model"),
    "a zip around a checkpoint": (
        lambda: zipped({"model.pt": saved(network().state_dict())}),
        r"a zip of other files \(model\.pt\), not a checkpoint; unpack it",
    ),
}


@pytest.mark.parametrize(("make", "says"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_a_file_of_another_kind_is_named(tmp_path: Path, make: Any, says: str) -> None:
    with pytest.raises(MlcoreError, match=says):
        imported(make(), tmp_path)


def head_of(
    nodes: list[Any], *, domains: tuple[str, ...] = (), tensors: dict[str, Any] | None = None
) -> bytes:
    """An ONNX file that multiplies by LINEAR, and then has these nodes from `h` to `y`."""
    stored = {**linear_tensors(), **(tensors or {})}
    held = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    ends = [
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["b", w]) for n, w in (("x", 72), ("y", 3))
    ]
    gemm = helper.make_node("Gemm", ["x", *linear_tensors()], ["h"], transB=1)
    graph = helper.make_graph([gemm, *nodes], "g", ends[:1], ends[1:], held)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 3) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


class TestAsExportersWriteIt:
    RATIO = np.array(0.3, np.float32)

    @pytest.mark.parametrize(
        "data",
        [
            lambda: head_of(
                [helper.make_node("Dropout", ["h", "ratio"], ["y"])],
                tensors={"ratio": TestAsExportersWriteIt.RATIO},
            ),
            lambda: head_of(
                [helper.make_node("Identity", ["h"], ["y"])], domains=("ai.onnx.ml", "com.microsoft")
            ),
        ],
        ids=["a scalar", "domains that no node uses"],
    )
    def test_is_the_same_graph(self, tmp_path: Path, data: Any) -> None:
        plain = head_of([helper.make_node("Identity", ["h"], ["y"])])
        np.testing.assert_allclose(
            answers(data(), tmp_path / "a", layout=None),
            answers(plain, tmp_path / "b", layout=None),
            rtol=1e-6,
        )

    @pytest.mark.parametrize(
        "data",
        [
            lambda: head_of(
                [helper.make_node("Dropout", ["h", "ratio", "on"], ["y"])],
                tensors={"ratio": TestAsExportersWriteIt.RATIO, "on": np.array(True)},
            ),
            lambda: head_of(
                [helper.make_node("BatchNormalization", ["h", *"abcd"], ["y"], training_mode=1)],
                tensors={name: np.ones(3, np.float32) for name in "abcd"},
            ),
        ],
        ids=["Dropout", "BatchNormalization"],
    )
    def test_a_layer_in_training_mode_is_refused(self, tmp_path: Path, data: Any) -> None:
        with pytest.raises(MlcoreError, match="is in training mode; call"):
            imported(data(), tmp_path, layout=None)


class TestAnOnnxFile:
    def test_answers_under_our_names_and_keeps_no_path(self, tmp_path: Path) -> None:
        tensors = linear_tensors()
        made, notes = imported(onnx_file([LINEAR], tensors), tmp_path, layout=None)
        want = ROWS @ tensors["w"].T + tensors["b"]
        np.testing.assert_allclose(Predictor(made.folder).logits(ROWS), want, atol=1e-5, rtol=1e-5)
        assert b"somebody" not in (made.folder / "model.onnx").read_bytes()
        assert any("no scaler" in note for note in notes)
        found = inspected(made)
        assert found["shapes_match"] and found["equal_in_graph"] and found["problem"] is None

    def test_of_our_own_form_brings_its_scaler_along(self, tmp_path: Path) -> None:
        fitted, made = fitted_scaler(), network()
        params = {"mean": fitted.mean_, "scale": fitted.scale_}
        ours, _ = imported(
            saved({"model_state_dict": made.state_dict(), "scaler_params": params}), tmp_path / "ours"
        )
        again, notes = imported((ours.folder / "model.onnx").read_bytes(), tmp_path / "again", layout=None)
        assert (Predictor(again.folder).logits(ROWS) == Predictor(ours.folder).logits(ROWS)).all()
        found = inspected(again)
        assert (
            found["in_graph"]
            and found["names_equal_schema"]
            and found["shapes_match"]
            and found["equal_in_graph"]
        )
        assert not any("no scaler" in note for note in notes)

    def test_whose_names_are_ours_for_other_things_is_not_confused(self, tmp_path: Path) -> None:
        tensors = {"features": linear_tensors()["w"], "scaler.mean": linear_tensors()["b"]}
        nodes = [
            helper.make_node("Gemm", ["logits", "features", "scaler.mean"], ["middle"], transB=1),
            helper.make_node("Identity", ["middle"], ["answer"]),
        ]
        got = answers(onnx_file(nodes, tensors, source="logits", target="answer"), tmp_path, layout=None)
        np.testing.assert_allclose(
            got, ROWS @ tensors["features"].T + tensors["scaler.mean"], atol=1e-5, rtol=1e-5
        )

    def test_with_constants_shows_them_to_the_gates(self, tmp_path: Path) -> None:
        hidden = helper.make_node("Constant", [], ["b"], value_floats=[0.0, float("nan"), 0.0])
        made, _ = imported(onnx_file([hidden, LINEAR], {"w": linear_tensors()["w"]}), tmp_path, layout=None)
        assert inspected(made)["non_finite"] == ["model.onnx:b", "weights.safetensors:b"]

    def test_with_probabilities_for_logits_is_refused(self, tmp_path: Path) -> None:
        nodes = [LINEAR, helper.make_node("Softmax", ["y"], ["z"])]
        with pytest.raises(MlcoreError, match="export the logits"):
            imported(onnx_file(nodes, linear_tensors(), target="z"), tmp_path, layout=None)

    def test_differs_from_its_weights_file_only_as_a_damaged_bundle(self, tmp_path: Path) -> None:
        made, _ = imported(onnx_file([LINEAR], linear_tensors()), tmp_path, layout=None)
        graph = onnx.load_model_from_string((made.folder / "model.onnx").read_bytes())
        graph.graph.initializer[0].name = graph.graph.node[0].input[2] = "other"
        (made.folder / "model.onnx").write_bytes(graph.SerializeToString())
        found = inspected(made)
        assert found["shapes_match"] is False and found["equal_in_graph"] is False


class TestNothingIsGuessed:
    @pytest.mark.parametrize(
        "columns", [None, list(COLUMNS)], ids=["without names", "with names that both schemas have"]
    )
    def test_the_schema_must_be_said(self, tmp_path: Path, columns: Any) -> None:
        data = saved({"model_state_dict": network().state_dict(), "feature_columns": columns})
        with pytest.raises(MlcoreError, match="raw72 and relative72 share feature names"):
            imported(data, tmp_path, schema=None)

    def test_the_layout_of_a_checkpoint_must_be_said(self, tmp_path: Path) -> None:
        with pytest.raises(MlcoreError, match="relu-before-bn or bn-before-relu"):
            imported(saved(network().state_dict()), tmp_path, layout=None)

    def test_the_layout_of_a_graph_must_not(self, tmp_path: Path) -> None:
        with pytest.raises(MlcoreError, match="leave the layout out"):
            imported(onnx_file([LINEAR], linear_tensors()), tmp_path)

    @pytest.mark.parametrize("said", [{"schema": "raw"}, {"layout": "both"}], ids=str)
    def test_what_is_said_must_be_known(self, tmp_path: Path, said: dict[str, str]) -> None:
        with pytest.raises(MlcoreError, match="choose"):
            imported(saved(network().state_dict()), tmp_path, **said)

    def test_the_manifest_says_null_for_what_is_not_known(self, tmp_path: Path) -> None:
        made, _ = imported(saved(network().state_dict()), tmp_path)
        manifest = bundle_format.verify(made.folder).manifest
        assert (manifest.cuts, manifest.dataset_digest, manifest.seed) == (None, None, None)
        assert manifest.interval_seconds == 3600
        assert manifest.document["windows"] is None and manifest.document["training"] is None
        assert manifest.schema == indicators.SCHEMAS["raw72"]

    def test_the_same_file_makes_the_same_bundle(self, tmp_path: Path) -> None:
        data = saved(network().state_dict())
        assert imported(data, tmp_path / "one")[0].digest == imported(data, tmp_path / "two")[0].digest


HOSTILE = list(model_files.hostile(Path("unused")))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    canary = tmp_path / "canary"
    make, says = model_files.hostile(canary)[kind]
    data = make()
    layout = LAYOUTS[0] if data.startswith(b"PK") else None
    with pytest.raises(MlcoreError, match=says):
        imported(data, tmp_path, layout=layout)
    assert not canary.exists()
    if kind not in (
        "ONNX that ignores its input",
        "ONNX whose nodes do not meet",
        "ONNX with a recurrent layer over no bars",
    ):  # found when they are tried
        assert not (tmp_path / "bundle").exists()


def test_the_canary_would_appear_if_one_were_run(tmp_path: Path) -> None:
    make, _ = model_files.hostile(tmp_path / "canary")["os.system in the pickle"]
    (tmp_path / "hostile.pt").write_bytes(make())
    torch.load(tmp_path / "hostile.pt", weights_only=False)
    assert (tmp_path / "canary").exists()


def test_the_program_answers_with_a_refusal_and_lets_nothing_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the service runs it, but for the process: a hook cannot be taken out again, so that here it is only asked."""
    monkeypatch.setattr("sys.addaudithook", lambda hook: None)
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"nothing")
    Path("request.json").write_text(json.dumps({**SAID, "layout": None}))
    arguments = [
        "--file",
        "file",
        "--request",
        "request.json",
        "--bundle",
        "bundle",
        "--answer",
        "answer.json",
    ]
    assert convert.main(arguments) == 0
    assert "neither a checkpoint" in json.loads(Path("answer.json").read_text())["refused"]
    with pytest.raises(PermissionError, match=r"os\.system"):
        convert._forbid_programs("os.system", (os.fsencode("true"),))
