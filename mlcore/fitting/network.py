"""The one network: 72-256-128-64-3, its parameter names those of the checkpoints it must be able to import."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Network(nn.Module):
    """Linear → ReLU → BatchNorm → Dropout, three times, then Linear. Scaled features in, logits out."""

    def __init__(self, dropout: Sequence[float] = (0.3, 0.3, 0.2)) -> None:
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(72, 256), nn.BatchNorm1d(256)
        self.fc2, self.bn2 = nn.Linear(256, 128), nn.BatchNorm1d(128)
        self.fc3, self.bn3 = nn.Linear(128, 64), nn.BatchNorm1d(64)
        self.fc4 = nn.Linear(64, 3)
        self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(share) for share in dropout)

    def forward(self, x: Tensor) -> Tensor:  # [n, 72]
        x = self.dropout1(self.bn1(functional.relu(self.fc1(x))))  # [n, 256]
        x = self.dropout2(self.bn2(functional.relu(self.fc2(x))))  # [n, 128]
        x = self.dropout3(self.bn3(functional.relu(self.fc3(x))))  # [n, 64]
        return self.fc4(x)  # [n, 3]


def build_network(dropout: Sequence[float], seed: int) -> Network:
    """A network whose initial weights depend on the seed alone; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(dropout)
