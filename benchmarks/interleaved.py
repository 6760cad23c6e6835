"""Two ways to do one thing, in turns: a machine that slows down slows both, and their ratio stays honest."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter


@dataclass(frozen=True)
class Comparison:
    """Seconds a call of each side, one entry a round."""

    ours: list[float]
    peers: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times longer the peer takes, round by round."""
        return [peer / our for our, peer in zip(self.ours, self.peers, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median(self.ratios)

    def __str__(self) -> str:
        low, _, high = quantiles(self.ratios, n=4)
        return (
            f"ours {median(self.ours) * 1e3:.2f} ms, peer {median(self.peers) * 1e3:.2f} ms, "
            f"ratio {self.ratio:.1f} (middle half of {len(self.ratios)} rounds: {low:.1f} to {high:.1f})"
        )


def compare(ours: Callable[[], object], peer: Callable[[], object], *, rounds: int, calls: int) -> Comparison:
    """Time `calls` calls of each side in every round, after one round that does not count."""
    return Comparison(*in_turns(ours, peer, rounds=rounds, calls=calls))


def in_turns(*sides: Callable[[], object], rounds: int, calls: int = 1) -> list[list[float]]:
    """Seconds a call of any number of sides, a list each with one entry a round; the first round does not count."""
    times = [[_seconds(side, calls) for side in sides] for _ in range(rounds + 1)][1:]
    return [list(side) for side in zip(*times, strict=True)]


def _seconds(call: Callable[[], object], calls: int) -> float:
    start = perf_counter()
    for _ in range(calls):
        call()
    return (perf_counter() - start) / calls
