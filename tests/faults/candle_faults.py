"""Candles that are not a market's, or not the coin's; each with a network trained on them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from mlcore.data.simulate import simulate
from mlcore.quality.peers import PeerSeries
from mlcore.quality.simulated import SimulatorSettings
from tests.faults.bundle_factory import BARS, NOISE, BundleFactory, Case
from tests.faults.candle_facts import CandleFacts
from tests.faults.markets import build_candles, generate_predictable

RANDOM_LEVEL_BARS = 7_122
PRICES = ("open", "high", "low", "close")


def train_on(candles: Callable[[], pl.DataFrame]) -> Callable[[BundleFactory], Case]:
    return lambda factory: factory.train_on(candles()).case


def random_levels() -> pl.DataFrame:
    """Each price drawn afresh, 0.8 to 1.2 times a level: what a network once learned with 71 %."""
    random = np.random.default_rng(0)
    drawn = 50_000 * random.uniform(0.8, 1.2, (4, RANDOM_LEVEL_BARS))
    market = build_candles(
        drawn[0], drawn[1], np.zeros((2, RANDOM_LEVEL_BARS)), random.uniform(1_000, 2_000, RANDOM_LEVEL_BARS)
    )
    return market.with_columns(
        high=pl.Series(drawn.max(axis=0).round(4)), low=pl.Series(drawn.min(axis=0).round(4))
    )


def shuffled() -> pl.DataFrame:
    """A sound market's bars in another order, at the same times."""
    market = generate_predictable(BARS, noise=NOISE, seed=3)
    order = np.random.default_rng(0).permutation(BARS)
    return market.select("timestamp", *(pl.col(name).gather(order) for name in (*PRICES, "volume")))


def frozen() -> pl.DataFrame:
    """For two days in the middle the feed repeated its last close."""
    market = generate_predictable(BARS, noise=NOISE, seed=3)
    bar = np.arange(BARS)
    stands = pl.Series((bar >= BARS // 2) & (bar < BARS // 2 + 48))
    last = market["close"][BARS // 2 - 1]
    return market.with_columns(
        *(pl.when(stands).then(last).otherwise(pl.col(name)).alias(name) for name in PRICES)
    )


def smoothed() -> pl.DataFrame:
    """Closes are the mean of the last eight: an indicator in the place of a price."""
    market = generate_predictable(BARS + 8, noise=NOISE, seed=3)
    closes = np.convolve(market["close"].to_numpy(), np.ones(8) / 8, mode="valid")
    reach = np.log((market["high"] / market["low"]).to_numpy())[-BARS:] / 4
    return build_candles(
        closes[:-1], closes[1:], np.stack([reach, reach]), market["volume"].to_numpy()[-BARS:]
    )


def ten_times_as_wild() -> pl.DataFrame:
    """Moves in percent where shares were meant, and a tenth of them."""
    market = generate_predictable(BARS, noise=NOISE, seed=3)
    logs = np.log(market.select(PRICES).to_numpy() / 50_000)
    wild = 50_000 * np.exp(8 * logs)
    return market.with_columns(**{name: pl.Series(wild[:, i]) for i, name in enumerate(PRICES)})


def stamped_every_five_minutes() -> pl.DataFrame:
    """Hourly bars under the times of 5-minute ones."""
    market = generate_predictable(BARS, noise=NOISE, seed=3)
    first = market["timestamp"][0]
    times = pl.Series([first]).dt.epoch("ms")[0] + np.arange(BARS) * 300_000
    return market.with_columns(timestamp=pl.Series(times).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC"))


def volume_made_up() -> pl.DataFrame:
    """The column was missing, and drawn at random."""
    market = generate_predictable(BARS, noise=NOISE, seed=3)
    return market.with_columns(volume=pl.Series(np.random.default_rng(0).uniform(1_000, 2_000, BARS)))


def simulated_as_real() -> pl.DataFrame:
    """A simulated market with a drift in it, uploaded as if it came from an exchange."""
    return simulate("BTC", BARS, drift=1.5, seed=6)


def of_another_coin(factory: BundleFactory) -> Case:
    """The bars that are stored as ETH's, under BTC's name: a sound market, and not this coin's."""
    return _beside_eth(factory, pl.col("close"))


def two_coins_one_series(factory: BundleFactory) -> Case:
    """ETH's stored candles are these on another level: one of the two was copied."""
    return _beside_eth(factory, pl.col("close") / 16)


def _beside_eth(factory: BundleFactory, closes: pl.Expr) -> Case:
    eth = PeerSeries.from_frame(factory.good.frame.with_columns(close=closes), coin="ETH", name="candles")
    return replace(factory.good.case, candle_facts=CandleFacts(peers=(eth,)))


def not_of_its_generator(factory: BundleFactory) -> Case:
    """Said to be simulated, which would excuse them from a market's laws, and not what the simulator makes."""
    return replace(
        factory.good.case, candle_facts=CandleFacts(generator=SimulatorSettings(BARS, drift=1.2, seed=1))
    )
