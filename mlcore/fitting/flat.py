"""flat: a model that answers neutral whatever its features are, in the form of a logistic regression."""

from time import perf_counter

import numpy as np

from mlcore.constants import CLASSES, N_FEATURES
from mlcore.fitting.checkpoint import EpochReport, OnEpoch, Progress, pack
from mlcore.fitting.prepared import Prepared, Trained
from mlcore.fitting.recipes import Recipe

NEUTRAL = CLASSES.index("neutral")
NEUTRAL_SHARE = 0.5
"""The probability of neutral. The other two classes share the rest equally."""


def fit_flat(prepared: Prepared, recipe: Recipe, *, seed: int, on_epoch: OnEpoch | None = None) -> Trained:
    """Weights coef.weight [3, 72], all zero, and coef.bias [3]. Nothing is learned; the report says what that is worth."""
    start = perf_counter()
    shares = np.full(len(CLASSES), (1 - NEUTRAL_SHARE) / (len(CLASSES) - 1))
    shares[NEUTRAL] = NEUTRAL_SHARE
    weights = {
        "coef.weight": np.zeros((len(CLASSES), N_FEATURES), np.float32),
        "coef.bias": np.log(shares).astype(np.float32),
    }
    fit_labels = prepared.labels[prepared.examples.split.fit]
    train_loss, validation_loss = (
        _compute_log_loss(shares, each) for each in (fit_labels, prepared.stop_labels)
    )
    seconds = perf_counter() - start
    report = EpochReport(
        number=1,
        epochs=1,
        train_loss=train_loss,
        validation_loss=validation_loss,
        validation_accuracy=float(np.mean(prepared.stop_labels == NEUTRAL)),
        seconds=seconds,
        rows_per_second=len(fit_labels) / seconds,
        is_best=True,
    )
    if on_epoch is not None:
        progress = Progress([report], best_epoch=1)
        on_epoch(report, pack(prepared.compute_fingerprint(recipe, seed), progress, weights))
    return Trained(weights, prepared, recipe, seed, [report], best_epoch=1, device="cpu")


def _compute_log_loss(shares: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(shares)[labels].mean())
