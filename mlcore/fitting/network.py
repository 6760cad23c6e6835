"""The network: 72-256-128-64-3 unless a recipe says otherwise. Checkpoints from outside use the same parameter names."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlcore.constants import LAYER_WIDTHS


class Network(nn.Module):
    """Linear → ReLU → BatchNorm → Dropout, three times, then Linear. Scaled features in, logits out."""

    def __init__(
        self, dropout: Sequence[float] = (0.3, 0.3, 0.2), widths: Sequence[int] = LAYER_WIDTHS
    ) -> None:
        super().__init__()
        inputs, first, second, third, outputs = widths
        self.fc1, self.bn1 = nn.Linear(inputs, first), nn.BatchNorm1d(first)
        self.fc2, self.bn2 = nn.Linear(first, second), nn.BatchNorm1d(second)
        self.fc3, self.bn3 = nn.Linear(second, third), nn.BatchNorm1d(third)
        self.fc4 = nn.Linear(third, outputs)
        self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(share) for share in dropout)

    def forward(self, x: Tensor) -> Tensor:  # [n, 72]; the rows of a window as one row of numbers
        x = self.dropout1(self.bn1(functional.relu(self.fc1(x))))  # [n, 256]
        x = self.dropout2(self.bn2(functional.relu(self.fc2(x))))  # [n, 128]
        x = self.dropout3(self.bn3(functional.relu(self.fc3(x))))  # [n, 64]
        return self.fc4(x)  # [n, 3]


def build_network(dropout: Sequence[float], seed: int, widths: Sequence[int] = LAYER_WIDTHS) -> Network:
    """A network whose initial weights depend on the seed alone. The caller's random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(dropout, widths)
