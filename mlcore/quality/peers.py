"""Checks against other candles: is this another coin's series, and does it agree with other series of its coin?

Two series are compared by their closes at equal times. Where their bars end at other times (another interval, or another
phase of the same one) the finer one is interpolated. A copy may also be delayed, as with times in another zone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mlcore.data.validation import infer_interval_ms
from mlcore.quality.result import Check, format_interval, pass_or_fail, skip_check
from mlcore.verdict import Verdict

MIN_SHARED_BARS = 200
WINDOW_BARS = 500
MAX_DELAY_BARS = 24
MAX_DELAYED_BARS = 20_000
"""Delayed copies are looked for in the newest bars alone: 49 comparisons of millions of bars would take a minute."""

SAME_SERIES = 1.0
"""The spread between two series, below which they are one series. Real: 1.67 at least between two coins in any 500 bars, at
any delay and interval; 0.7 at most between the candles of one coin at two intervals or phases; 0.1 between two exchanges."""
MAX_DISTANCE = 0.02
"""Median distance of closes, in log price: other exchanges and quotes in other dollars stay within it."""

_NO_PEERS = "nothing to compare with"


@dataclass(frozen=True)
class PeerSeries:
    """Another dataset's closes by the end time of each bar, so that candles of any interval can be compared."""

    coin: str
    name: str
    ends: np.ndarray
    """int64 [rows], seconds since 1970."""
    closes: np.ndarray
    interval_seconds: int
    number: int | None = None
    """The dataset's number; None for candles that are not stored."""

    @classmethod
    def from_frame(
        cls, frame: pl.DataFrame, *, coin: str, name: str, number: int | None = None
    ) -> "PeerSeries":
        """From valid candles."""
        interval = infer_interval_ms(frame) // 1000
        ends = frame["timestamp"].dt.epoch("s").to_numpy() + interval
        closes = frame["close"].to_numpy().copy()  # a view would keep all columns in memory
        return cls(coin, name, ends, closes, interval, number)


@dataclass(frozen=True)
class PeerOverlap:
    """A comparison over the time that two series share."""

    peer: PeerSeries
    bars: int
    least_spread: float
    """The least of any window of 500 bars: the deviation of log(close / close) over that of a bar's move."""
    delay_seconds: int
    """By how much the series follows the peer where the spread is least."""
    median_spread: float
    """Over the windows, without a delay."""
    distance: float
    """Median of abs(log(close / close)), without a delay."""

    @property
    def agrees(self) -> bool:
        return self.median_spread < SAME_SERIES and self.distance <= MAX_DISTANCE

    @property
    def is_same_series(self) -> bool:
        return self.least_spread < SAME_SERIES

    @property
    def delay(self) -> str:
        """In words, at the end of a sentence's part; empty without one."""
        if not self.delay_seconds:
            return ""
        word = "later" if self.delay_seconds > 0 else "earlier"
        return f", {format_interval(abs(self.delay_seconds))} {word}"


def compare_series(series: PeerSeries, peer: PeerSeries) -> PeerOverlap | None:
    """None if they share too little time."""
    is_coarser = series.interval_seconds >= peer.interval_seconds
    coarse, fine = (series, peer) if is_coarser else (peer, series)
    pairs = _pair_closes(coarse, fine, 0)
    if pairs.shape[1] < MIN_SHARED_BARS:
        return None
    spreads = _compute_spreads(pairs)
    least, delay = float(spreads.min()), 0
    step = coarse.interval_seconds
    newest = replace(coarse, ends=coarse.ends[-MAX_DELAYED_BARS:], closes=coarse.closes[-MAX_DELAYED_BARS:])
    for bars in range(-MAX_DELAY_BARS, MAX_DELAY_BARS + 1):
        delayed = _pair_closes(newest, fine, bars * step)
        if bars and delayed.shape[1] >= MIN_SHARED_BARS:
            spread = float(_compute_spreads(delayed).min())
            if spread < least:
                least, delay = spread, -bars * step if is_coarser else bars * step
    distance = float(np.median(np.abs(pairs[0] - pairs[1])))
    return PeerOverlap(peer, pairs.shape[1], least, delay, float(np.median(spreads)), distance)


