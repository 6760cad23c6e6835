"""A dataset prepared for one recipe, and what a fit of it gives.

Prepared are rows and labels, and all that is learned from the fit window before training.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from mlcore.constants import CLASSES
from mlcore.features.examples import Examples, build_examples, compute_fit_statistics
from mlcore.features.scaler import Scaler
from mlcore.fitting.checkpoint import EpochReport
from mlcore.fitting.recipes import Recipe


@dataclass(frozen=True)
class Prepared:
    """Usable rows with their labels; scaler, cuts and class weights come from the fit window alone."""

    examples: Examples
    labels: np.ndarray
    """int64 [n]."""
    cuts: tuple[float, float]
    scaler: Scaler
    class_weights: np.ndarray
    """float32 [3]."""

    @property
    def fit(self) -> tuple[np.ndarray, np.ndarray]:
        """Scaled features and labels of the fit window; each window of bars as one row of numbers."""
        return self._scale_rows(self.examples.split.fit)

    @property
    def stop(self) -> tuple[np.ndarray, np.ndarray]:
        """The same of the window for early stopping."""
        return self._scale_rows(self.examples.split.stop)

    @property
    def stop_labels(self) -> np.ndarray:
        return self.labels[self.examples.split.stop]

    @property
    def majority_share(self) -> float:
        """Share of the most common class in the stop window: the accuracy of a constant answer."""
        counts = np.bincount(self.stop_labels, minlength=len(CLASSES))
        return float(counts.max() / counts.sum())

    def compute_fingerprint(self, recipe: Recipe, seed: int) -> str:
        """Identifies the fit: the recipe with its parameters, the seed, and these rows."""
        text = json.dumps([recipe.parameters(), seed, self.cuts], sort_keys=True)
        rows = hashlib.sha256(self.examples.features.tobytes() + self.labels.tobytes()).hexdigest()
        return hashlib.sha256(f"{text} {rows}".encode()).hexdigest()

    def _scale_rows(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        scaled = self.scaler.transform(self.examples.features[rows])
        return scaled.reshape(len(scaled), -1), self.labels[rows]


def prepare(frame: pl.DataFrame, recipe: Recipe) -> Prepared:
    """Raises NotEnoughBars if too few rows are usable."""
    return prepare_examples(build_examples(frame, recipe.input, recipe.label, recipe.shares))


def prepare_examples(examples: Examples) -> Prepared:
    """The same from rows. Raises NotEnoughBars if a class has none in the fit window."""
    return Prepared(examples=examples, **vars(compute_fit_statistics(examples)))


@dataclass(frozen=True)
class Trained:
    """A finished fit of any kind of model, which a bundle is written from."""

    weights: dict[str, np.ndarray]
    """Parameters and buffers by their torch names (fc1.weight …); coef.weight and coef.bias for a regression."""
    prepared: Prepared
    recipe: Recipe
    seed: int
    epochs: list[EpochReport]
    best_epoch: int
    """The epoch of these weights."""
    device: str
    payload: Mapping[str, bytes] | None = None
    """The files of its bundle, of a model whose graph the service does not write; it has no weights then."""

    @property
    def scaler(self) -> Scaler:
        return self.prepared.scaler
