"""v5: multinomial logistic regression to convergence. Only this module needs scikit-learn."""

import os
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from mlcore.constants import CLASSES
from mlcore.fitting.checkpoint import EpochReport, OnEpoch, Progress, pack
from mlcore.fitting.prepared import Prepared, Trained
from mlcore.fitting.recipes import Recipe

_MAX_ITERATIONS = 200
"""Newton's method needs five or six on normal candles."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def fit_logistic(
    prepared: Prepared, recipe: Recipe, *, seed: int, on_epoch: OnEpoch | None = None
) -> Trained:
    """Weights coef.weight [3, 72] and coef.bias [3]. The whole fit is one epoch, so it is never resumed."""
    start = perf_counter()
    features, labels = prepared.fit
    with _use_one_thread():
        model = LogisticRegression(solver="newton-cholesky", max_iter=_MAX_ITERATIONS)
        model.fit(features.astype(np.float64), labels)
    seconds = perf_counter() - start
    rows, stop_labels = prepared.stop
    report = EpochReport(
        number=1,
        epochs=1,
        train_loss=_compute_log_loss(model, features, labels),
        validation_loss=_compute_log_loss(model, rows, stop_labels),
        validation_accuracy=float(np.mean(model.predict(rows) == stop_labels)),
        seconds=seconds,
        rows_per_second=len(labels) / seconds,
        is_best=True,
    )
    weights = {
        "coef.weight": model.coef_.astype(np.float32),
        "coef.bias": model.intercept_.astype(np.float32),
    }
    if on_epoch is not None:
        progress = Progress([report], best_epoch=1)
        on_epoch(report, pack(prepared.compute_fingerprint(recipe, seed), progress, weights))
    return Trained(weights, prepared, recipe, seed, [report], best_epoch=1, device="cpu")


def _use_one_thread() -> AbstractContextManager[object]:
    """One thread gives the same bytes on every number of cores, and leaves the other cores to other runs.

    The sandbox has one already, and the file that lists the libraries to limit cannot be read there.
    """
    if all(os.environ.get(name) == "1" for name in _THREADS):
        return nullcontext()
    return threadpool_limits(limits=1)


def _compute_log_loss(model: LogisticRegression, rows: np.ndarray, labels: np.ndarray) -> float:
    return float(log_loss(labels, model.predict_proba(rows), labels=range(len(CLASSES))))
