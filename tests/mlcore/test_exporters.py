"""Models as exporters write them: taken with the answers of the original, or refused with what to change.

torch, onnxruntime and skl2onnx write theirs here. Graphs of LightGBM, XGBoost, CatBoost and tf2onnx are made in their style
(`exported`); where a package is installed, it writes one too.
"""

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from mlcore.bundle.predictor import Predictor
from mlcore.errors import ImportRefused
from mlcore.importers import convert
from tests.mlcore import exported
from tests.mlcore.graphs import FEATURES, imported
from tests.processes import REPOSITORY

BARS = 32
ROWS = np.random.default_rng(2).normal(size=(9, BARS, 5)).astype(np.float32)


class Convolution(nn.Module):
    """A small temporal convolution: its features are computed inside the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv1d(5, 8, 3, dilation=2, padding=2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # [n, 32, 5]
        return self.head(torch.relu(self.layer(x.transpose(1, 2))).mean(2))


class Recurrence(nn.Module):
    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.layer, self.head = kind(5, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.entry, self.head = nn.Linear(5, 16), nn.Linear(16, 3)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.entry(x))[:, -1])


class Dense(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(72, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


MODELS = {
    "convolution": Convolution,
    "GRU": lambda: Recurrence(nn.GRU),
    "LSTM": lambda: Recurrence(nn.LSTM),
    "transformer": Transformer,
    "dense": Dense,
}


def export(
    model: nn.Module,
    *,
    is_dynamic: bool = True,
    dtype: torch.dtype = torch.float32,
    row: tuple[int, ...] = (BARS, 5),
) -> bytes:
    """By torch's exporter that traces, with the arguments that its documentation shows."""
    written = io.BytesIO()
    batch = {"x": {0: "batch"}, "y": {0: "batch"}} if is_dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            (model if dtype == torch.float32 else model.to(dtype)).eval(),
            (torch.zeros(2, *row, dtype=dtype),),
            written,  # type: ignore[arg-type]  # a stream is taken too
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=batch,
        )
    return written.getvalue()


def make(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return MODELS[name]().eval()


def import_(data: bytes, folder: Path) -> Predictor:
    request = convert.Request("BTC", "v7_fixed", f"window{BARS}", None, True, 3600, "tests")
    return Predictor(convert.import_model(data, request, folder / "bundle")[0].folder)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "dense"])
def test_a_model_of_windows_answers_what_torch_answers_in_rows_and_batches(name: str, tmp_path: Path) -> None:
    model = make(name)
    predictor = import_(export(model), tmp_path)
    with torch.no_grad():
        expected = model(torch.from_numpy(ROWS)).numpy()
    np.testing.assert_allclose(predictor.logits(ROWS), expected, atol=1e-5, rtol=1e-5)
    singles = np.concatenate([predictor.logits(row[np.newaxis]) for row in ROWS])
    np.testing.assert_allclose(singles, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["GRU", "LSTM", "transformer"])
def test_a_fixed_batch_is_refused_with_what_to_change(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="export it with a dynamic batch"):
        import_(export(make(name), is_dynamic=False), tmp_path)


def test_float16_at_its_ends_is_refused_with_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"Export it with float32 at both ends"):
        import_(export(make("convolution"), dtype=torch.float16), tmp_path)


def test_a_window_of_another_length_is_refused_with_both(tmp_path: Path) -> None:
    request = convert.Request("BTC", "v7_fixed", "window64", None, True, 3600, "tests")
    with pytest.raises(ImportRefused, match=r"\[batch, 64, 5\].*x \(float, \[batch, 32, 5\]\)"):
        convert.import_model(export(make("convolution")), request, tmp_path / "bundle")


