"""Faults in our own code: the function that computes features, replaced by one that sees the future."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import polars as pl

from mlcore import features
from mlcore.features import Schema

Computing = Callable[[pl.DataFrame, Schema | str], np.ndarray]

SOUND: Computing = features.compute


@contextmanager
def planted(computing: Computing) -> Iterator[None]:
    """Training, measuring and the bot's own windows all compute by it: they call it by this name."""
    features.compute = computing
    try:
        yield
    finally:
        features.compute = SOUND
