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


def fold(values: Array, sizes: Iterable[int], join: Join, newest: int | None = None) -> dict[int, Array]:
    """For each window size: the windows' folds, shaped as `values`; time is the last axis.

    With `newest`, those of the last so many windows alone: each level is then made no further back than the next takes.
    """
    folds: dict[int, Array] = {}
    wanted = sorted(sizes)
    largest, newest = wanted[-1], values.shape[-1] if newest is None else newest
    level, width = _last(values, newest + largest - 1), 1
    while width <= largest:
        for size in wanted:
            if size & width:
                done = size & (width - 1)
                folds[size] = _joined(folds[size], level, done, width, join) if done else _last(level, newest)
        width *= 2
        if width <= largest:
            older = level
            level = _joined(_last(level, newest + largest - width), older, width // 2, width // 2, join)
    return folds


def _last(values: Array, count: int) -> Array:
    """At most so many, the last ones; at least one."""
    return values[..., -count:]


def _joined(recent: Array, older: Array, n_recent: int, n_older: int, join: Join) -> Array:
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


def compute_sums(values: Array, sizes: Iterable[int], newest: int | None = None) -> dict[int, Array]:
    """Sums of the last n values."""
    return fold(values, sizes, lambda out, recent, older, *_: np.add(recent, older, out=out), newest)


def compute_maxima(values: Array, sizes: Iterable[int], newest: int | None = None) -> dict[int, Array]:
    """Maxima of the last n values."""
    return fold(values, sizes, lambda out, recent, older, *_: np.maximum(recent, older, out=out), newest)


def compute_minima(values: Array, sizes: Iterable[int], newest: int | None = None) -> dict[int, Array]:
    """Minima of the last n values."""
    return fold(values, sizes, lambda out, recent, older, *_: np.minimum(recent, older, out=out), newest)


def compute_deviations(values: Array, sizes: Iterable[int], newest: int | None = None) -> dict[int, Array]:
    """Sample standard deviations of the last n values; exactly 0 where they are all the same."""
    state = np.stack([values, np.zeros_like(values)])
    spreads = fold(state, sizes, _join_spread, newest)
    return {size: np.sqrt(square / (size - 1)) for size, (_, square) in spreads.items()}


def _join_spread(out: Array, recent: Array, older: Array, n_recent: int, n_older: int) -> None:
    """Of (sum, sum of squared distances from the mean): Chan, Golub & LeVeque 1983, whose every term is ≥ 0."""
    np.add(recent, older, out=out)
    distance = recent[0] * n_older
    distance -= older[0] * n_recent
    distance *= distance
    distance *= 1 / (n_recent * n_older * (n_recent + n_older))
    out[1] += distance


def compute_exponential_mean(values: Array, span: int, bars: int, newest: int | None = None) -> Array:
    """Mean with weights (1 − 2/(span + 1))^age over the last `bars` values, divided by the weights there are."""
    decay = 1 - 2 / (span + 1)

    def join(out: Array, recent: Array, older: Array, n_recent: int, _: int) -> None:
        np.multiply(older, decay**n_recent, out=out)
        out += recent

    folded = fold(values, [bars], join, newest)[bars]
    return folded * _last(_over_weights(decay, bars, values.shape[-1]), folded.shape[-1])


@lru_cache(maxsize=64)
def _over_weights(decay: float, bars: int, rows: int) -> Array:
    """One over the sum of each row's weights. Kept: a bot asks for the same few before every decision."""
    ages = np.minimum(np.arange(1, rows + 1), bars)
    factors = (1 - decay) / (1 - decay**ages)
    factors.flags.writeable = False
    return factors


def compute_sample_deviation(values: Array, size: int) -> Array:
    """The one window of `deviations`, NaN until it is full."""
    rolled = compute_deviations(values, [size])[size]
    rolled[: size - 1] = np.nan
    return rolled