def export_by_dynamo(model: nn.Module, *, is_dynamic: bool = True, row: tuple[int, ...] = (BARS, 5)) -> bytes:
    """By torch's exporter that captures the graph."""
    shapes = ({0: torch.export.Dim("batch")},) if is_dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(), (torch.zeros(2, *row),), dynamo=True, dynamic_shapes=shapes, verbose=False
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convolution", "transformer"])
def test_a_model_captured_by_dynamo_answers_what_torch_does(name: str, tmp_path: Path) -> None:
    model = make(name)
    with torch.no_grad():
        expected = model(torch.from_numpy(ROWS)).numpy()
    np.testing.assert_allclose(
        import_(export_by_dynamo(model), tmp_path).logits(ROWS), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("exporter", [export, export_by_dynamo])
@pytest.mark.parametrize("is_dynamic", [True, False], ids=["a dynamic batch", "a batch of two"])
def test_a_batch_in_the_header_alone_does_not_matter(
    exporter: Callable[..., bytes], is_dynamic: bool, tmp_path: Path
) -> None:
    model = make("dense")
    made = imported(exporter(model, is_dynamic=is_dynamic, row=(72,)), tmp_path, "relative72")
    with torch.no_grad():
        expected = model(torch.from_numpy(FEATURES)).numpy()
    np.testing.assert_allclose(Predictor(made.folder).logits(FEATURES), expected, atol=1e-5, rtol=1e-5)


def to_scores(data: bytes, folder: Path) -> bytes:
    """By the lines of docs/models.md."""
    page = (REPOSITORY / "docs" / "models.md").read_text()
    (lines,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "trees.onnx" in code)
    (folder / "trees.onnx").write_bytes(data)
    exec(lines.replace('"trees.onnx"', "source").replace('"scores.onnx"', "target"), {
        "onnx": onnx, "source": str(folder / "trees.onnx"), "target": str(folder / "scores.onnx"),
    })  # fmt: skip
    return (folder / "scores.onnx").read_bytes()


def answer(data: bytes) -> np.ndarray:
    """What the file itself answers for FEATURES, float32 [n, 3]."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return next(found for found in session.run(None, {name: FEATURES}) if found.shape == (len(FEATURES), 3))


def check_taken(data: bytes, folder: Path) -> None:
    predictor = Predictor(imported(data, folder, "relative72").folder)
    np.testing.assert_allclose(predictor.logits(FEATURES), answer(data), atol=1e-5, rtol=1e-5)
    singles = np.concatenate([predictor.logits(row[np.newaxis]) for row in FEATURES])
    np.testing.assert_allclose(singles, answer(data), atol=1e-5, rtol=1e-5)


TAKEN: dict[str, Callable[[], bytes]] = {
    "skl2onnx, raw scores": exported.skl2onnx,
    "tf2onnx": exported.tf2onnx,
}


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_a_graph_in_an_exporters_style_is_taken(make: Callable[[], bytes], tmp_path: Path) -> None:
    check_taken(make(), tmp_path)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "LightGBM": (lambda: exported.lightgbm(zipmap=True), "ZipMap.*zipmap=False, or cut it off"),
    "LightGBM without a map": (exported.lightgbm, "with probabilities: export the logits"),
    "XGBoost": (exported.xgboost, "probabilities of TreeEnsembleClassifier.*post_transform='NONE'"),
    "CatBoost": (exported.catboost, "ZipMap.*or cut it off as docs/models.md shows"),
    "skl2onnx": (lambda: exported.skl2onnx(zipmap=True, raw_scores=False), "ZipMap.*zipmap=False"),
    "skl2onnx without a map": (
        lambda: exported.skl2onnx(raw_scores=False),
        "probabilities of Normalizer.*skl2onnx: options=.*raw_scores",
    ),
    "tf2onnx with a softmax": (
        lambda: exported.tf2onnx(softmax=True),
        "probabilities of Softmax.*the logits",
    ),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_a_graph_in_an_exporters_style_is_refused_with_what_to_change(
    make: Callable[[], bytes], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ImportRefused, match=says):
        imported(make(), tmp_path, "relative72")


@pytest.mark.parametrize(
    "make",
    [exported.lightgbm, lambda: exported.lightgbm(zipmap=True), exported.xgboost, exported.catboost],
    ids=["LightGBM", "LightGBM with a map", "XGBoost", "CatBoost"],
)
def test_the_lines_of_the_documentation_write_scores_of_trees(
    make: Callable[[], bytes], tmp_path: Path
) -> None:
    check_taken(to_scores(make(), tmp_path), tmp_path)


def with_opsets(data: bytes, *opsets: tuple[str, int]) -> bytes:
    model = onnx.load_model_from_string(data)
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*opset) for opset in opsets)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("opsets", "says"),
    [
        ([("", 8), ("ai.onnx.ml", 1)], "operator set 8 .*one from 9 to 26.*target_opset"),
        ([("", 17), ("", 22), ("ai.onnx.ml", 1)], "operator set 17 and 22"),
        ([("ai.onnx.ml", 1)], "operator set that it does not state"),
        ([("", 17), ("ai.onnx.ml", 9)], "operator set 9 of ai.onnx.ml .*one up to 5"),
    ],
    ids=["too old", "two that differ", "none for its nodes", "too new for trees"],
)
def test_an_operator_set_is_refused_with_those_that_are_taken(
    opsets: list[tuple[str, int]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ImportRefused, match=says):
        imported(with_opsets(exported.tf2onnx(), *opsets), tmp_path, "relative72")


def quantize(data: bytes, folder: Path, *, is_static: bool) -> bytes:
    """By onnxruntime's own tool, from and to a file as it wants."""
    from onnxruntime import quantization

    source, target = folder / "float.onnx", folder / "int8.onnx"
    source.write_bytes(data)
    if is_static:
        readings: Any = iter([{"x": row[np.newaxis]} for row in FEATURES])
        reader = type(
            "Rows", (quantization.CalibrationDataReader,), {"get_next": lambda _: next(readings, None)}
        )
        quantization.quantize_static(source, target, reader(), quant_format=quantization.QuantFormat.QDQ)
    else:
        quantization.quantize_dynamic(source, target)
    return target.read_bytes()


def test_int8_is_taken_if_it_is_quantized_statically(tmp_path: Path) -> None:
    check_taken(quantize(export(make("dense"), row=(72,)), tmp_path, is_static=True), tmp_path)


def test_int8_that_scales_by_the_batch_is_refused(tmp_path: Path) -> None:
    data = quantize(export(make("dense"), row=(72,)), tmp_path, is_static=False)
    with pytest.raises(ImportRefused, match=r"DynamicQuantizeLinear.*quantize statically"):
        imported(data, tmp_path, "relative72")


def test_float16_inside_float32_ends_is_taken(tmp_path: Path) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = make("dense").half()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.half()).float()

    made = imported(export(Half(), row=(72,)), tmp_path, "relative72")
    with torch.no_grad():
        expected = make("dense")(torch.from_numpy(FEATURES)).numpy()
    np.testing.assert_allclose(Predictor(made.folder).logits(FEATURES), expected, atol=0.02)


