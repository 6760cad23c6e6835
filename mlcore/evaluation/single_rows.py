"""Single rows as a bot sees them: each from exactly the bars that the bot would have fetched, without the future."""

from time import perf_counter

import numpy as np
import polars as pl

from mlcore.bundle.predictor import Predictor, softmax
from mlcore.features import indicators
from mlcore.features.indicators import Schema


def sample_evenly(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` along the first axis, evenly spaced, with the first and the last."""
    sample: np.ndarray = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    return sample


def compute_single_logits(predictor: Predictor, rows: np.ndarray) -> np.ndarray:
    """float32 [n, 3]: each row in a batch of its own. Raises BundleRefused."""
    return np.concatenate([predictor.logits(rows[row : row + 1]) for row in range(len(rows))])


def time_predictions(
    predictor: Predictor, frame: pl.DataFrame, bars: np.ndarray, schema: Schema
) -> np.ndarray:
    """float64 [n]: seconds from a bot's candles to its probabilities, for each bar.

    Raises FeaturesRefused, NotEnoughBars, BundleRefused.
    """
    seconds = []
    for bar in bars.tolist():
        window = frame.slice(bar - schema.lookback + 1, schema.lookback)
        start = perf_counter()
        softmax(predictor.logits(indicators.compute_latest(window, schema)))
        seconds.append(perf_counter() - start)
    return np.array(seconds)
