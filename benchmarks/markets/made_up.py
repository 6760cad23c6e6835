"""Series that are no market, or not the market that they claim to be.

Each kind makes `bars` hourly candles. Those that change a real series are given a stretch of one. Moves inside a bar are
simulated in thirty steps, so that opens, highs, lows and closes belong together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mlcore.data.columns import NUMBERS
from mlcore.data.simulate import simulate

STEPS = 30
HOURLY_VOLATILITY = 0.006
START_MS = 1_609_459_200_000  # 2021-01-01
UNLIKE_DAYS = "one day differs too much from the next by chance"
SMOOTHED_BARS, INTERPOLATED_BARS, INTERPOLATED_SHARE = 3, 12, 0.15


@dataclass(frozen=True)
class Kind:
    name: str
    make: Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]
    """From a stretch of a real series, which may only give the number of bars."""
    needs_peer: bool = False
    """Whether it is a sound series, only not the one it claims to be: it is compared with the stretch."""
    least_bars: int = 1_000
    """With fewer bars it cannot be told from a market."""
    reason: str = ""
    """Why it cannot."""


def _make_levels(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    drawn = 50_000 * random.uniform(0.8, 1.2, (4, real.height))
    prices = drawn[0], drawn.max(axis=0), drawn.min(axis=0), drawn[1]
    return _build(prices, random.uniform(100, 1000, real.height))


def _make_random_walk(*, link: float) -> Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]:
    """Constant volatility; volume is lognormal noise, times the range to the power `link`."""

    def make(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        steps = random.normal(0, HOURLY_VOLATILITY / np.sqrt(STEPS), (real.height, STEPS))
        return _build_from_steps(steps, random, link)

    return make


def _make_garch(
    *, link: float, memory: float = 0.0
) -> Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]:
    """GARCH(1, 1) with Student's t; the noise of the volume is an autoregression with this memory."""

    def make(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        steps = random.standard_t(5, (real.height, STEPS)) / np.sqrt(5 / 3 * STEPS)
        variance, last = HOURLY_VOLATILITY**2, 0.0
        for row in steps:
            variance = 0.03 * HOURLY_VOLATILITY**2 + 0.09 * last**2 + 0.88 * variance
            row *= np.sqrt(variance)
            last = row.sum()
        return _build_from_steps(steps, random, link, memory)

    return make


def _shuffle_bars(bars: int) -> Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]:
    """Blocks of so many bars in another order, each joined to the one before."""

    def make(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        blocks = random.permutation(real.height // bars)
        order = (blocks[:, None] * bars + np.arange(bars)).ravel()
        logs = np.log(real.select(NUMBERS[:4]).to_numpy())
        before = np.concatenate([[logs[0, 0]], logs[:-1, 3]])
        moves = (logs - before[:, None])[order]
        starts = np.concatenate([[0.0], np.cumsum(moves[:, 3])[:-1]])
        prices = 100 * np.exp(starts[:, None] + moves)
        return _build(prices.T, real["volume"].to_numpy()[order])

    return make


def _shuffle_volume(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    return real.with_columns(volume=pl.Series(random.permutation(real["volume"].to_numpy())))


def _smooth(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    kernel = np.ones(SMOOTHED_BARS) / SMOOTHED_BARS
    smooth = [np.exp(np.convolve(np.log(real[name].to_numpy()), kernel, "same")) for name in NUMBERS[:4]]
    inside = slice(SMOOTHED_BARS, -SMOOTHED_BARS)
    volume = real["volume"].to_numpy()
    return _build([values[inside] for values in smooth], volume[inside])


def _interpolate_gaps(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    columns = {name: real[name].to_numpy().copy() for name in NUMBERS}
    gaps = int(INTERPOLATED_SHARE * real.height / INTERPOLATED_BARS)
    shares = np.linspace(0, 1, INTERPOLATED_BARS + 2)[1:-1]
    for start in random.integers(1, real.height - INTERPOLATED_BARS - 1, gaps):
        rows, end = slice(start, start + INTERPOLATED_BARS), start + INTERPOLATED_BARS
        for values in columns.values():
            values[rows] = values[start - 1] + (values[end] - values[start - 1]) * shares
        columns["open"][rows] = columns["close"][start - 1 : end - 1]
        columns["high"][rows] = np.maximum(columns["open"][rows], columns["close"][rows])
        columns["low"][rows] = np.minimum(columns["open"][rows], columns["close"][rows])
    *prices, volume = columns.values()
    return _build(prices, volume)


def _freeze(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    start = int(random.integers(100, real.height - 160))
    still = pl.int_range(pl.len()).is_between(start, start + 60)
    price = real["close"][start]
    return real.with_columns(
        *(pl.when(still).then(price).otherwise(name).alias(name) for name in NUMBERS[:4])
    )


def _simulate(drift: float) -> Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]:
    def make(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        return simulate("BTC", real.height, drift, int(random.integers(1, 1_000_000)))

    return make


def _delay(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    hours = int(random.integers(1, 24))
    scaled = real.with_columns(*(pl.col(name) * 17.3 for name in NUMBERS[:4]))
    return scaled.with_columns(timestamp=pl.col("timestamp") + pl.duration(hours=hours))


def _shift_phase(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """Bars of half an hour's other phase, as from another exchange's clock: interpolated closes, at another scale."""
    logs = np.log(real.select(NUMBERS[:4]).to_numpy())
    between = 17.3 * np.exp((logs[1:] + logs[:-1]) / 2)
    timestamp = real["timestamp"][1:] - pl.duration(minutes=30)
    prices = dict(zip(NUMBERS[:4], between.T, strict=True))
    return real[1:].with_columns(timestamp, **{name: pl.Series(values) for name, values in prices.items()})


KINDS = (
    Kind("uniform levels", _make_levels),
    Kind("random walk, independent volume", _make_random_walk(link=0.0)),
    Kind("random walk, volume follows range", _make_random_walk(link=1.0)),
    Kind("GARCH, independent volume", _make_garch(link=0.0)),
    Kind("GARCH, volume follows range", _make_garch(link=1.0)),
    Kind("GARCH, volume with memory", _make_garch(link=1.0, memory=0.9)),
    Kind("shuffled bars", _shuffle_bars(1)),
    Kind("shuffled days", _shuffle_bars(24), least_bars=4_800, reason=UNLIKE_DAYS),
    Kind("volumes of other bars", _shuffle_volume),
    Kind("smoothed prices", _smooth),
    Kind("interpolated gaps", _interpolate_gaps),
    Kind("60 bars frozen", _freeze),
    Kind("the service's simulator, drift 0", _simulate(0.0)),
    Kind("the service's simulator, drift 1.2", _simulate(1.2)),
    Kind("another coin, delayed", _delay, needs_peer=True),
    Kind("another coin, another phase", _shift_phase, needs_peer=True),
)


def _build_from_steps(
    steps: np.ndarray, random: np.random.Generator, link: float, memory: float = 0.0
) -> pl.DataFrame:
    bars = len(steps)
    path = np.concatenate([[0.0], np.cumsum(steps)])
    inside = np.stack([path[np.arange(bars) * STEPS + step] for step in range(STEPS + 1)], axis=1)
    prices = 100 * np.exp(np.stack([inside[:, 0], inside.max(axis=1), inside.min(axis=1), inside[:, -1]]))
    noise = random.normal(0, 0.5, bars)
    for bar in range(1, bars):
        noise[bar] += memory * noise[bar - 1]
    volume = np.exp(5 + noise) * (np.log(prices[1] / prices[2]) / 0.01) ** link
    return _build(prices, volume)


def _build(prices: Sequence[np.ndarray] | np.ndarray, volume: np.ndarray) -> pl.DataFrame:
    """From open, high, low and close, of which high and low are widened to enclose the others."""
    opens, high, low, close = prices
    times = pl.Series("timestamp", START_MS + np.arange(len(close)) * 3_600_000).cast(pl.Datetime("ms"))
    high, low = np.maximum.reduce([opens, high, close]), np.minimum.reduce([opens, low, close])
    columns = {"open": opens, "high": high, "low": low, "close": close, "volume": volume}
    return pl.DataFrame({"timestamp": times.dt.replace_time_zone("UTC"), **columns})