SAMPLES = np.random.default_rng(0).normal(size=(400, 72)).astype(np.float32)
TRUE = (SAMPLES[:, 0] > 0.4).astype(int) + (SAMPLES[:, 1] > 0)


def installed(*packages: str) -> list[Any]:
    """The packages; without one, the test says loudly what it does not test."""
    return [
        pytest.importorskip(name, reason=f"NOT TESTED: an export of {name}, which is not installed")
        for name in packages
    ]


def test_skl2onnx_itself_writes_what_is_taken(tmp_path: Path) -> None:
    import skl2onnx
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(SAMPLES, TRUE)
    options = {LogisticRegression: {"zipmap": False, "raw_scores": True}}
    data = skl2onnx.to_onnx(model, SAMPLES[:1], options=options).SerializeToString()
    check_taken(data, tmp_path)
    np.testing.assert_allclose(answer(data), model.decision_function(FEATURES), atol=1e-4)
    with pytest.raises(ImportRefused, match="ZipMap"):
        imported(skl2onnx.to_onnx(model, SAMPLES[:1]).SerializeToString(), tmp_path, "relative72")


def test_lightgbm_itself_writes_what_the_documentation_changes(tmp_path: Path) -> None:
    lightgbm, onnxmltools = installed("lightgbm", "onnxmltools")
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(SAMPLES, TRUE)
    kinds = [("x", onnxmltools.convert.common.data_types.FloatTensorType([None, 72]))]
    data = onnxmltools.convert_lightgbm(model, initial_types=kinds, target_opset=15).SerializeToString()
    check_taken(to_scores(data, tmp_path), tmp_path)
    scores = model.predict(FEATURES, raw_score=True)
    np.testing.assert_allclose(answer(to_scores(data, tmp_path)), scores, atol=1e-5)


def test_xgboost_itself_writes_what_the_documentation_changes(tmp_path: Path) -> None:
    xgboost, onnxmltools = installed("xgboost", "onnxmltools")
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=3).fit(SAMPLES, TRUE)
    kinds = [("x", onnxmltools.convert.common.data_types.FloatTensorType([None, 72]))]
    data = onnxmltools.convert_xgboost(model, initial_types=kinds, target_opset=15).SerializeToString()
    check_taken(to_scores(data, tmp_path), tmp_path)
    scores = model.predict(FEATURES, output_margin=True)
    np.testing.assert_allclose(answer(to_scores(data, tmp_path)), scores, atol=1e-5)


def test_catboost_itself_writes_what_the_documentation_changes(tmp_path: Path) -> None:
    (catboost,) = installed("catboost")
    quiet = {"verbose": False, "allow_writing_files": False}
    model = catboost.CatBoostClassifier(iterations=5, depth=3, loss_function="MultiClass", **quiet)
    model.fit(SAMPLES, TRUE).save_model(str(tmp_path / "trees.cb"), format="onnx")
    data = (tmp_path / "trees.cb").read_bytes()
    check_taken(to_scores(data, tmp_path), tmp_path)
    scores = model.predict(FEATURES, prediction_type="RawFormulaVal")
    np.testing.assert_allclose(answer(to_scores(data, tmp_path)), scores, atol=1e-5)
