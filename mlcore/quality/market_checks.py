"""Checks of real candles before training: valid rows, and a series that moves like a market.

Each check is a pure function, and its threshold stands next to it. How often a market fails, and how often each kind of
made-up series is found, is measured by `make markets` (docs/markets.md). The figures in the comments are the least or
greatest of any 1,000 bars of seven series from two exchanges, at 1, 2, 4, 12 and 24 hours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import polars as pl

from mlcore.quality.market_statistics import Market, compute_variance_ratio_band, find_longest_run
from mlcore.quality.peers import PeerSeries, check_peers
from mlcore.quality.plot_data import build_plot_data
from mlcore.quality.result import (
    CandleReport,
    Check,
    RangeCheck,
    compute_excess,
    format_interval,
    furthest_outside,
    pass_or_fail,
    skip_check,
)
from mlcore.quality.rhythm import check_rhythm, has_rhythm
from mlcore.quality.rows import MAX_STANDSTILL_BARS, check_last_bar, check_rows
from mlcore.verdict import Verdict

MIN_BARS = 1000
"""With fewer bars, none of the figures below differs clearly from chance."""

MAX_UNCHANGED_SHARE = 0.30  # real: 0.08 at most, SOL at a dollar
MIN_HOURLY_VOLATILITY, MAX_HOURLY_VOLATILITY = 0.0004, 0.05  # real: 0.0015 … 0.0240; gold and euros 0.0005
MAX_OPENING_GAP = 0.40  # real: 0.10 at most; 1 if each bar is drawn independently
MIN_RANGE_RATIO, MAX_RANGE_RATIO = 0.75, 1.40  # real: 0.87 … 1.24; 0.64 for levels, 1.5 at least if smoothed
MIN_KURTOSIS = 3.6  # real: 4.2 at least; 3 for a normal distribution, 3.3 at most by chance
MAX_MOVE = 1.2  # log(high / low) of one bar; real: 0.52 in an hour, 0.78 in a day
MAX_JUMPS_SHARE = 0.001  # more than three crashes, and than one in a thousand bars, are no accident
MIN_MEMORY = 0.045  # real: 0.087 at least; shuffled: 0, and 0.043 at most by chance
MIN_VOLUME_MEMORY, MIN_RHYTHMIC_VOLUME_MEMORY = 0.30, 0.12
"""The second where trading has the rhythm of the day. Real: 0.39 at least, 0.13 with the noise of a thin exchange; shuffled:
0.10 at most."""
MIN_DAY_MEMORY, DAY_MEMORY_BARS_REQUIRED = (
    0.20,
    4000,
)  # real: 0.24 at least over so many; shuffled days: 0.18 at most
MAX_STRAIGHT_SHARE = 0.002  # real: none
MIN_ACTIVITY = 0.20  # real: 0.48 at least, 0.37 with the noise of a thin exchange; chance: 0.10 at most
MIN_DAY_ACTIVITY, MIN_RHYTHMIC_DAY_ACTIVITY = 0.50, 0.25
"""The same two. Real: 0.45 at least, 0.27 with that noise; the service's simulator without drift: 0.1, and 0.44 at most."""


@np.errstate(all="ignore")  # a figure that overflows is not finite, and the check reports that as an error
def check_candles(
    frame: pl.DataFrame,
    *,
    peers: Sequence[PeerSeries] = (),
    coin: str = "",
    now: datetime | None = None,
) -> CandleReport:
    """Whether these are a coin's real candles, also compared with the other stored candles.

    The checks of rows come first: if a row is impossible, the statistics of the series mean nothing. `now` is the present
    unless given.
    """
    rows = CandleReport(tuple(check_rows(frame)))
    if rows.verdict in (Verdict.FAILED, Verdict.ERROR):
        return rows
    market = Market.from_frame(frame)
    length, last_bar = _check_length(market), check_last_bar(frame, now or datetime.now(UTC))
    plots = build_plot_data(market)
    if length.finding.verdict != Verdict.PASSED:
        return CandleReport((*rows.checks, last_bar, length), plots)
    statistics = (last_bar, length, *(_doubt(market, check(market)) for check in MARKET_CHECKS))
    return CandleReport((*rows.checks, *statistics, *check_peers(frame, peers, coin)), plots)


def _doubt(market: Market, check: Check) -> Check:
    """Inconclusive instead of failed, where prices have so few ticks that the figures of a market are others."""
    if check.finding.verdict != Verdict.FAILED or not market.is_coarse:
        return check
    why = f"{check.finding.sentence} But its usual move is a few ticks, which does this to a market too: a person must look."
    return replace(check, finding=replace(check.finding, verdict=Verdict.INCONCLUSIVE, sentence=why))


