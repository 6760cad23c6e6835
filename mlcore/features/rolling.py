"""Rolling statistics, each computed from its own last n bars, never from a running total.

A window of n bars is combined from windows of 1, 2, 4, 8 … bars: log2(n) vectorised steps without cancellation. The
result has the same bits wherever in the history the window lies. A window that begins before the first bar holds the
fold of the bars that exist; the caller hides these rows.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache, partial

import numpy as np

Array = np.ndarray
Join = Callable[[Array, Array, Array, int, int], object]
"""(out, recent, older, bars in recent, bars in older): writes their union into `out`, element by element."""


def fold(join: Join, values: Array, sizes: Iterable[int], newest: int | None = None) -> dict[int, Array]:
    """{window size: the folds of all windows, shaped as `values`}; time is the last axis.

    With `newest`, only the last so many windows are computed, and each level from no more bars than it needs.
    """
    folds: dict[int, Array] = {}
    wanted = sorted(sizes)
    largest, newest = wanted[-1], values.shape[-1] if newest is None else newest
    level, width = values[..., -(newest + largest - 1) :], 1
    while width <= largest:
        for size in wanted:
            if size & width:
                done = size & (width - 1)
                folds[size] = _join(folds[size], level, done, width, join) if done else level[..., -newest:]
        width *= 2
        if width <= largest:
            recent = level[..., -(newest + largest - width) :]
            level = _join(recent, level, width // 2, width // 2, join)
    return folds


def _join(recent: Array, older: Array, n_recent: int, n_older: int, join: Join) -> Array:
    """Both end with the same bar; `older` may begin before `recent`."""
    union = np.empty_like(recent)
    end = max(0, older.shape[-1] - n_recent)
    first = end - recent.shape[-1]
    if first >= 0:
        join(union, recent, older[..., first:end], n_recent, n_older)
    else:
        union[..., :-first] = recent[..., :-first]
        join(union[..., -first:], recent[..., -first:], older[..., :end], n_recent, n_older)
    return union


def _join_by(ufunc: np.ufunc) -> Join:
    return lambda out, recent, older, *_: ufunc(recent, older, out=out)


compute_sums = partial(fold, _join_by(np.add))
compute_maxima = partial(fold, _join_by(np.maximum))
compute_minima = partial(fold, _join_by(np.minimum))
"""Of the last n values."""


def compute_deviations(values: Array, sizes: Iterable[int], newest: int | None = None) -> dict[int, Array]:
    """Sample standard deviations of the last n values; exactly 0 if they are all the same."""
    state = np.stack([values, np.zeros_like(values)])
    spreads = fold(_join_moments, state, sizes, newest)
    return {size: np.sqrt(square / (size - 1)) for size, (_, square) in spreads.items()}


def _join_moments(out: Array, recent: Array, older: Array, n_recent: int, n_older: int) -> None:
    """Of (sum, sum of squared distances from the mean): Chan, Golub & LeVeque 1983, whose every term is ≥ 0."""
    np.add(recent, older, out=out)
    distance = recent[0] * n_older
    distance -= older[0] * n_recent
    distance *= distance
    distance *= 1 / (n_recent * n_older * (n_recent + n_older))
    out[1] += distance


def compute_exponential_mean(values: Array, span: int, bars: int, newest: int | None = None) -> Array:
    """Mean with weights (1 − 2/(span + 1))^age over the last `bars` values, divided by the sum of the weights."""
    decay = 1 - 2 / (span + 1)

    def join(out: Array, recent: Array, older: Array, n_recent: int, _: int) -> None:
        np.multiply(older, decay**n_recent, out=out)
        out += recent

    folded = fold(join, values, [bars], newest)[bars]
    inverse = _compute_inverse_weights(decay, bars, values.shape[-1])
    return folded * inverse[..., -folded.shape[-1] :]


@lru_cache(maxsize=64)
def _compute_inverse_weights(decay: float, bars: int, rows: int) -> Array:
    """One over the sum of each row's weights. Cached: a bot asks for the same few before every decision."""
    ages = np.minimum(np.arange(1, rows + 1), bars)
    factors: Array = (1 - decay) / (1 - decay**ages)
    factors.flags.writeable = False
    return factors
