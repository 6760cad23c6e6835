"""How much better the best trial looks than it is, because it is the best of many on the same stop window.

The bootstrap bias correction of Tsamardinos, Greasidou and Borboudakis (2018), over blocks of bars: draw blocks of the stop
window with replacement, choose the best trial by them, and read that trial's figure on the blocks that were not drawn. The
mean of these is what the choice is worth; the best figure less that mean is its optimism. The choice of an epoch within
each trial, and pruned trials, are not in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlcore.evaluation.bootstrap import get_block_bars

RESAMPLES = 1000
MIN_BLOCKS = 8
"""With fewer blocks the estimate says nothing."""
BLOCKS_WANTED = 20


@dataclass(frozen=True)
class SelectionBias:
    """The best of several figures, and what the choice of it is worth."""

    best: float
    corrected: float
    """What to expect of it on other rows of the same kind."""
    trials: int
    blocks: int

    @property
    def optimism(self) -> float:
        """By how much the best figure is too good, at least 0."""
        return abs(self.best - self.corrected)


def add_up_rows(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, *, smoothing: float, horizon: int
) -> dict[str, Any]:
    """Sums over consecutive blocks of a window: {hits, rows, losses, weights, block_bars}.

    `logits` [n, 3] and `labels` [n] of its rows, `weights` [3] of the classes. Blocks are as long as those of the gates, and
    shorter where the window has fewer than twenty of them.
    """
    bars = max(1, min(get_block_bars(horizon), len(labels) // BLOCKS_WANTED))
    starts = np.arange(0, len(labels), bars)
    values = {
        "hits": logits.argmax(1) == labels,
        "rows": np.ones(len(labels)),
        "losses": compute_losses(logits, labels, weights, smoothing),
        "weights": weights[labels],
    }
    sums = {name: np.add.reduceat(np.asarray(rows, dtype=float), starts) for name, rows in values.items()}
    return {"block_bars": bars, **{name: [float(total) for total in rows] for name, rows in sums.items()}}


def compute_losses(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, smoothing: float
) -> np.ndarray:
    """The weighted cross-entropy [n] of each row, as torch adds it up before it divides by the weights of the labels."""
    shifted = logits - logits.max(1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    own = weights[labels] * log_shares[np.arange(len(labels)), labels]
    return np.asarray(-(1 - smoothing) * own - smoothing * (log_shares * weights).mean(1))


def estimate(
    sums: Sequence[Sequence[float]],
    weights: Sequence[Sequence[float]],
    *,
    is_minimized: bool,
    seed: int = 0,
) -> SelectionBias | None:
    """`sums` [trials, blocks] of hits or weighted losses, `weights` of rows or loss weights; a figure is their ratio.

    None for fewer than two trials or too few blocks.
    """
    if len(sums) < 2 or len(sums[0]) < MIN_BLOCKS:
        return None
    figures, of = np.array(sums, dtype=float), np.array(weights, dtype=float)
    sign = 1.0 if is_minimized else -1.0
    blocks = figures.shape[1]
    counts = np.random.default_rng(seed).multinomial(blocks, [1 / blocks] * blocks, size=RESAMPLES)
    left_out = (counts == 0).astype(float)
    inside = (counts @ figures.T) / (counts @ of.T)
    outside = (left_out @ figures.T) / np.maximum(left_out @ of.T, 1e-12)
    chosen = np.argmin(sign * inside, axis=1)
    drawn = left_out.any(axis=1)
    whole = figures.sum(axis=1) / of.sum(axis=1)
    best = float(whole[np.argmin(sign * whole)])
    corrected = float(outside[np.arange(RESAMPLES), chosen][drawn].mean())
    # A correction never makes the best better.
    corrected = max(best, corrected) if is_minimized else min(best, corrected)
    return SelectionBias(best, corrected, len(sums), blocks)
