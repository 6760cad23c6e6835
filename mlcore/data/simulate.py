"""A simulated market with hidden regimes, so that a network has something to learn.

Regimes come in shuffled triples (down, flat, up) of 24–72 bars each. Returns are Student-t around the regime's drift,
and their volatility changes slowly. The drift is `drift` units of volatility per bar. At 1.2 a network finds it
(accuracy about 0.74); at 0 there is nothing to find. No real market moves like this one.
"""

import zlib

import numpy as np
import polars as pl

from mlcore.data.validation import validate_candles
from mlcore.errors import MAX_SEED, check_bounds

COINS = ("BTC", "ETH", "SOL")
START_PRICES = {"BTC": 50_000.0, "ETH": 3_000.0, "SOL": 100.0}
START_VOLUMES = {"BTC": 1_500.0, "ETH": 15_000.0, "SOL": 250_000.0}
DEFAULT_DRIFT = 1.2
DEMO_BARS = 24_000
"""Enough to keep the interval around 0.74 above 0.65, few enough to train three coins in some minutes."""

MIN_BARS = 2
MAX_BARS = 1_000_000
MAX_DRIFT = 5.0
MAX_INTERVAL_SECONDS = 7 * 86_400

_START_MS = 1_609_459_200_000  # 2021-01-01T00:00:00Z
_REGIME_BARS = (24, 72)
_DEGREES_OF_FREEDOM = 5  # of the Student-t: tails as fat as in hourly markets, a finite variance
_VOLATILITY = 0.005  # log return of a bar, on average


def simulate(coin: str, bars: int, drift: float, seed: int, interval_seconds: int = 3600) -> pl.DataFrame:
    """Candles of `bars` bars from 2021-01-01 on, the same for the same arguments.

    Raises InvalidParameter for an argument out of bounds.
    """
    check_bounds("bars", bars, MIN_BARS, MAX_BARS)
    check_bounds("drift", drift, 0, MAX_DRIFT)
    check_bounds("seed", seed, 0, MAX_SEED)
    check_bounds("interval_seconds", interval_seconds, 1, MAX_INTERVAL_SECONDS)
    random, volatility, shocks, regimes = _draw(coin, bars, seed)
    returns = volatility * (drift * regimes + shocks)
    path = START_PRICES.get(coin, 100.0) * np.exp(np.concatenate([[0.0], np.cumsum(returns)]))
    opens, closes = path[:-1], path[1:]
    reach = volatility * np.abs(random.standard_normal((2, bars))) / 2
    columns = {
        "open": opens,
        "high": np.maximum(opens, closes) * np.exp(reach[0]),
        "low": np.minimum(opens, closes) * np.exp(-reach[1]),
        "close": closes,
    }
    # Six significant figures at the lowest price, so that a coin with a low price still moves.
    decimals = int(np.clip(5 - np.floor(np.log10(path.min())), 2, 12))
    prices = {name: np.round(values, decimals) for name, values in columns.items()}
    volume = START_VOLUMES.get(coin, 10_000.0) * _draw_activity(random, returns / volatility)
    stamps = pl.Series(_START_MS + np.arange(bars) * interval_seconds * 1000).cast(pl.Datetime("ms", "UTC"))
    return validate_candles(pl.DataFrame({"timestamp": stamps, **prices, "volume": np.round(volume, 3)}))


def draw_hidden_regimes(coin: str, bars: int, seed: int) -> np.ndarray:
    """−1, 0 or 1 for every bar of that market. Forecasters never see it; benchmarks compare with it."""
    return _draw(coin, bars, seed)[-1]


def _draw(coin: str, bars: int, seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray, np.ndarray]:
    """The random generator after these draws; volatility, shocks of unit variance, and regimes, [bars] each."""
    random = np.random.default_rng([seed, zlib.crc32(coin.encode())])
    # A lognormal process that reverts to its level over about ten days of hourly bars.
    volatility = _VOLATILITY * np.exp(0.3 * _draw_autoregression(random, bars, bars_to_forget=240))
    shocks = random.standard_t(_DEGREES_OF_FREEDOM, bars) * np.sqrt(
        (_DEGREES_OF_FREEDOM - 2) / _DEGREES_OF_FREEDOM
    )
    return random, volatility, shocks, _draw_regimes(random, bars)


def _draw_regimes(random: np.random.Generator, bars: int) -> np.ndarray:
    """−1, 0 or 1 for every bar. Each shuffled triple holds all three, so none is rare."""
    triples = bars // (3 * _REGIME_BARS[0]) + 1
    directions = random.permuted(np.tile([-1, 0, 1], (triples, 1)), axis=1).ravel()
    lengths = random.integers(*_REGIME_BARS, size=len(directions), endpoint=True)
    return np.repeat(directions, lengths)[:bars]


def _draw_activity(random: np.random.Generator, moves: np.ndarray) -> np.ndarray:
    """Volume around 1. It changes slowly, and is larger in bars that move more."""
    level = 0.5 * _draw_autoregression(random, len(moves), bars_to_forget=48)
    noise = 0.3 * random.standard_normal(len(moves))
    return np.exp(level + noise) * (0.6 + 0.4 * np.abs(moves))


def _draw_autoregression(random: np.random.Generator, bars: int, bars_to_forget: int) -> np.ndarray:
    """A first-order autoregression of unit variance."""
    keep = np.exp(-1 / bars_to_forget)
    shocks = random.standard_normal(bars) * np.sqrt(1 - keep**2)
    walk, value = np.empty(bars), random.standard_normal()
    for bar, shock in enumerate(shocks.tolist()):
        value = keep * value + shock
        walk[bar] = value
    return walk
