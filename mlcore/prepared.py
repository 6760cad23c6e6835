"""A dataset made ready for one recipe: what is learned from the fit window before any network sees it."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import polars as pl

from mlcore import examples, labels, side_by_side
from mlcore.examples import Examples
from mlcore.recipes import Recipe

_ROWS_AT_ONCE = 1024
"""A wide copy of so few rows stays in the cache."""
_ROWS_A_THREAD = 32 * _ROWS_AT_ONCE


@dataclass(frozen=True)
class Scaler:
    """Mean and scale of each feature over the fit window, float64 [72]; every scale is above zero."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Scaler":
        """By stretches, each about its own mean, and joined: every term is ≥ 0 (Chan, Golub & LeVeque 1983)."""
        parts = side_by_side.stretches(len(features), _ROWS_A_THREAD)
        spreads = [
            spread
            for found in side_by_side.each(lambda part: _spreads(features[part]), parts)
            for spread in found
        ]
        rows, means, squares = (np.array(figures) for figures in zip(*spreads, strict=True))
        mean = rows @ means / len(features)
        scale = np.sqrt((squares.sum(axis=0) + rows @ (means - mean) ** 2) / len(features))
        # A feature that never moved tells nothing either way; dividing by 1 leaves it at zero.
        return cls(mean, np.where(scale > 0, scale, 1.0))

    def scaled(self, features: np.ndarray) -> np.ndarray:
        """float32 [n, 72], by the very operations of the graph in the bundle."""
        return (features - self.mean.astype(np.float32)) / self.scale.astype(np.float32)


def _spreads(features: np.ndarray) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Of every few rows: how many, their mean, and the sum of squared distances from it."""
    found = []
    for some in side_by_side.stretches(len(features), _ROWS_AT_ONCE):
        wide = features[some].astype(np.float64)
        mean = np.ones(len(wide)) @ wide / len(wide)
        wide -= mean
        found.append((float(len(wide)), mean, np.einsum("ij,ij->j", wide, wide)))
    return found


@dataclass(frozen=True)
class Prepared:
    """Usable rows with their labels, and what the fit window alone decides: scaler, cuts, class weights."""

    examples: Examples
    labels: np.ndarray
    """int64 [n]."""
    cuts: tuple[float, float]
    scaler: Scaler
    class_weights: np.ndarray
    """float32 [3]: rows / (3 · rows of the class)."""

    @property
    def fit(self) -> tuple[np.ndarray, np.ndarray]:
        """Scaled features and labels of the fit window."""
        return self._rows(self.examples.split.fit)

    @property
    def stop(self) -> tuple[np.ndarray, np.ndarray]:
        """The same of the window that stops training early."""
        return self._rows(self.examples.split.stop)

    @property
    def stop_labels(self) -> np.ndarray:
        return self.labels[self.examples.split.stop]

    @property
    def majority_share(self) -> float:
        """Share of the commonest class in the stop window: what a constant answer would score there."""
        counts = np.bincount(self.stop_labels, minlength=3)
        return float(counts.max() / counts.sum())

    def fingerprint(self, recipe: Recipe, seed: int) -> str:
        """Names the fit: one recipe with its parameters, one seed, these rows."""
        text = json.dumps([recipe.parameters(), seed, self.cuts], sort_keys=True)
        rows = hashlib.sha256(self.examples.features.tobytes() + self.labels.tobytes()).hexdigest()
        return hashlib.sha256(f"{text} {rows}".encode()).hexdigest()

    def _rows(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        return self.scaler.scaled(self.examples.features[rows]), self.labels[rows]


def prepare(frame: pl.DataFrame, recipe: Recipe) -> Prepared:
    """Raises NotEnoughBars when too few rows are usable."""
    gathered = examples.gather(frame, recipe.schema)
    fit = gathered.split.fit
    cuts = labels.cuts(gathered.scaled_returns[fit])
    classes = labels.label(gathered.scaled_returns, cuts)
    counts = np.bincount(classes[fit], minlength=3)
    return Prepared(
        examples=gathered,
        labels=classes,
        cuts=cuts,
        scaler=Scaler.of(gathered.features[fit]),
        class_weights=(counts.sum() / (3 * counts)).astype(np.float32),
    )
