"""Whether trading has the daily cycle of the stated interval: the day stands out in every market's volume."""

import numpy as np

from mlcore.quality.market_statistics import DAY, WEEK, Market
from mlcore.quality.result import Check, RangeCheck, format_interval, skip_check
from mlcore.verdict import Finding, Verdict

MIN_RHYTHM_BY_DAYS = ((200, 4.0), (80, 2.5))
MIN_RHYTHM_BY_WEEKS = ((100, 4.0),)
"""Over so many days or weeks, the least power of the day, or week, over the noise around it.

Real: 6.9 at least over 200 days, 4.7 over 80; 1 without a cycle, 2.7 at most by chance. Over 40 days one market has 1.3.
"""
SEEN_RHYTHM = 2.4  # over any length; by chance in one made-up series of a hundred
OTHER_RHYTHM = 10.0  # of another interval's day, over the noise
OTHER_OVERTONE = 60.0  # the same if it is an overtone of the stated day; real: 31
OTHER_TIMES = 8.0  # and over the stated day's own strength; real: 4 times, an overtone
SLOWER_RHYTHM, SLOWER_TIMES = 30.0, 0.5
"""The same two for a cycle longer than the stated day, which is no overtone of it; real: 11 and 0.6."""

INTERVALS = {
    60: "1-minute", 180: "3-minute", 300: "5-minute", 900: "15-minute", 1800: "30-minute",
    3600: "1-hour", 7200: "2-hour", 14_400: "4-hour", 21_600: "6-hour", 28_800: "8-hour",
}  # fmt: skip
OTHER_PERIODS = {DAY / seconds: f"the day of {name} candles" for seconds, name in INTERVALS.items()}
OTHER_PERIODS |= {7.0: "the week of daily candles", 14.0: "the week of 12-hour candles"}
CLOCK_MARKS = (900, 1800, 3600, 14_400, 28_800)
"""Periods in seconds that real markets show: the hour, the funding of futures."""


def has_rhythm(market: Market) -> bool:
    """Whether the day, or week, stands out in volume and range: made-up series rarely have that, however short they are."""
    cycle, _ = _choose_cycle(market)
    return market.compute_rhythm(cycle / market.interval_seconds) >= SEEN_RHYTHM


def _choose_cycle(market: Market) -> tuple[int, str]:
    return (DAY, "day") if 3 * market.interval_seconds <= DAY else (WEEK, "week")


def check_rhythm(market: Market) -> Check:
    """The day must stand out in the volume (the week, if bars are too long for days).

    This finds hourly candles with the times of 5-minute ones: their day returns after 24 bars instead of 288.
    """
    cycle, name = _choose_cycle(market)
    period = cycle / market.interval_seconds
    if other := _find_other_rhythm(market, period):
        return other
    cycles = (int(market.seconds[-1] - market.seconds[0]) + market.interval_seconds) / cycle
    limits = MIN_RHYTHM_BY_DAYS if cycle == DAY else MIN_RHYTHM_BY_WEEKS
    required, low = next((limit for limit in limits if limit[0] <= cycles), limits[-1])
    threshold = f"≥ {low:g} over {required} {name}s, and no other interval's"
    if cycles < required or period < 3:
        return skip_check("rhythm", threshold, f"{cycles:.0f} {name}s")
    passed = f"Trading has the rhythm of the {name}."
    failed = f"Trading has no cycle of a {name}: it was made up or shuffled, or the times do not match the interval."
    check = RangeCheck("rhythm", low, None, f"the {name} {{:.1f}} times", passed, failed)
    return Check("rhythm", threshold, check.judge(market.compute_rhythm(period)).finding)


def _find_other_rhythm(market: Market, own_period: float) -> Check | None:
    """A failed check if another interval's day stands out instead of the stated one's."""
    measured = market.compute_rhythm(own_period, harmonics=1)
    own = measured if np.isfinite(measured) else 1.0
    periods = _list_other_periods(market, own_period)
    strengths = {period: market.compute_rhythm(period, harmonics=1) for period in periods}
    suspicious = {
        period: strength
        for period, strength in strengths.items()
        if np.inf > strength >= _compute_limit(period, own_period, own)
    }
    if not suspicious:
        return None
    period, strength = max(suspicious.items(), key=lambda item: item[1])
    observed = f"every {period:g} bars, {strength:.0f} times the noise; its own day {own:.1f} times"
    sentence = (
        f"The times say {format_interval(market.interval_seconds)} a bar, but trading has a rhythm of {period:g} bars:"
        f" {OTHER_PERIODS[period]}. The times do not match the interval."
    )
    finding = Finding(Verdict.FAILED, strength, observed, sentence)
    return Check("rhythm", "the rhythm of no other interval", finding)


def _list_other_periods(market: Market, own_period: float) -> list[float]:
    """Periods, in bars, that have no meaning at the stated interval."""
    marks = {mark / market.interval_seconds for mark in CLOCK_MARKS}
    week = WEEK / market.interval_seconds
    own = {own_period, *marks, *(week / overtone for overtone in range(1, 7))}
    return [period for period in OTHER_PERIODS if period not in own and period <= len(market) / 6]


def _compute_limit(period: float, own_period: float, own: float) -> float:
    """The strength from which a cycle of this period contradicts the stated interval."""
    if period > own_period:
        return max(SLOWER_RHYTHM, SLOWER_TIMES * own)
    is_overtone = own_period / period in (2, 3, 4)
    return max(OTHER_OVERTONE if is_overtone else OTHER_RHYTHM, OTHER_TIMES * own)
