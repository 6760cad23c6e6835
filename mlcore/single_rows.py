"""Rows as a bot meets them: one at a time, each from exactly the bars it would have fetched, without the future."""

from dataclasses import dataclass
from time import perf_counter

import numpy as np
import polars as pl

from mlcore import features
from mlcore.features import Schema
from mlcore.predictor import Predictor, softmax


@dataclass(frozen=True)
class SingleRows:
    """What came of each row, and how long it took."""

    values: np.ndarray
    """float32 [n, 72] of features, [n, 3] of logits."""
    seconds: np.ndarray
    """float64 [n]."""


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of them along the first axis, evenly spread, the first and the last among them."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def features_of(frame: pl.DataFrame, bars: np.ndarray, schema: Schema) -> SingleRows:
    """The features of each bar from its last `lookback` bars alone. Raises FeaturesRefused, NotEnoughBars."""
    found, seconds = [], []
    for bar in bars.tolist():
        start = perf_counter()
        found.append(features.latest(frame.slice(bar - schema.lookback + 1, schema.lookback), schema))
        seconds.append(perf_counter() - start)
    return SingleRows(np.concatenate(found), np.array(seconds))


def logits_of(predictor: Predictor, rows: np.ndarray) -> SingleRows:
    """The logits of each row, its probabilities worked out too, as a bot does. Raises BundleRefused."""
    found, seconds = [], []
    for row in range(len(rows)):
        start = perf_counter()
        found.append(predictor.logits(rows[row : row + 1]))
        softmax(found[-1])
        seconds.append(perf_counter() - start)
    return SingleRows(np.concatenate(found), np.array(seconds))
