"""A finished fit: what networks and regressions alike come to, and what a bundle is written from."""

from dataclasses import dataclass

import numpy as np

from mlcore.features.scaler import Scaler
from mlcore.fitting.checkpoint import EpochReport
from mlcore.fitting.prepared import Prepared
from mlcore.fitting.recipes import Recipe


@dataclass(frozen=True)
class Trained:
    """Weights, and all that must be known of how they came about."""

    weights: dict[str, np.ndarray]
    """Parameters and buffers by their torch names (fc1.weight …); coef.weight and coef.bias for a regression."""
    prepared: Prepared
    recipe: Recipe
    seed: int
    epochs: list[EpochReport]
    best_epoch: int
    """The epoch whose weights these are."""
    device: str

    @property
    def scaler(self) -> Scaler:
        return self.prepared.scaler

    @property
    def cuts(self) -> tuple[float, float]:
        return self.prepared.cuts
