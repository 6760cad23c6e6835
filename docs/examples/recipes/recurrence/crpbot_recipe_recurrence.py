"""A recipe: a gated recurrent unit (Cho et al. 2014) over a window of bars, stopped by the loss on the stop window."""

import copy
import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

INPUTS = ("window64",)
PARAMETERS = {
    # Settings of the service: their bounds are known, and a recipe gives its defaults.
    "epochs": {"default": 16},
    "batch_size": {"default": 128},
    "learning_rate": {"default": 0.001},
    "units": {
        "default": 32,
        "least": 4,
        "greatest": 128,
        "meaning": "numbers that it remembers from bar to bar",
    },
}


class Recurrence(nn.Module):
    """Scaler → GRU → its last state → linear layer. Windows in, logits out."""

    def __init__(self, mean: Tensor, scale: Tensor, units: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.layer = nn.GRU(len(mean), units, batch_first=True)
        self.head = nn.Linear(units, 3)

    def forward(self, windows: Tensor) -> Tensor:  # [n, L, 5]
        states, _ = self.layer((windows - self.mean) / self.scale)  # [n, L, units]
        return self.head(states[:, -1])  # [n, 3]


def fit(rows: Any) -> bytes:
    """An ONNX file: windows [batch, L, 5] → logits [batch, 3]. The graph begins with its scaler."""
    torch.manual_seed(rows.seed)
    settings = rows.parameters
    features, labels, stop, stop_labels, mean, scale, weights = (
        torch.tensor(array)
        for array in (
            rows.features, rows.labels, rows.stop_features, rows.stop_labels, rows.mean, rows.scale, rows.class_weights,
        )
    )  # fmt: skip
    model = Recurrence(mean, scale, settings["units"])
    optimizer = torch.optim.Adam(model.parameters(), settings["learning_rate"])
    best, kept = float("inf"), copy.deepcopy(model.state_dict())
    for _ in range(settings["epochs"]):
        for batch in torch.randperm(len(labels)).split(settings["batch_size"]):
            optimizer.zero_grad()
            cross_entropy(model(features[batch]), labels[batch], weights).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(cross_entropy(model(stop), stop_labels, weights))
        if loss < best:
            best, kept = loss, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return _export(model.eval(), features[:1])


def _export(model: nn.Module, example: Tensor) -> bytes:
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about the batch of a recurrent layer
        torch.onnx.export(
            model,
            (example,),
            written,
            dynamo=False,
            input_names=["windows"],
            output_names=["logits"],
            dynamic_axes={"windows": {0: "batch"}, "logits": {0: "batch"}},
        )
    return written.getvalue()
