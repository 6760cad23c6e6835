"""A finished fit of any kind of model: what a bundle is written from."""

from dataclasses import dataclass

import numpy as np

from mlcore.features.scaler import Scaler
from mlcore.fitting.checkpoint import EpochReport
from mlcore.fitting.prepared import Prepared
from mlcore.fitting.recipes import Recipe


@dataclass(frozen=True)
class Trained:
    """The weights, and how they were trained."""

    weights: dict[str, np.ndarray]
    """Parameters and buffers by their torch names (fc1.weight …); coef.weight and coef.bias for a regression."""
    prepared: Prepared
    recipe: Recipe
    seed: int
    epochs: list[EpochReport]
    best_epoch: int
    """The epoch of these weights."""
    device: str

    @property
    def scaler(self) -> Scaler:
        return self.prepared.scaler

    @property
    def cuts(self) -> tuple[float, float]:
        return self.prepared.cuts
