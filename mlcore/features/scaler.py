"""Mean and scale of each feature, learned from the fit window alone."""

from dataclasses import dataclass

import numpy as np

from mlcore import parallel

_ROWS_AT_ONCE = 1024
"""A wide copy of so few rows stays in the cache."""
_ROWS_A_THREAD = 32 * _ROWS_AT_ONCE


@dataclass(frozen=True)
class Scaler:
    """Mean and scale of each feature over the fit window, float64 [72]; every scale is above zero."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> "Scaler":
        """By stretches, each about its own mean, and joined: every term is ≥ 0 (Chan, Golub & LeVeque 1983)."""
        parts = parallel.chunks(len(features), _ROWS_A_THREAD)
        spreads = [
            spread
            for found in parallel.thread_map(lambda part: _spreads(features[part]), parts)
            for spread in found
        ]
        rows, means, squares = (np.array(figures) for figures in zip(*spreads, strict=True))
        mean = rows @ means / len(features)
        scale = np.sqrt((squares.sum(axis=0) + rows @ (means - mean) ** 2) / len(features))
        # A feature that never moved tells nothing either way; dividing by 1 leaves it at zero.
        return cls(mean, np.where(scale > 0, scale, 1.0))

    def transform(self, features: np.ndarray) -> np.ndarray:
        """float32 [n, 72], by the very operations of the graph in the bundle."""
        return (features - self.mean.astype(np.float32)) / self.scale.astype(np.float32)


def _spreads(features: np.ndarray) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Of every few rows: how many, their mean, and the sum of squared distances from it."""
    found = []
    for some in parallel.chunks(len(features), _ROWS_AT_ONCE):
        wide = features[some].astype(np.float64)
        mean = np.ones(len(wide)) @ wide / len(wide)
        wide -= mean
        found.append((float(len(wide)), mean, np.einsum("ij,ij->j", wide, wide)))
    return found
