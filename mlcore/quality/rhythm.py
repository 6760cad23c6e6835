"""Whether trading has the rhythm of the interval that the times claim: the day stands out of every market's volume."""

import numpy as np

from mlcore.quality.market_statistics import DAY, WEEK, Market
from mlcore.quality.result import Check, check_range, format_interval, skip_check
from mlcore.verdict import Finding, Verdict

LEAST_RHYTHM = 4.0  # the day over the noise around it; real: 6.9 at least over so long, 1 where there is none
RHYTHM_ASKED_DAYS, RHYTHM_ASKED_WEEKS = 200, 100
STRANGE_RHYTHM = 10.0  # of another interval's day, over the noise
STRANGE_OVERTONE = 60.0  # the same where the claimed day has it as an overtone; real: 31
STRANGE_TIMES = 8.0  # and over the claimed day's own strength; real: 4 times, an overtone
SLOWER_RHYTHM, SLOWER_TIMES = 30.0, 0.5
"""The same two for a cycle longer than the claimed day, no overtone of it; real: 11 and 0.6."""

INTERVALS = {
    60: "1-minute", 180: "3-minute", 300: "5-minute", 900: "15-minute", 1800: "30-minute",
    3600: "1-hour", 7200: "2-hour", 14_400: "4-hour", 21_600: "6-hour", 28_800: "8-hour",
}  # fmt: skip
STRANGE_PERIODS = {DAY / seconds: f"the day of {name} candles" for seconds, name in INTERVALS.items()}
STRANGE_PERIODS |= {7.0: "the week of daily candles", 14.0: "the week of 12-hour candles"}
CLOCK_MARKS = (900, 1800, 3600, 14_400, 28_800)
"""Seconds after which markets do beat of themselves: the hour, the funding of futures."""


def check_rhythm(market: Market) -> Check:
    """The day stands out of every market's volume (the week, where bars are too long for days).

    That is how hourly candles stamped as 5-minute ones are told: their day returns after 24 bars instead of 288.
    """
    cycle, name = (DAY, "day") if 3 * market.interval_seconds <= DAY else (WEEK, "week")
    own_period = cycle / market.interval_seconds
    lie = _foreign_rhythm(market, own_period)
    if lie is not None:
        return lie
    cycles = market.span_seconds / cycle
    asked = RHYTHM_ASKED_DAYS if cycle == DAY else RHYTHM_ASKED_WEEKS
    threshold = f"≥ {LEAST_RHYTHM:g} over {asked} {name}s, and no other interval's"
    if cycles < asked or own_period < 3:
        return skip_check("rhythm", threshold, f"{cycles:.0f} {name}s")
    found = check_range(
        "rhythm",
        market.rhythm(own_period),
        LEAST_RHYTHM,
        None,
        f"the {name} {{:.1f}} times",
        f"Trading has the rhythm of the {name}.",
        f"Trading knows no {name}: made up, shuffled, or the times lie about the interval.",
    )
    return Check("rhythm", threshold, found.finding)


def _foreign_rhythm(market: Market, own_period: float) -> Check | None:
    """The failed check where another interval's day stands out instead of the claimed one's."""
    measured = market.fundamental(own_period)
    own = measured if np.isfinite(measured) else 1.0
    periods = {period: market.fundamental(period) for period in _strange_periods(market, own_period)}
    against = {
        period: strength
        for period, strength in periods.items()
        if np.isfinite(strength) and strength >= _strange_strength(period, own_period, own)
    }
    if not against:
        return None
    period = max(against, key=lambda p: against[p])
    observed = f"every {period:g} bars, {against[period]:.0f} times the noise; its own day {own:.1f} times"
    threshold = "the rhythm of no other interval"
    sentence = (
        f"The times say {format_interval(market.interval_seconds)} a bar, but trading has a rhythm of {period:g} bars:"
        f" {STRANGE_PERIODS[period]}. The times lie about the interval."
    )
    return Check("rhythm", threshold, Finding(Verdict.FAILED, against[period], observed, sentence))


def _strange_periods(market: Market, own_period: float) -> list[float]:
    """The candidates' periods that mean nothing at the claimed interval, in bars."""
    marks = {mark / market.interval_seconds for mark in CLOCK_MARKS}
    week = WEEK / market.interval_seconds
    ours = {own_period, *marks, *(week / overtone for overtone in range(1, 7))}
    return [p for p in STRANGE_PERIODS if p not in ours and p <= len(market) / 6]


def _strange_strength(period: float, own_period: float, own: float) -> float:
    """From which on a cycle of so many bars speaks against the claimed interval."""
    if period > own_period:
        return max(SLOWER_RHYTHM, SLOWER_TIMES * own)
    is_overtone = own_period / period in (2, 3, 4)
    return max(STRANGE_OVERTONE if is_overtone else STRANGE_RHYTHM, STRANGE_TIMES * own)
