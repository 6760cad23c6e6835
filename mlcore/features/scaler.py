"""Standardisation of features: their mean and standard deviation over the fit window."""

from dataclasses import dataclass

import numpy as np

from mlcore import parallel

_BLOCK_ROWS = 1024
"""A float64 copy of so few rows stays in the cache."""


@dataclass(frozen=True)
class Scaler:
    """Mean and scale of each feature over the fit window, float64 [72]; every scale is above zero.

    Of windows it is float64 [5]: of open, high, low, close and volume, over all their bars.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> "Scaler":
        """Blocks are computed about their own means and joined: every term is ≥ 0 (Chan, Golub & LeVeque 1983)."""
        features = features.reshape(-1, features.shape[-1])
        blocks = parallel.chunks(len(features), _BLOCK_ROWS)
        moments = parallel.thread_map(lambda rows: _compute_moments(features[rows]), blocks)
        rows, means, squares = (np.array(figures) for figures in zip(*moments, strict=True))
        mean = rows @ means / len(features)
        scale = np.sqrt((squares.sum(axis=0) + rows @ (means - mean) ** 2) / len(features))
        # A feature that never moved tells nothing; dividing by 1 leaves it at zero.
        return cls(mean, np.where(scale > 0, scale, 1.0))

    def transform(self, features: np.ndarray) -> np.ndarray:
        """float32, in the shape of the features, by the same operations as the graph in the bundle."""
        return (features - self.mean.astype(np.float32)) / self.scale.astype(np.float32)


def _compute_moments(rows: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The number of rows, their mean, and the sum of squared distances from it."""
    block = rows.astype(np.float64)
    mean = np.ones(len(block)) @ block / len(block)
    block -= mean
    return float(len(block)), mean, np.einsum("ij,ij->j", block, block)
