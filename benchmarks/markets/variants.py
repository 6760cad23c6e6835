"""Real series changed into markets that are not at hand: other quotes, coarser prices, thin trading, crashes, halts."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import polars as pl

from mlcore.data.columns import NUMBERS

PRICES = NUMBERS[:4]
Change = Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]


class Goal(StrEnum):
    """What the checks are to say."""

    PASSED = "passed"
    NOT_FAILED = "never failed"
    REFUSED = "not passed"


@dataclass(frozen=True)
class Variant:
    name: str
    change: Change
    goal: Goal = Goal.PASSED


def in_ticks(per_price: int) -> Change:
    """Prices in ticks, of which the median close has so many; highs are asks, and lows are bids."""

    def change(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        tick = np.median(real["close"].to_numpy()) / per_price
        ticks = real.with_columns(pl.col(*PRICES) / tick)
        rounded = ticks.with_columns(
            pl.col("open", "close").round(), pl.col("high").ceil(), pl.col("low").floor()
        )
        return rounded.with_columns(pl.col(*PRICES).clip(1) * tick)

    return change


def thin(dead_share: float, noise: float = 0.0) -> Change:
    """Single traders move the volume, and the bars of least volume have no trade: they repeat the last close."""

    def change(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        columns = {name: real[name].to_numpy().copy() for name in NUMBERS}
        columns["volume"] *= np.exp(random.normal(0, noise, real.height))
        ranks = (-columns["volume"]).argsort().argsort() / real.height
        is_dead = random.random(real.height) < 2 * dead_share * ranks
        is_dead[0] = False
        last_traded = np.maximum.accumulate(np.where(is_dead, 0, np.arange(real.height)))
        closes = columns["close"][last_traded]
        for name in PRICES:
            columns[name] = np.where(is_dead, closes, columns[name])
        columns["volume"] = np.where(is_dead, 0.0, columns["volume"])
        return real.with_columns(**{name: pl.Series(values) for name, values in columns.items()})

    return change


def in_lots(median: float) -> Change:
    """Volume in whole lots."""
    volume = pl.col("volume")
    return lambda real, random: real.with_columns(volume=(volume / volume.median() * median).round())


def _in_quote(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    return real.with_columns(volume=pl.col("volume") * pl.col("close"))


def _join(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    return _enclose(real.with_columns(open=pl.col("close").shift(1).fill_null(pl.col("open").first())))


def crash(factor: float) -> Change:
    """One bar in which the price falls to 1 / factor, and stays there."""

    def change(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        at = _draw_row(real, random)
        moves = np.zeros(real.height)
        moves[at] = -np.log(factor)
        return _enclose(_move(real, moves))

    return change


def spike(factor: float) -> Change:
    """One bar with a low of 1 / factor."""

    def change(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        is_row = pl.int_range(pl.len()) == _draw_row(real, random)
        return real.with_columns(low=pl.when(is_row).then(pl.col("low") / factor).otherwise("low"))

    return change


def _redenominate(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    is_later = pl.int_range(pl.len()) >= _draw_row(real, random)
    return real.with_columns(pl.when(is_later).then(pl.col(name) / 1000).otherwise(name) for name in PRICES)


def _collapse(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """Down to a ten-thousandth within forty bars."""
    at, falls = _draw_row(real, random), np.abs(random.standard_t(3, 40))
    moves = np.zeros(real.height)
    moves[at : at + 40] = -np.log(1e4) * falls / falls.sum()
    return _enclose(_move(real, moves))


def halt(bars: int) -> Change:
    def change(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        start = _draw_row(real, random)
        return pl.concat([real[:start], real[start + bars :]])

    return change


def _peg(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """A fiftieth of the moves, back to one dollar, in ticks of a hundredth of a cent."""
    moves = np.diff(np.log(real["close"].to_numpy()), prepend=np.log(real["close"][0])) / 50
    levels = np.zeros(real.height)
    for row in range(1, real.height):
        levels[row] = 0.9 * levels[row - 1] + moves[row]
    reach = {name: 1 + (real[name].to_numpy() / real["close"].to_numpy() - 1) / 50 for name in PRICES}
    prices = {name: pl.Series(np.exp(levels) * reach[name]).round(4) for name in PRICES}
    return _enclose(real.with_columns(**prices))


def _close_at_weekends(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    return real.filter(pl.col("timestamp").dt.weekday() <= 5)


def _after(*changes: Change) -> Change:
    def change(real: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
        for each in changes:
            real = each(real, random)
        return real

    return change


def _move(real: pl.DataFrame, moves: np.ndarray) -> pl.DataFrame:
    """With these log moves added to the bars, from open to close."""
    path = np.cumsum(moves)
    scale = {"open": path - moves, "high": path, "low": path, "close": path}
    return real.with_columns(pl.col(name) * pl.Series(np.exp(log)) for name, log in scale.items())


def _enclose(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(high=pl.max_horizontal(PRICES), low=pl.min_horizontal(PRICES))


def _draw_row(real: pl.DataFrame, random: np.random.Generator) -> int:
    return int(random.integers(50, real.height - 150))


VARIANTS = (
    Variant("volume in the quote currency", _in_quote),
    Variant("every bar opens at the close before", _join),
    Variant("prices of 1,000 ticks", in_ticks(1000)),
    Variant("prices of 300 ticks", in_ticks(300)),
    Variant("prices of 150 ticks", in_ticks(150)),
    Variant("volume of about 5 lots a bar", in_lots(5)),
    Variant("thin, 1 bar in 10 without trades", thin(0.10, noise=0.6)),
    Variant("thin, opens joined, volume in lots", _after(_join, thin(0.04, noise=0.6), in_lots(20))),
    Variant("a crash to a half in one bar", crash(2)),
    Variant("a crash to a tenth in one bar", crash(10), Goal.NOT_FAILED),
    Variant("a low of a ten-thousandth", spike(1e4), Goal.NOT_FAILED),
    Variant("1 new coin for 1,000 old ones", _redenominate, Goal.NOT_FAILED),
    Variant("a collapse within 40 bars", _collapse, Goal.NOT_FAILED),
    Variant("a halt of 96 bars", halt(96), Goal.NOT_FAILED),
    Variant("3 bars in 10 without trades", thin(0.30), Goal.NOT_FAILED),
    Variant("pegged to a dollar", _peg, Goal.NOT_FAILED),
    Variant("prices of 30 ticks", in_ticks(30), Goal.NOT_FAILED),
    Variant("weekends missing", _close_at_weekends, Goal.REFUSED),
)