def _check_length(market: Market) -> Check:
    return pass_or_fail(
        "length",
        f"≥ {MIN_BARS:,} bars",
        len(market),
        f"{len(market):,} bars",
        passed="Enough bars to tell a market from chance.",
        failed="Too few bars to tell a market from chance.",
        is_passed=len(market) >= MIN_BARS,
        otherwise=Verdict.INCONCLUSIVE,
    )


def _check_variance_ratio(market: Market) -> Check:
    parts = [(part.variance_ratio, *compute_variance_ratio_band(len(part))) for part in market.parts]
    value, low, high = max(parts, key=lambda part: compute_excess(*part))
    failed = (
        "Prices return to a level as if each bar was drawn independently, or the rows were shuffled: no market does."
        if value < low
        else "Moves continue in their direction far too long: the series was smoothed, or made with a drift."
    )
    passed = "16-bar moves are as large as 16 independent bars make them."
    check = RangeCheck("variance_ratio", low, high, "{:.2f}", passed, failed).judge(
        value, whole=market.variance_ratio
    )
    if value > high and all(
        part.variance_ratio_without_crash <= compute_variance_ratio_band(len(part))[1]
        for part in market.parts
    ):
        why = "Moves continue in their direction far too long, but within a few days alone: a crash, or other rows. A person"
        return replace(
            check, finding=replace(check.finding, verdict=Verdict.INCONCLUSIVE, sentence=f"{why} must look.")
        )
    return check


def _check_volatility(market: Market) -> Check:
    low, high = MIN_HOURLY_VOLATILITY, MAX_HOURLY_VOLATILITY
    values = [part.hourly_volatility for part in market.parts]
    worst = furthest_outside(values, low, high, scale=lambda value: np.log(max(value, 1e-12)))
    passed = "It moves as much as coins do in such an interval."
    interval = format_interval(market.interval_seconds)
    if 0 < worst < low:
        failed = (
            f"It hardly moves in {interval}: a coin that is pegged to another, times that do not match the interval, or no"
            " market prices. A person must look."
        )
    else:
        failed = f"No coin moves so much in {interval}: these are not market prices, or the times do not match the interval."
    check = RangeCheck("volatility", low, high, "{:.2%} an hour", passed, failed).judge(
        worst, whole=market.hourly_volatility
    )
    if 0 < worst < low:
        return replace(check, finding=replace(check.finding, verdict=Verdict.INCONCLUSIVE))
    return check


def _check_range(market: Market) -> Check:
    """Where moves are a few ticks, a bar from bid to ask is as long as one that moves: the ratio has no upper limit."""
    return _FigureCheck(
        "range", MIN_RANGE_RATIO, None if market.is_coarse else MAX_RANGE_RATIO, "{:.2f}",
        "Highs and lows are as far apart as the closes imply.",
        "Highs and lows imply another volatility than the closes: one of them was invented, or smoothed.",
        lambda market: market.range_ratio, is_by_stretch=True,
    )(market)  # fmt: skip


def _check_frozen(market: Market) -> Check:
    """Prices of few ticks often close where they did before, and without trades always: then a person must look."""
    run, share = _measure_standstill(market, lambda part: part.is_unchanged)
    is_untraded = market.is_coarse or _is_short(*_measure_standstill(market, lambda part: part.is_frozen))
    return pass_or_fail(
        "frozen",
        f"≤ {MAX_STANDSTILL_BARS} unchanged closes in a row, < {MAX_UNCHANGED_SHARE:.0%} of them",
        run,
        f"{run} in a row, {share:.1%} of them{', of few ticks a move' if market.is_coarse else ''}",
        passed="The price never stands still for longer than its ticks explain.",
        failed="The price stands still where nobody trades: a thin market, a halt, or gaps that were filled. A person must"
        " look."
        if is_untraded
        else "The price stands still: the feed was frozen, or gaps were filled with the last close.",
        is_passed=_is_short(run, share),
        otherwise=Verdict.INCONCLUSIVE if is_untraded else Verdict.FAILED,
    )


def _measure_standstill(market: Market, find: Callable[[Market], np.ndarray]) -> tuple[int, float]:
    """The longest run of such bars, and their share in the worst stretch."""
    shares = [float(find(part).mean()) for part in market.parts]
    return find_longest_run(find(market)), furthest_outside(shares, 0, MAX_UNCHANGED_SHARE)


def _is_short(run: int, share: float) -> bool:
    return run <= MAX_STANDSTILL_BARS and share < MAX_UNCHANGED_SHARE


