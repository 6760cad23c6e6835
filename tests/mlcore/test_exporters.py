"""Models of torch, as its exporter writes them: a convolution, recurrence and a transformer on windows."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlcore.bundle.predictor import Predictor
from mlcore.errors import ImportRefused
from mlcore.importers import convert

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


MODELS = {
    "convolution": Convolution,
    "GRU": lambda: Recurrence(nn.GRU),
    "LSTM": lambda: Recurrence(nn.LSTM),
    "transformer": Transformer,
}


def export(model: nn.Module, *, is_dynamic: bool = True, dtype: torch.dtype = torch.float32) -> bytes:
    written = io.BytesIO()
    batch = {"x": {0: "batch"}, "y": {0: "batch"}} if is_dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.to(dtype).eval(),
            (torch.zeros(2, BARS, 5, dtype=dtype),),
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


@pytest.mark.parametrize("name", MODELS)
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
