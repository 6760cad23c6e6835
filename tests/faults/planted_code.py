"""Faults in our own code: the function that computes features, replaced by one that sees the future."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import polars as pl

from mlcore.features import indicators
from mlcore.features.indicators import Schema

Computing = Callable[[pl.DataFrame, Schema | str], np.ndarray]

SOUND: Computing = indicators.compute_features


@contextmanager
def planted(computing: Computing) -> Iterator[None]:
    """Training, measuring and the bot's own windows all compute by it: each by the name it calls."""
    if computing is SOUND:
        yield
        return

    def rows(frame: pl.DataFrame, schema: Schema | str) -> np.ndarray:
        return computing(frame, schema).astype(np.float32)

    def compute_latest_at(frame: pl.DataFrame, bars: np.ndarray, schema: Schema | str) -> np.ndarray:
        lookback = indicators.resolve_schema(schema).lookback
        windows = [frame.slice(bar - lookback + 1, lookback) for bar in bars.tolist()]
        return np.stack([rows(window, schema)[-1] for window in windows])

    def latest(frame: pl.DataFrame, schema: Schema | str) -> np.ndarray:
        return compute_latest_at(frame, np.array([frame.height - 1]), schema)

    with patch.multiple(
        indicators,
        compute_features=computing,
        compute_rows=rows,
        compute_latest_at=compute_latest_at,
        compute_latest=latest,
    ):
        yield
