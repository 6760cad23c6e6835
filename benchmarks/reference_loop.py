"""The reference training loop, with which the project started: DataLoader, autograd, one coin after the other.

Rewritten after its listing, with what it does per row and per epoch left as it is, its own smoothing loss included.
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from mlcore.fitting.prepared import Prepared

BATCH_SIZE = 64


class ReferenceNetwork(nn.Module):
    """Its layers, and its skipping of BatchNorm for a single row."""

    def __init__(self) -> None:
        super().__init__()
        widths = (72, 256, 128, 64)
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:])
        self.dropouts = nn.ModuleList(nn.Dropout(share) for share in (0.3, 0.3, 0.2))
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        for linear, norm, dropout in zip(self.linears, self.norms, self.dropouts, strict=True):
            x = functional.relu(linear(x))
            if self.training or x.size(0) > 1:
                x = norm(x)
            x = dropout(x)
        logits: Tensor = self.head(x)
        return logits


class SmoothedLoss(nn.Module):
    """Cross-entropy with 0.1 of each label spread over the other classes."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_shares = functional.log_softmax(logits, dim=-1)
        wanted = logits.new_ones(logits.size()) * 0.1 / (logits.size(-1) - 1.0)
        wanted.scatter_(-1, labels.unsqueeze(-1), 0.9)
        return (-wanted * log_shares).sum(dim=-1).mean()


def train(prepared: Prepared, epochs: int, checkpoint: Path, device: str = "cpu") -> nn.Module:
    """All epochs, saving the best as the original does; the rows come scaled, as ours do."""
    rows, labels = (torch.from_numpy(array) for array in prepared.fit)
    stop_rows, stop_labels = (torch.from_numpy(array).to(device) for array in prepared.stop)
    loader = DataLoader(TensorDataset(rows, labels), batch_size=BATCH_SIZE, shuffle=True)
    network, loss_of, best = ReferenceNetwork().to(device), SmoothedLoss(), float("inf")
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    for _ in range(epochs):
        network.train()
        for batch, wanted in loader:
            optimizer.zero_grad()
            loss = loss_of(network(batch.to(device)), wanted.to(device))
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            stop_loss = loss_of(network(stop_rows), stop_labels)
        if stop_loss < best:
            best = float(stop_loss)
            torch.save(network.state_dict(), checkpoint)
    return network
