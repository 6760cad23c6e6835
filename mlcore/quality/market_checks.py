"""Judging candles before anything is trained on them: sound rows, and a series that moves like a market.

Each check is one pure function with its threshold beside it. The thresholds stand where every 1,000- and 2,000-bar slice
of five years of hourly BTC, ETH and SOL passes with room to spare, at 1, 2, 4 and 12 hours and a day (the figures
beside them say how much), and where what was made up does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from mlcore.quality.market_statistics import Market
from mlcore.quality.peers import PeerSeries, check_peers
from mlcore.quality.plots import build_plot_data
from mlcore.quality.result import Check, check_range, format_interval, pass_or_fail, skip_check
from mlcore.quality.rhythm import check_rhythm
from mlcore.quality.rows import LONGEST_STANDSTILL_BARS, check_rows
from mlcore.verdict import WORST_FIRST, Finding, Verdict

LEAST_BARS = 1000
"""Fewer cannot be told from chance by any of the figures below."""

MOST_UNCHANGED_SHARE = 0.30  # real: 0.06 at most, SOL at a dollar
LEAST_HOURLY_VOLATILITY, MOST_HOURLY_VOLATILITY = 0.0015, 0.05  # real: 0.0032 … 0.0276
MOST_OPENING_GAP = 0.40  # real: 0.10 at most; 1 where each bar is drawn afresh
LEAST_RANGE_RATIO, MOST_RANGE_RATIO = 0.80, 1.40  # real: 0.97 … 1.20
LEAST_KURTOSIS = 3.3  # real: 4.4 at least; 3 for a normal distribution
MOST_MOVE = 1.2  # log(high / low) of one bar; real: 0.52 in an hour, 0.78 in a day
LEAST_MEMORY, MEMORY_ASKED_BARS = 0.03, 8000  # real: 0.079 at least over so many bars; shuffled ones: 0
LEAST_ACTIVITY = 0.55  # real: 0.65 at least; a simulated market without drift 0.48 at most, chance 0


@dataclass(frozen=True)
class CandleReport:
    """What all checks said of one series, and what a page draws of it."""

    checks: tuple[Check, ...]
    plots: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        return next(v for v in WORST_FIRST if any(check.finding.verdict == v for check in self.checks))

    def document(self) -> dict[str, Any]:
        """Ready for canonical JSON: no figure in it is NaN or infinite."""
        return {"checks": [check.document() for check in self.checks], "plots": self.plots}


@np.errstate(all="ignore")  # a figure that overflows is no number, and that is an error by itself
def check_candles(frame: pl.DataFrame, *, peers: Sequence[PeerSeries] = (), coin: str = "") -> CandleReport:
    """Whether these are a coin's real candles, next to the other candles there are.

    What the rows themselves say comes first: where a row is impossible, how the series moves says nothing any more.
    """
    rows = tuple(check_rows(frame))
    if any(check.finding.verdict != Verdict.PASSED for check in rows):
        return CandleReport(rows)
    market = Market.from_frame(frame)
    length = _length(market)
    drawn = build_plot_data(market, variance_ratio_band)
    if length.finding.verdict != Verdict.PASSED:
        return CandleReport((*rows, length), drawn)
    moves = (length, *(check(market) for check in MARKET_CHECKS))
    return CandleReport((*rows, *moves, *check_peers(frame, peers, coin)), drawn)


def variance_ratio_band(bars: int) -> tuple[float, float]:
    """Within which the variance ratio of a market stays: wider for fewer bars, which vary more by chance.

    Real: 0.91 … 0.98 over five years, 0.75 … 1.30 over any 2,000 bars, 0.64 … 1.42 over any 1,000.
    """
    half = 0.25 + 9 / np.sqrt(bars)
    return 0.95 - half, 0.95 + half


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
    return check_range(
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
    return check_range(
        "volatility",
        worst,
        LEAST_HOURLY_VOLATILITY,
        MOST_HOURLY_VOLATILITY,
        "{:.2%} an hour",
        "It moves as much as coins do in such an interval.",
        f"No coin moves {'so little' if worst < LEAST_HOURLY_VOLATILITY else 'so much'} in"
        f" {format_interval(market.interval_seconds)}: the prices are not of a market, or the times lie about the"
        " interval.",
        whole=market.hourly_volatility,
    )


def _continuity(market: Market) -> Check:
    return check_range(
        "continuity",
        _worst(market, lambda part: part.opening_gap, 0, MOST_OPENING_GAP),
        None,
        MOST_OPENING_GAP,
        "{:.2f} of a move",
        "Each bar opens about where the one before closed.",
        "Bars do not open where the one before closed: they were drawn afresh, or shuffled.",
    )


def _range(market: Market) -> Check:
    return check_range(
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
        pass_or_fail(
            run <= LONGEST_STANDSTILL_BARS and share < MOST_UNCHANGED_SHARE,
            run,
            f"{run} in a row, {share:.1%} of them",
            "The price never stands still for long.",
            "The price stands still: the feed was frozen, or holes were filled with the last close.",
        ),
    )


def _tails(market: Market) -> Check:
    return check_range(
        "tails",
        market.kurtosis,
        LEAST_KURTOSIS,
        None,
        "kurtosis {:.1f}",
        "Quiet bars and violent ones, as in every market.",
        "Returns have no fat tails: a uniform or normal distribution made them.",
    )


def _jumps(market: Market) -> Check:
    return check_range(
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
        return skip_check(
            "memory", f"≥ {LEAST_MEMORY} over {MEMORY_ASKED_BARS:,} bars", f"{len(market):,} bars"
        )
    return check_range(
        "memory",
        market.memory,
        LEAST_MEMORY,
        None,
        "{:.3f}",
        "Calm and wild times last, as in every market.",
        "Large moves do not follow large ones: the bars were shuffled, or drawn independently.",
    )


def _activity(market: Market) -> Check:
    return check_range(
        "activity",
        _worst(market, lambda part: part.activity, LEAST_ACTIVITY, 1),
        LEAST_ACTIVITY,
        None,
        "{:.2f}",
        "More is traded in bars that move more.",
        "Volume does not go with the size of moves as it does where people trade: the candles were made up.",
    )


MARKET_CHECKS: tuple[Callable[[Market], Check], ...] = (
    _variance_ratio, _volatility, _continuity, _range, _frozen, _tails, _jumps, _memory, _activity, check_rhythm,
)  # fmt: skip


def _worst(market: Market, figure: Callable[[Market], float], low: float, high: float) -> float:
    """The figure of the whole series or of a stretch that is furthest from within `low` … `high`; NaN if any is."""
    return max(
        (figure(part) for part in (market, *market.stretches())), key=lambda value: _excess(value, low, high)
    )


def _excess(value: float, low: float, high: float) -> float:
    """How far outside, in half widths: below 1 within, 1 at the border. What is no number is furthest."""
    return abs(value - (low + high) / 2) / ((high - low) / 2) if np.isfinite(value) else np.inf
