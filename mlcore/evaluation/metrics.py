"""Metrics over a window of predictions: pure functions from arrays to JSON values."""

from dataclasses import asdict
from functools import reduce
from typing import Any

import numpy as np

from mlcore.constants import CLASSES
from mlcore.evaluation.bootstrap import CAUTIOUS_BLOCK_BARS, RESAMPLES, Blocks

CONFIDENCES = ("0.50", "0.60", "0.70", "0.80", "0.90", "0.95", "0.99", "0.999")

_HEALTHY_LOGIT = 10.0
_BINS = 40
_CALIBRATION_BINS = 15


def compute_confidence(probabilities: np.ndarray) -> dict[str, Any]:
    """Of the greatest probability: the share over each of `CONFIDENCES`, the mean, a histogram."""
    greatest = reduce(np.maximum, probabilities.T)
    return {
        "shares_over": {level: float((greatest > float(level)).mean()) for level in CONFIDENCES},
        "mean": float(greatest.mean()),
        "histogram": compute_histogram(greatest, np.linspace(0.3, 1.0, _BINS - 4)),
    }


def compute_logit_range(values: np.ndarray) -> dict[str, Any]:
    """Least, greatest and histogram. Its edges span −10 … 10, or all values if some lie outside."""
    least, greatest = float(values.min()), float(values.max())
    histogram = None
    if np.isfinite([least, greatest]).all():
        edges = _compute_logit_edges(min(least, -_HEALTHY_LOGIT), max(greatest, _HEALTHY_LOGIT))
        histogram = compute_histogram(values, edges)
    return {"least": least, "greatest": greatest, "histogram": histogram}


def _compute_logit_edges(low: float, high: float) -> np.ndarray:
    """Even steps; for values beyond ten times the healthy range even ratios, so that healthy logits stay visible."""
    if max(-low, high) <= 10 * _HEALTHY_LOGIT:
        return np.linspace(low, high, _BINS + 1)
    tail = _BINS // 2 - 4
    below, above = (np.geomspace(_HEALTHY_LOGIT, reach, tail + 1) for reach in (-low, high))
    healthy = np.linspace(-_HEALTHY_LOGIT, _HEALTHY_LOGIT, _BINS - 2 * tail + 1)
    return np.unique(np.concatenate([-below, healthy, above]))


def compute_histogram(values: np.ndarray, edges: np.ndarray) -> dict[str, list[Any]]:
    steps, ends = len(edges) - 1, (float(edges[0]), float(edges[-1]))
    is_even = np.array_equal(edges, np.linspace(*ends, steps + 1))  # for even bins, numpy need not sort
    counts, _ = np.histogram(values.astype(np.float64), steps if is_even else edges, ends)
    return {"edges": [round(float(edge), 6) for edge in edges], "counts": counts.tolist()}


def compute_shares(classes: np.ndarray) -> dict[str, float]:
    """Share of each class, by name."""
    counts = np.bincount(classes, minlength=len(CLASSES))
    return {name: float(count / len(classes)) for name, count in zip(CLASSES, counts, strict=True)}


def compute_accuracy(hits: np.ndarray, seed: int, block_bars: int = CAUTIOUS_BLOCK_BARS) -> dict[str, Any]:
    """Share of hits, with the cautious 95 % interval of the moving-block bootstrap and its standard error."""
    blocks = Blocks(len(hits), seed, block_bars)
    return {
        "rows": blocks.rows,
        **asdict(blocks.estimate_cautiously(hits)),
        "block_bars": blocks.block_bars,
        "resamples": RESAMPLES,
    }


def compute_confusion(true: np.ndarray, predicted: np.ndarray) -> list[list[int]]:
    """[3][3] counts, one row per true class."""
    n = len(CLASSES)
    return np.bincount(true * n + predicted, minlength=n * n).reshape(n, n).tolist()


def compute_reliability(probabilities: np.ndarray, hits: np.ndarray) -> list[dict[str, Any]]:
    """Mean confidence, accuracy and rows of each band of confidence that occurs."""
    greatest = reduce(np.maximum, probabilities.T)
    bands = np.digitize(greatest, np.linspace(0, 1, 21)[1:-1], right=True).astype(np.int8)
    by_band = np.argsort(bands, kind="stable")
    borders = np.cumsum(np.bincount(bands))[:-1]
    return [
        {"confidence": float(greatest[rows].mean()), "accuracy": float(hits[rows].mean()), "rows": len(rows)}
        for rows in np.split(by_band, borders)
        if len(rows)
    ]


def compute_calibration(probabilities: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Whether a probability of 70 % is right 7 times in 10.

    `ece` is the expected calibration error: the mean distance of accuracy from confidence over 15 equal bands of
    confidence, weighted by rows (Guo et al. 2017). `brier` is the Brier score: the mean squared distance of the
    probabilities from the outcome, summed over classes (Brier 1950). It is 0 at best, 2/3 for always a third each, 2 at
    worst.
    """
    greatest = reduce(np.maximum, probabilities.T)
    hits = probabilities.argmax(axis=1) == true
    bins = np.minimum((greatest * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    excess = np.bincount(bins, weights=greatest - hits, minlength=_CALIBRATION_BINS)
    outcome = np.eye(len(CLASSES))[true]
    return {
        "ece": float(np.abs(excess).sum() / len(true)),
        "brier": float(((probabilities - outcome) ** 2).sum(axis=1).mean()),
        "bins": _CALIBRATION_BINS,
        "rows": len(true),
    }
