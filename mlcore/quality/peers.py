"""Candles next to other candles: is this another coin's series, and does it agree with its own coin's?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mlcore.data.validation import infer_interval_ms
from mlcore.quality.result import Check
from mlcore.verdict import Finding, Verdict

LEAST_SHARED_BARS = 200
WINDOW_BARS = 500
MOST_CORRELATION = 0.98
"""Of returns with another coin's. Real: BTC and ETH 0.83 over five years, 0.95 over any 500 hours, 0.96 over any 200."""

LEAST_AGREEMENT = 0.90
MOST_DISTANCE = 0.02
"""Median distance of closes, in log price: other exchanges and quotes in other dollars stay within it."""


@dataclass(frozen=True)
class PeerSeries:
    """Another dataset's closes by the time each bar ends, which candles of any interval can be compared by."""

    coin: str
    name: str
    ends: np.ndarray
    """int64 [rows], seconds since 1970."""
    closes: np.ndarray
    number: int | None = None
    """The dataset's; None of candles that are not stored."""

    @classmethod
    def from_frame(
        cls, frame: pl.DataFrame, *, coin: str, name: str, number: int | None = None
    ) -> "PeerSeries":
        """Of a frame that `candle_checks.check` takes."""
        ends = frame["timestamp"].dt.epoch("s").to_numpy() + infer_interval_ms(frame) // 1000
        return cls(coin, name, ends, frame["close"].to_numpy(), number)


@dataclass(frozen=True)
class PeerOverlap:
    """Two series where both have a bar that ends at the same time."""

    peer: PeerSeries
    bars: int
    correlation: float
    """Of log returns between shared bars, over all of them."""
    closest: float
    """The same over the 500 bars (or all, where there are fewer) in which they are most alike."""
    distance: float
    """Median of abs(log(close / close))."""


def compare_series(mine: PeerSeries, other: PeerSeries) -> PeerOverlap | None:
    """None where they share too few bars to tell."""
    _, here, there = np.intersect1d(mine.ends, other.ends, assume_unique=True, return_indices=True)
    if len(here) < LEAST_SHARED_BARS:
        return None
    a, b = np.log(mine.closes[here]), np.log(other.closes[there])
    moves = np.stack([np.diff(a), np.diff(b)])
    starts = range(0, max(1, moves.shape[1] - WINDOW_BARS + 1), WINDOW_BARS)
    windows = [_correlation(moves[:, start : start + WINDOW_BARS]) for start in starts]
    return PeerOverlap(other, len(here), _correlation(moves), max(windows), float(np.median(np.abs(a - b))))


def check_peers(frame: pl.DataFrame, peers: Sequence[PeerSeries], coin: str) -> Iterator[Check]:
    """Next to other coins' candles, and next to those of the same coin."""
    mine = PeerSeries.from_frame(frame, coin=coin, name="these candles")
    found = [o for o in (compare_series(mine, other) for other in peers) if o is not None]
    yield _other_coins([o for o in found if o.peer.coin != coin])
    yield _same_coin([o for o in found if o.peer.coin == coin])


def _other_coins(found: Sequence[PeerOverlap]) -> Check:
    threshold = f"correlation < {MOST_CORRELATION} with every other coin"
    if not found:
        return _alone("other_coins", threshold, "No other coin's candles of that time are stored yet.")
    closest = max(found, key=lambda o: o.closest)
    name, beside = f"{closest.peer.coin}'s {closest.peer.name}", closest.peer.number
    observed = f"{closest.closest:.3f} with {name}, over {min(closest.bars, WINDOW_BARS):,} bars at most"
    if closest.closest < MOST_CORRELATION:
        says = "It moves with the other coins as coins do, and is none of them."
        return Check(
            "other_coins", threshold, Finding(Verdict.PASSED, closest.closest, observed, says), beside
        )
    says = (
        f"This is {name} over again: one of the two carries the other coin's name. A person must look which."
    )
    return Check("other_coins", threshold, Finding(Verdict.FAILED, closest.closest, observed, says), beside)


def _same_coin(found: Sequence[PeerOverlap]) -> Check:
    threshold = f"correlation ≥ {LEAST_AGREEMENT:.2f} and closes within {MOST_DISTANCE:.0%} of the coin's other datasets"
    if not found:
        return _alone("same_coin", threshold, "No other candles of this coin and time are stored yet.")
    worst = min(found, key=lambda o: (_agrees(o), o.correlation))
    beside = worst.peer.number
    observed = (
        f"{worst.correlation:.3f} with {worst.peer.name} over {worst.bars:,} bars, closes"
        f" {worst.distance:.2%} apart"
    )
    if _agrees(worst):
        says = "It agrees with the coin's other candles wherever they overlap."
        return Check(
            "same_coin", threshold, Finding(Verdict.PASSED, worst.correlation, observed, says), beside
        )
    says = (
        f"It contradicts {worst.peer.name} of the same coin. Which of the two is wrong these figures cannot say:"
        " a person must look."
    )
    return Check(
        "same_coin", threshold, Finding(Verdict.INCONCLUSIVE, worst.correlation, observed, says), beside
    )


def _agrees(found: PeerOverlap) -> bool:
    return found.correlation >= LEAST_AGREEMENT and found.distance <= MOST_DISTANCE


def _alone(check: str, threshold: str, says: str) -> Check:
    return Check(check, threshold, Finding(Verdict.PASSED, None, "nothing to compare with", says))


def _correlation(moves: np.ndarray) -> float:
    """Of two series [2, n]; 0 where one of them does not move."""
    return float(np.corrcoef(moves)[0, 1]) if moves.std(axis=1).all() else 0.0