def _check_jumps(market: Market) -> Check:
    jumps, crashes = market.find_moves_over(MAX_MOVE)
    few = max(3, int(MAX_JUMPS_SHARE * len(market)))
    return pass_or_fail(
        "jumps",
        f"≤ {MAX_MOVE:.2f} (log) in every bar",
        float(jumps[0]) if len(jumps) else 0.0,
        f"{jumps[0]:.2f} (log), {len(jumps)} bars over the limit" if len(jumps) else "no bar over the limit",
        passed="No bar moves further than bars of a market do.",
        failed="A bar more than triples the price, or takes it to a third: a misplaced decimal, another coin's rows, a"
        " redenomination, or a crash. A person must look."
        if crashes <= few
        else "Bars again and again triple the price, or take it to a third: no market does.",
        is_passed=len(jumps) == 0,
        otherwise=Verdict.INCONCLUSIVE if crashes <= few else Verdict.FAILED,
    )


@dataclass(frozen=True)
class _FigureCheck(RangeCheck):
    """A statistic of the series, or the worst of its stretches, against a fixed range."""

    figure: Callable[[Market], float]
    is_by_stretch: bool = False
    min_bars: int = 0
    rhythmic_low: float | None = None
    """`low` where trading has the rhythm of the day: single traders move the volume of a thin market, and that stays."""

    def __call__(self, market: Market) -> Check:
        check = self._judge_market(market)
        if check.finding.verdict == Verdict.FAILED and self.rhythmic_low is not None and has_rhythm(market):
            return replace(self, low=self.rhythmic_low)._judge_market(market)
        return check

    def _judge_market(self, market: Market) -> Check:
        if len(market) < self.min_bars:
            threshold = f"≥ {self.low} over {self.min_bars:,} bars"
            return skip_check(self.name, threshold, f"{len(market):,} bars")
        if not self.is_by_stretch:
            return self.judge(self.figure(market))
        values = [self.figure(part) for part in market.parts]
        return self.judge(furthest_outside(values, self.low or 0, 1 if self.high is None else self.high))


MARKET_CHECKS: tuple[Callable[[Market], Check], ...] = (
    _check_variance_ratio,
    _check_volatility,
    _FigureCheck(
        "continuity", None, MAX_OPENING_GAP, "{:.2f} of a move",
        "Each bar opens about where the one before closed.",
        "Bars do not open where the one before closed: they were drawn independently, or shuffled.",
        lambda market: market.opening_gap, is_by_stretch=True,
    ),
    _check_range,
    _check_frozen,
    _FigureCheck(
        "tails", MIN_KURTOSIS, None, "kurtosis {:.1f}",
        "Quiet bars and violent ones, as in every market.",
        "Returns have no fat tails: they come from a uniform or normal distribution.",
        lambda market: market.kurtosis,
    ),
    _check_jumps,
    _FigureCheck(
        "memory", MIN_MEMORY, None, "{:.3f}",
        "Calm and wild times last, as in every market.",
        "Large moves do not follow large ones: the bars were shuffled, or drawn independently.",
        lambda market: market.memory,
    ),
    _FigureCheck(
        "volume_memory", MIN_VOLUME_MEMORY, None, "{:.2f}",
        "Busy times last, as in every market.",
        "Volume does not follow that of the bar before: it was drawn independently, or belongs to other bars.",
        lambda market: market.volume_memory, rhythmic_low=MIN_RHYTHMIC_VOLUME_MEMORY,
    ),
    _FigureCheck(
        "day_memory", MIN_DAY_MEMORY, None, "{:.2f}",
        "A day is like the day before, in volume and range.",
        "Days are unlike the days before, in volume and range: they were shuffled.",
        lambda market: market.day_memory, min_bars=DAY_MEMORY_BARS_REQUIRED,
    ),
    _FigureCheck(
        "straight", None, MAX_STRAIGHT_SHARE, "{:.2%} of the bars",
        "No stretch of it is a straight line.",
        "The price moves in straight lines: gaps were filled by interpolation.",
        lambda market: market.straight_share, is_by_stretch=True,
    ),
    _FigureCheck(
        "activity", MIN_ACTIVITY, None, "{:.2f}",
        "Bars that move more have more volume.",
        "Volume does not rise with the size of moves as it does in real trading: the candles were made up.",
        lambda market: market.activity, is_by_stretch=True,
    ),
    _FigureCheck(
        "day_activity", MIN_DAY_ACTIVITY, None, "{:.2f}",
        "Volume rises and falls with the moves, from 24 bars to the next.",
        "Volume does not rise and fall with the moves, from 24 bars to the next: the candles were made up.",
        lambda market: market.day_activity, is_by_stretch=True, rhythmic_low=MIN_RHYTHMIC_DAY_ACTIVITY,
    ),
    check_rhythm,
)  # fmt: skip