def _pair_closes(coarse: PeerSeries, fine: PeerSeries, delay: int) -> np.ndarray:
    """Log closes of the coarser series, and of the finer one `delay` seconds later: [2, shared bars]."""
    times = coarse.ends + delay
    after = np.searchsorted(fine.ends, times)
    is_inside = (after > 0) & (after < len(fine.ends))
    after = after.clip(1, len(fine.ends) - 1)
    # Not across a gap of the finer one: a straight line would stand there.
    is_inside |= times == fine.ends[0]
    is_inside &= fine.ends[after] - fine.ends[after - 1] <= 2 * fine.interval_seconds
    shared = times[is_inside]
    own = np.log(coarse.closes[is_inside])
    return np.stack([own, np.interp(shared, fine.ends, np.log(fine.closes))])


def _compute_spreads(pairs: np.ndarray) -> np.ndarray:
    """By window, the deviation of the log ratio over that of a bar's move: 0 for copies, also at another scale."""
    bars = min(WINDOW_BARS, pairs.shape[1])
    windows = pairs.shape[1] // bars
    first, second = pairs[:, : windows * bars].reshape(2, windows, bars)
    moves = np.diff(first, axis=1).std(axis=1)
    spreads = (first - second).std(axis=1)
    return np.divide(spreads, moves, out=np.full(windows, np.inf), where=moves > 0)


def check_peers(frame: pl.DataFrame, peers: Sequence[PeerSeries], coin: str) -> Iterator[Check]:
    """Against other coins' candles, and against other candles of the same coin."""
    series = PeerSeries.from_frame(frame, coin=coin, name="these candles")
    overlaps = [o for o in (compare_series(series, peer) for peer in peers) if o is not None]
    yield _check_other_coins([o for o in overlaps if o.peer.coin != coin])
    yield _check_same_coin([o for o in overlaps if o.peer.coin == coin])


def _check_other_coins(overlaps: Sequence[PeerOverlap]) -> Check:
    name = "other_coins"
    threshold = (
        f"spread ≥ {SAME_SERIES:g} of a bar's move to every other coin, at any delay of {MAX_DELAY_BARS} bars"
    )
    if not overlaps:
        return skip_check(name, threshold, _NO_PEERS, "No other coin's candles of that time are stored yet.")
    closest = min(overlaps, key=lambda overlap: overlap.least_spread)
    peer = f"{closest.peer.coin}'s {closest.peer.name}"
    return pass_or_fail(
        name,
        threshold,
        closest.least_spread,
        f"{closest.least_spread:.2f} to {peer}{closest.delay}, over {min(closest.bars, WINDOW_BARS):,} bars at least",
        passed="It moves with the other coins as coins do, and is none of them.",
        failed=f"This is {peer} again{closest.delay}: one of the two has the wrong coin. A person must find out which.",
        is_passed=not closest.is_same_series,
        compared_with=closest.peer.number,
    )


def _check_same_coin(overlaps: Sequence[PeerOverlap]) -> Check:
    name = "same_coin"
    threshold = f"spread < {SAME_SERIES:g} of a bar's move, closes within {MAX_DISTANCE:.0%} of the coin's other datasets"
    if not overlaps:
        reason = "No other candles of this coin and time are stored yet."
        return skip_check(name, threshold, _NO_PEERS, reason)
    worst = max(overlaps, key=lambda overlap: (not overlap.agrees, overlap.median_spread))
    failed = f"It contradicts {worst.peer.name} of the same coin."
    if worst.is_same_series and worst.delay_seconds:
        failed = (
            f"It is {worst.peer.name} of the same coin again{worst.delay}: one of the two has wrong times."
        )
    return pass_or_fail(
        name,
        threshold,
        worst.median_spread,
        f"{worst.median_spread:.2f} to {worst.peer.name} over {worst.bars:,} bars, closes {worst.distance:.2%} apart",
        passed="It agrees with the coin's other candles wherever they overlap.",
        failed=f"{failed} These figures cannot say which of the two is wrong: a person must look.",
        is_passed=worst.agrees,
        otherwise=Verdict.INCONCLUSIVE,
        compared_with=worst.peer.number,
    )
