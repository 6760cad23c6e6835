"""Rolling figures folded from the last n bars alone, never from a running total.

A window of n is put together from windows of 1, 2, 4, 8 … bars: log2(n) vectorised steps, no cancellation, and the
same bits wherever in a history the window stands. Rows whose window reaches before the first bar hold the fold of
what there is; the caller knows how many those are.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np

Array = np.ndarray
Join = Callable[[Array, Array, Array, int, int], object]
"""(out, recent, older, bars in recent, bars in older): writes their union into `out`, element by element."""


def fold(values: Array, sizes: Iterable[int], join: Join) -> dict[int, Array]:
    """For each window size: the windows' folds, shaped as `values`; time is the last axis."""
    folds: dict[int, Array] = {}
    wanted = sorted(sizes)
    level, width = values, 1
    while width <= wanted[-1]:
        for size in wanted:
            if size & width:
                done = size & (width - 1)
                folds[size] = _joined(folds[size], level, done, width, join) if done else level
        if 2 * width <= wanted[-1]:
            level = _joined(level, level, width, width, join)
        width *= 2
    return folds


def _joined(recent: Array, older: Array, n_recent: int, n_older: int, join: Join) -> Array:
    union = np.empty_like(recent)
    union[..., :n_recent] = recent[..., :n_recent]
    reached = max(0, recent.shape[-1] - n_recent)
    join(union[..., n_recent:], recent[..., n_recent:], older[..., :reached], n_recent, n_older)
    return union


def sums(values: Array, sizes: Iterable[int]) -> dict[int, Array]:
    """Sums of the last n values."""
    return fold(values, sizes, lambda out, recent, older, *_: np.add(recent, older, out=out))


def greatest(values: Array, sizes: Iterable[int]) -> dict[int, Array]:
    """Maxima of the last n values."""
    return fold(values, sizes, lambda out, recent, older, *_: np.maximum(recent, older, out=out))


def least(values: Array, sizes: Iterable[int]) -> dict[int, Array]:
    """Minima of the last n values."""
    return fold(values, sizes, lambda out, recent, older, *_: np.minimum(recent, older, out=out))


def deviations(values: Array, sizes: Iterable[int]) -> dict[int, Array]:
    """Sample standard deviations of the last n values; exactly 0 where they are all the same."""
    state = np.stack([values, np.zeros_like(values)])
    return {
        size: np.sqrt(square / (size - 1)) for size, (_, square) in fold(state, sizes, _join_spread).items()
    }


def _join_spread(out: Array, recent: Array, older: Array, n_recent: int, n_older: int) -> None:
    """Of (sum, sum of squared distances from the mean): Chan, Golub & LeVeque 1983, whose every term is ≥ 0."""
    np.add(recent, older, out=out)
    distance = recent[0] * n_older
    distance -= older[0] * n_recent
    distance *= distance
    distance *= 1 / (n_recent * n_older * (n_recent + n_older))
    out[1] += distance


def exponential_mean(values: Array, span: int, bars: int) -> Array:
    """Mean with weights (1 − 2/(span + 1))^age over the last `bars` values, divided by the weights there are."""
    decay = 1 - 2 / (span + 1)

    def join(out: Array, recent: Array, older: Array, n_recent: int, _: int) -> None:
        np.multiply(older, decay**n_recent, out=out)
        out += recent

    return fold(values, [bars], join)[bars] * _over_weights(decay, bars, values.shape[-1])


@lru_cache(maxsize=64)
def _over_weights(decay: float, bars: int, rows: int) -> Array:
    """One over the sum of each row's weights. Kept: a bot asks for the same few before every decision."""
    ages = np.minimum(np.arange(1, rows + 1), bars)
    factors = (1 - decay) / (1 - decay**ages)
    factors.flags.writeable = False
    return factors


def sample_deviation(values: Array, size: int) -> Array:
    """The one window of `deviations`, NaN until it is full."""
    rolled = deviations(values, [size])[size]
    rolled[: size - 1] = np.nan
    return rolled
