"""A dataset made ready for one recipe: what is learned from the fit window before any network sees it."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import polars as pl

from mlcore.features import examples, labels
from mlcore.features.examples import Examples
from mlcore.features.scaler import Scaler
from mlcore.fitting.recipes import Recipe


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
        return self.scaler.transform(self.examples.features[rows]), self.labels[rows]


def prepare(frame: pl.DataFrame, recipe: Recipe) -> Prepared:
    """Raises NotEnoughBars when too few rows are usable."""
    gathered = examples.build_examples(frame, recipe.schema)
    fit = gathered.split.fit
    cuts = labels.compute_cuts(gathered.scaled_returns[fit])
    classes = labels.assign_classes(gathered.scaled_returns, cuts)
    counts = np.bincount(classes[fit], minlength=3)
    return Prepared(
        examples=gathered,
        labels=classes,
        cuts=cuts,
        scaler=Scaler.fit(gathered.features[fit]),
        class_weights=(counts.sum() / (3 * counts)).astype(np.float32),
    )
