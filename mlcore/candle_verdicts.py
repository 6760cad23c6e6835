"""Judging candles before anything is trained on them: sound rows, and a series that moves like a market.

Each check is one pure function with its threshold beside it. The thresholds stand where every 1,000- and 2,000-bar slice
of five years of hourly BTC, ETH and SOL passes with room to spare, at 1, 2, 4 and 12 hours and a day (the figures
beside them say how much), and where what was made up does not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from mlcore.candle_checks import interval_milliseconds
from mlcore.candle_company import Neighbour, company_checks
from mlcore.candle_files import NUMBERS
from mlcore.candle_findings import Check, between, finding, none_may
from mlcore.candle_pictures import picture
from mlcore.market import DAY, HOUR, WEEK, Market, longest_run
from mlcore.verdicts import WORST_FIRST, Finding, Verdict

LEAST_BARS = 1000
"""Fewer cannot be told from chance by any of the figures below."""

MOST_MISSING_SHARE = 0.02  # real: 0.0005 of five years, 0.004 of any 2,000 bars
MOST_DEAD_SHARE = 0.01  # bars without volume; real: 0.001 at most
MOST_REPEATED_SHARE = 0.05  # volumes that repeat the one before; real: none
LONGEST_STANDSTILL_BARS = 24  # real: 3
MOST_UNCHANGED_SHARE = 0.30  # real: 0.06 at most, SOL at a dollar
LEAST_HOURLY_VOLATILITY, MOST_HOURLY_VOLATILITY = 0.0015, 0.05  # real: 0.0032 … 0.0276
MOST_OPENING_GAP = 0.40  # real: 0.10 at most; 1 where each bar is drawn afresh
LEAST_RANGE_RATIO, MOST_RANGE_RATIO = 0.80, 1.40  # real: 0.97 … 1.20
LEAST_KURTOSIS = 3.3  # real: 4.4 at least; 3 for a normal distribution
MOST_MOVE = 1.2  # log(high / low) of one bar; real: 0.52 in an hour, 0.78 in a day
LEAST_MEMORY, MEMORY_ASKED_BARS = 0.03, 8000  # real: 0.079 at least over so many bars; shuffled ones: 0
LEAST_ACTIVITY = 0.55  # real: 0.65 at least; a simulated market without drift 0.48 at most, chance 0
LEAST_RHYTHM = 4.0  # the day over the noise around it; real: 6.9 at least over so long, 1 where there is none
RHYTHM_ASKED_DAYS, RHYTHM_ASKED_WEEKS = 200, 100
STRANGE_RHYTHM = 10.0  # of another interval's day, over the noise
STRANGE_OVERTONE = 60.0  # the same where the claimed day has it as an overtone; real: 31
STRANGE_TIMES = 8.0  # and over the claimed day's own strength; real: 4 times, an overtone
SLOWER_RHYTHM, SLOWER_TIMES = (
    30.0,
    0.5,
)  # for a cycle longer than the claimed day, no overtone of it; real: 11 and 0.6

INTERVALS = {
    60: "1-minute", 180: "3-minute", 300: "5-minute", 900: "15-minute", 1800: "30-minute",
    3600: "1-hour", 7200: "2-hour", 14_400: "4-hour", 21_600: "6-hour", 28_800: "8-hour",
}  # fmt: skip
STRANGE_PERIODS = {DAY / seconds: f"the day of {name} candles" for seconds, name in INTERVALS.items()}
STRANGE_PERIODS |= {7.0: "the week of daily candles", 14.0: "the week of 12-hour candles"}
CLOCK_MARKS = (900, 1800, 3600, 14_400, 28_800)
"""Seconds after which markets do beat of themselves: the hour, the funding of futures."""


@dataclass(frozen=True)
class Judgement:
    """What all checks said of one series, and what a page draws of it."""

    checks: tuple[Check, ...]
    picture: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        return next(v for v in WORST_FIRST if any(check.finding.verdict == v for check in self.checks))

    def document(self) -> dict[str, Any]:
        """Ready for canonical JSON: no figure in it is NaN or infinite."""
        return {"checks": [check.document() for check in self.checks], "picture": self.picture}


@np.errstate(all="ignore")  # a figure that overflows is no number, and that is an error by itself
def judge(frame: pl.DataFrame, *, neighbours: Sequence[Neighbour] = (), coin: str = "") -> Judgement:
    """Whether these are a coin's real candles, next to the other candles there are.

    What the rows themselves say comes first: where a row is impossible, how the series moves says nothing any more.
    """
    rows = tuple(row_checks(frame))
    if any(check.finding.verdict != Verdict.PASSED for check in rows):
        return Judgement(rows)
    market = Market.of(frame)
    length = _length(market)
    drawn = picture(market, variance_ratio_band)
    if length.finding.verdict != Verdict.PASSED:
        return Judgement((*rows, length), drawn)
    moves = (length, *(check(market) for check in MARKET_CHECKS))
    return Judgement((*rows, *moves, *company_checks(frame, neighbours, coin)), drawn)


def row_checks(frame: pl.DataFrame) -> Iterator[Check]:
    """What must hold of every row and of every step, of any frame with the columns of candles and two rows or more."""
    steps = np.diff(frame["timestamp"].dt.epoch("ms").to_numpy())
    numbers = {name: frame[name].to_numpy() for name in NUMBERS}
    yield none_may(
        "order",
        int((steps < 0).sum()),
        "earlier than the row before",
        "Every row comes after the one before.",
    )
    yield none_may(
        "duplicates", int((steps == 0).sum()), "with the time of the row before", "No time is there twice."
    )
    interval = interval_milliseconds(frame)
    off = int((steps % interval != 0).sum()) if interval > 0 else len(steps)
    kept = f"All bars stand on one grid of {_interval(interval // 1000)}."
    yield none_may("interval", off, f"off the grid of {_interval(interval // 1000)}", kept)
    yield _gaps(steps, interval)
    wrong = ~np.all([np.isfinite(n) for n in numbers.values()], axis=0)
    wrong |= np.any([numbers[name] <= 0 for name in ("open", "high", "low", "close")], axis=0)
    yield none_may(
        "prices",
        int(wrong.sum()),
        "without finite prices above zero",
        "Every price is finite and above zero.",
    )
    body = np.stack([numbers["open"], numbers["close"]])
    outside = ~((body >= numbers["low"]) & (body <= numbers["high"])).all(axis=0)
    yield none_may(
        "ranges",
        int(outside.sum()),
        "whose open or close is outside low … high",
        "Low ≤ open, close ≤ high in every row.",
    )
    yield _volume(numbers["volume"])


def variance_ratio_band(bars: int) -> tuple[float, float]:
    """Within which the variance ratio of a market stays: wider for fewer bars, which vary more by chance.

    Real: 0.91 … 0.98 over five years, 0.75 … 1.30 over any 2,000 bars, 0.64 … 1.42 over any 1,000.
    """
    half = 0.25 + 9 / np.sqrt(bars)
    return 0.95 - half, 0.95 + half


def _gaps(steps: np.ndarray, interval: int) -> Check:
    missing = int((steps // interval - 1).clip(0).sum()) if interval > 0 else 0
    share = missing / (missing + len(steps) + 1)
    return Check(
        "gaps",
        f"≤ {MOST_MISSING_SHARE:.0%} of the bars missing",
        finding(
            share <= MOST_MISSING_SHARE,
            share,
            f"{missing:,} missing ({share:.2%})",
            "Almost every bar of the range is there.",
            f"{share:.1%} of the bars are missing: what is trained on this learns the holes.",
        ),
    )


def _volume(volume: np.ndarray) -> Check:
    sound = bool(np.isfinite(volume).all() and (volume >= 0).all())
    dead, repeated = float((volume == 0).mean()), float(((np.diff(volume) == 0) & (volume[1:] > 0)).mean())
    standstill = longest_run(volume == 0)
    is_alive = (
        dead <= MOST_DEAD_SHARE and repeated <= MOST_REPEATED_SHARE and standstill <= LONGEST_STANDSTILL_BARS
    )
    return Check(
        "volume",
        f"≤ {MOST_DEAD_SHARE:.0%} of the bars without volume, ≤ {LONGEST_STANDSTILL_BARS} in a row,"
        f" ≤ {MOST_REPEATED_SHARE:.0%} that repeat the one before",
        finding(
            sound and is_alive,
            dead if dead > MOST_DEAD_SHARE or repeated <= MOST_REPEATED_SHARE else repeated,
            f"{dead:.2%} without, {standstill} in a row, {repeated:.2%} repeated",
            "Something was traded in almost every bar.",
            "The volume is dead: nobody traded in these bars, or the column was filled in.",
        ),
    )


def _length(market: Market) -> Check:
    is_enough = len(market) >= LEAST_BARS
    says = (
        "Enough bars to tell a market from chance."
        if is_enough
        else "Too few bars to tell a market from chance."
    )
    verdict = Verdict.PASSED if is_enough else Verdict.INCONCLUSIVE
    observed = f"{len(market):,} bars"
    return Check("length", f"≥ {LEAST_BARS:,} bars", Finding(verdict, len(market), observed, says))


def _variance_ratio(market: Market) -> Check:
    stretches = [
        (part.variance_ratio, *variance_ratio_band(len(part))) for part in (market, *market.stretches())
    ]
    value, low, high = max(stretches, key=lambda s: _excess(s[0], s[1], s[2]))
    why = (
        "Prices come back to a level as if drawn afresh for each bar, or their rows were shuffled: no market does."
        if value < low
        else "Moves go on in their direction far too long: smoothed, or made up with a drift in it."
    )
    return between(
        "variance_ratio",
        value,
        low,
        high,
        "{:.2f}",
        "16-bar moves are as large as 16 independent bars make them.",
        why,
        whole=market.variance_ratio,
    )


def _volatility(market: Market) -> Check:
    worst = max(
        (part.hourly_volatility for part in (market, *market.stretches())),
        key=lambda v: _excess(
            np.log(max(v, 1e-12)), np.log(LEAST_HOURLY_VOLATILITY), np.log(MOST_HOURLY_VOLATILITY)
        ),
    )
    return between(
        "volatility",
        worst,
        LEAST_HOURLY_VOLATILITY,
        MOST_HOURLY_VOLATILITY,
        "{:.2%} an hour",
        "It moves as much as coins do in such an interval.",
        f"No coin moves {'so little' if worst < LEAST_HOURLY_VOLATILITY else 'so much'} in"
        f" {_interval(market.interval_seconds)}: the prices are not of a market, or the times lie about the interval.",
        whole=market.hourly_volatility,
    )


def _continuity(market: Market) -> Check:
    return between(
        "continuity",
        _worst(market, lambda part: part.opening_gap, 0, MOST_OPENING_GAP),
        None,
        MOST_OPENING_GAP,
        "{:.2f} of a move",
        "Each bar opens about where the one before closed.",
        "Bars do not open where the one before closed: they were drawn afresh, or shuffled.",
    )


def _range(market: Market) -> Check:
    return between(
        "range",
        _worst(market, lambda part: part.range_ratio, LEAST_RANGE_RATIO, MOST_RANGE_RATIO),
        LEAST_RANGE_RATIO,
        MOST_RANGE_RATIO,
        "{:.2f}",
        "Highs and lows are as far apart as the closes say.",
        "Highs and lows tell another volatility than the closes: one of the two was made up, or smoothed.",
    )


def _frozen(market: Market) -> Check:
    run, share = (
        market.longest_standstill,
        _worst(market, lambda part: part.unchanged_share, 0, MOST_UNCHANGED_SHARE),
    )
    return Check(
        "frozen",
        f"≤ {LONGEST_STANDSTILL_BARS} unchanged closes in a row, < {MOST_UNCHANGED_SHARE:.0%} of them",
        finding(
            run <= LONGEST_STANDSTILL_BARS and share < MOST_UNCHANGED_SHARE,
            run,
            f"{run} in a row, {share:.1%} of them",
            "The price never stands still for long.",
            "The price stands still: the feed was frozen, or holes were filled with the last close.",
        ),
    )


def _tails(market: Market) -> Check:
    return between(
        "tails",
        market.kurtosis,
        LEAST_KURTOSIS,
        None,
        "kurtosis {:.1f}",
        "Quiet bars and violent ones, as in every market.",
        "Returns have no fat tails: a uniform or normal distribution made them.",
    )


def _jumps(market: Market) -> Check:
    return between(
        "jumps",
        market.greatest_move,
        None,
        MOST_MOVE,
        "{:.2f} (log)",
        "No bar moves further than a market has.",
        "One bar more than triples the price, or takes it to a third: a misplaced decimal, or another coin's rows.",
    )


def _memory(market: Market) -> Check:
    if len(market) < MEMORY_ASKED_BARS:
        return _not_asked(
            "memory", f"≥ {LEAST_MEMORY} over {MEMORY_ASKED_BARS:,} bars", f"{len(market):,} bars"
        )
    return between(
        "memory",
        market.memory,
        LEAST_MEMORY,
        None,
        "{:.3f}",
        "Calm and wild times last, as in every market.",
        "Large moves do not follow large ones: the bars were shuffled, or drawn independently.",
    )


def _activity(market: Market) -> Check:
    return between(
        "activity",
        _worst(market, lambda part: part.activity, LEAST_ACTIVITY, 1),
        LEAST_ACTIVITY,
        None,
        "{:.2f}",
        "More is traded in bars that move more.",
        "Volume does not go with the size of moves as it does where people trade: the candles were made up.",
    )


def _rhythm(market: Market) -> Check:
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
        return _not_asked("rhythm", threshold, f"{cycles:.0f} {name}s")
    found = between(
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
        f"The times say {_interval(market.interval_seconds)} a bar, but trading has a rhythm of {period:g} bars:"
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


MARKET_CHECKS: tuple[Callable[[Market], Check], ...] = (
    _variance_ratio, _volatility, _continuity, _range, _frozen, _tails, _jumps, _memory, _activity, _rhythm,
)  # fmt: skip


def _not_asked(check: str, threshold: str, observed: str) -> Check:
    says = "Too short a time to ask; the other checks decide."
    return Check(check, threshold, Finding(Verdict.PASSED, None, observed, says))


def _worst(market: Market, figure: Callable[[Market], float], low: float, high: float) -> float:
    """The figure of the whole series or of a stretch that is furthest from within `low` … `high`; NaN if any is."""
    return max(
        (figure(part) for part in (market, *market.stretches())), key=lambda value: _excess(value, low, high)
    )


def _excess(value: float, low: float, high: float) -> float:
    """How far outside, in half widths: below 1 within, 1 at the border. What is no number is furthest."""
    return abs(value - (low + high) / 2) / ((high - low) / 2) if np.isfinite(value) else np.inf


def _interval(seconds: int) -> str:
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (60, "minute")):
        if seconds and seconds % unit == 0:
            count = seconds // unit
            return f"{count} {name}s" if count > 1 else f"1 {name}"
    return f"{seconds} s"
