"""Checks against other candles: is this another coin's series, and does it agree with other series of its coin?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mlcore.data.validation import infer_interval_ms
from mlcore.quality.result import Check, pass_or_fail, skip_check
from mlcore.verdict import Verdict

MIN_SHARED_BARS = 200
WINDOW_BARS = 500
MAX_CORRELATION = 0.98
"""Of returns with another coin's. Real: BTC and ETH 0.83 over five years, 0.95 over any 500 hours, 0.96 over any 200."""

_NO_PEERS = "nothing to compare with"

MIN_AGREEMENT = 0.90
MAX_DISTANCE = 0.02
"""Median distance of closes, in log price: other exchanges and quotes in other dollars stay within it."""


@dataclass(frozen=True)
class PeerSeries:
    """Another dataset's closes by the end time of each bar, so that candles of any interval can be compared."""

    coin: str
    name: str
    ends: np.ndarray
    """int64 [rows], seconds since 1970."""
    closes: np.ndarray
    number: int | None = None
    """The dataset's number; None for candles that are not stored."""

    @classmethod
    def from_frame(
        cls, frame: pl.DataFrame, *, coin: str, name: str, number: int | None = None
    ) -> "PeerSeries":
        """From valid candles."""
        ends = frame["timestamp"].dt.epoch("s").to_numpy() + infer_interval_ms(frame) // 1000
        return cls(coin, name, ends, frame["close"].to_numpy(), number)


@dataclass(frozen=True)
class PeerOverlap:
    """A comparison over the bars of two series that end at the same time."""

    peer: PeerSeries
    bars: int
    correlation: float
    """Of log returns between shared bars, over all of them."""
    max_window_correlation: float
    """The greatest over windows of 500 bars (or over all, if there are fewer)."""
    distance: float
    """Median of abs(log(close / close))."""

    @property
    def agrees(self) -> bool:
        return self.correlation >= MIN_AGREEMENT and self.distance <= MAX_DISTANCE


def compare_series(series: PeerSeries, peer: PeerSeries) -> PeerOverlap | None:
    """None if they share too few bars."""
    _, own_rows, peer_rows = np.intersect1d(series.ends, peer.ends, assume_unique=True, return_indices=True)
    if len(own_rows) < MIN_SHARED_BARS:
        return None
    a, b = np.log(series.closes[own_rows]), np.log(peer.closes[peer_rows])
    moves = np.stack([np.diff(a), np.diff(b)])
    starts = range(0, max(1, moves.shape[1] - WINDOW_BARS + 1), WINDOW_BARS)
    windows = [_correlate(moves[:, start : start + WINDOW_BARS]) for start in starts]
    return PeerOverlap(peer, len(own_rows), _correlate(moves), max(windows), float(np.median(np.abs(a - b))))


def check_peers(frame: pl.DataFrame, peers: Sequence[PeerSeries], coin: str) -> Iterator[Check]:
    """Against other coins' candles, and against other candles of the same coin."""
    series = PeerSeries.from_frame(frame, coin=coin, name="these candles")
    overlaps = [o for o in (compare_series(series, peer) for peer in peers) if o is not None]
    yield _check_other_coins([o for o in overlaps if o.peer.coin != coin])
    yield _check_same_coin([o for o in overlaps if o.peer.coin == coin])


def _check_other_coins(overlaps: Sequence[PeerOverlap]) -> Check:
    name, threshold = "other_coins", f"correlation < {MAX_CORRELATION} with every other coin"
    if not overlaps:
        return skip_check(name, threshold, _NO_PEERS, "No other coin's candles of that time are stored yet.")
    closest = max(overlaps, key=lambda overlap: overlap.max_window_correlation)
    correlation, peer = closest.max_window_correlation, f"{closest.peer.coin}'s {closest.peer.name}"
    return pass_or_fail(
        name,
        threshold,
        correlation,
        f"{correlation:.3f} with {peer}, over {min(closest.bars, WINDOW_BARS):,} bars at most",
        passed="It moves with the other coins as coins do, and is none of them.",
        failed=f"This is {peer} again: one of the two has the wrong coin. A person must find out which.",
        is_passed=correlation < MAX_CORRELATION,
        compared_with=closest.peer.number,
    )


def _check_same_coin(overlaps: Sequence[PeerOverlap]) -> Check:
    name = "same_coin"
    threshold = (
        f"correlation ≥ {MIN_AGREEMENT:.2f} and closes within {MAX_DISTANCE:.0%} of the coin's other datasets"
    )
    if not overlaps:
        reason = "No other candles of this coin and time are stored yet."
        return skip_check(name, threshold, _NO_PEERS, reason)
    worst = min(overlaps, key=lambda overlap: (overlap.agrees, overlap.correlation))
    return pass_or_fail(
        name,
        threshold,
        worst.correlation,
        f"{worst.correlation:.3f} with {worst.peer.name} over {worst.bars:,} bars, closes {worst.distance:.2%} apart",
        passed="It agrees with the coin's other candles wherever they overlap.",
        failed=f"It contradicts {worst.peer.name} of the same coin. These figures cannot say which of the two is wrong:"
        " a person must look.",
        is_passed=worst.agrees,
        otherwise=Verdict.INCONCLUSIVE,
        compared_with=worst.peer.number,
    )


def _correlate(moves: np.ndarray) -> float:
    """Of two series [2, n]; 0 if one of them does not move."""
    return float(np.corrcoef(moves)[0, 1]) if moves.std(axis=1).all() else 0.0
