"""A temporal convolution in torch on the last 32 bars: fitted, checked, uploaded and judged from a notebook.

CRPBOT_URL=… CRPBOT_TOKEN=… python torch_windows.py

pip install torch
"""

import copy
import io
import os
import warnings

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from crpbot_runtime.train import Gate, Rows

COIN, LINE, HORIZON = "BTC", "notebook", 2


class Network(nn.Module):
    """Scaler → two convolutions over time → their mean and their last value → linear layer."""

    def __init__(self, mean: Tensor, scale: Tensor, channels: int = 16) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.layers = nn.Sequential(
            nn.Conv1d(len(mean), channels, 5), nn.ReLU(), nn.Conv1d(channels, channels, 5), nn.ReLU()
        )
        self.head = nn.Linear(2 * channels, 3)

    def forward(self, windows: Tensor) -> Tensor:  # [n, L, 5]
        found = self.layers(((windows - self.mean) / self.scale).transpose(1, 2))  # [n, channels, L - 8]
        return self.head(torch.cat([found.mean(2), found[:, :, -1]], 1))  # [n, 3]


def fit(rows: Rows, epochs: int = 8) -> bytes:
    """An ONNX file: windows [batch, L, 5] → logits [batch, 3]. The graph begins with its scaler."""
    torch.manual_seed(1)
    model = Network(torch.tensor(rows.scaler.mean).float(), torch.tensor(rows.scaler.scale).float())
    features, labels = torch.tensor(rows.fit.features), torch.tensor(rows.fit.labels)
    stop, stop_labels = torch.tensor(rows.stop.features), torch.tensor(rows.stop.labels)
    weights = torch.tensor(rows.class_weights)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    best, kept = float("inf"), copy.deepcopy(model.state_dict())
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(256):
            optimizer.zero_grad()
            cross_entropy(model(features[batch]), labels[batch], weights).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(cross_entropy(model(stop), stop_labels, weights))
        if loss < best:
            best, kept = loss, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return export(model.eval(), features[:1])


def export(model: nn.Module, example: Tensor) -> bytes:
    written = io.BytesIO()
    ends = {"windows": {0: "batch"}, "logits": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends another exporter
        torch.onnx.export(
            model,
            (example,),
            written,
            dynamo=False,
            input_names=["windows"],
            output_names=["logits"],
            dynamic_axes=ends,
        )
    return written.getvalue()


if __name__ == "__main__":
    with Gate(os.environ["CRPBOT_URL"], os.environ["CRPBOT_TOKEN"]) as gate:
        dataset = gate.datasets(coin=COIN, verdict="passed")[0]  # the newest
        rows = gate.prepare(dataset, input="window32", horizon=HORIZON)
        graph = fit(rows)
        print(gate.check(rows, graph, has_scaler=True))
        bundle = gate.upload(rows, graph, line=LINE, has_scaler=True)
        newer = gate.wait_for_dataset(bundle)  # import later candles, or simulate another market
        release = gate.launch(LINE, bundles={COIN: bundle["digest"]}, datasets={COIN: newer["id"]})
        release = gate.wait(release)
        print(f"release {release['id']}: {release['state']}. {release['reason']}")
