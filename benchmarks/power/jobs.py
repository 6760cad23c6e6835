"""What there is to find out: each job is one market, or one long series of forecasters at the border."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.power import border
from benchmarks.power.markets import Market, judge
from benchmarks.power.results import Results
from mlcore.data.simulate import DEFAULT_DRIFT, DEMO_BARS

MARKETS = {
    0.0: 60, 1.5: 60, 1.0: 10, 1.25: 10, 2.0: 10, 0.75: 10, 1.75: 10,
    0.6: 10, 0.5: 10, 0.4: 10, 0.3: 10, 0.25: 10, 0.2: 10, 0.1: 10,
}  # fmt: skip
"""How many of each drift: most where something is asked, and those first. Small ones for a policy that asks for a lead."""
DEMO_MARKETS = 10
"""Of the drift and the length of the demo's: how often a newcomer's first release would be refused."""


@dataclass(frozen=True)
class Job:
    """One thing to find out, in a process of its own."""

    kind: str
    market: Market | None = None
    number: int = 0
    bars: int = border.MARKET_BARS

    def line(self) -> dict[str, Any]:
        if self.market:
            return {"kind": self.kind, **judge(self.market)}
        tallies = border.judge_border(self.number, self.bars)
        return {"kind": self.kind, "number": self.number, "bars": self.bars, "tallies": tallies}

    def is_in(self, results: Results) -> bool:
        return results.has(self.market) if self.market else results.has_border(self.number, self.bars)


def jobs(is_quick: bool) -> Iterator[Job]:
    if is_quick:
        yield Job("border", bars=40_000)
        yield from (Job("market", Market(drift, 0, bars=6_000, epochs=3)) for drift in (0.0, 1.5))
        return
    yield from (Job("border", number=number) for number in range(border.MARKETS))
    for drift, count in MARKETS.items():
        yield from (Job("market", Market(drift, number)) for number in range(count))
    yield from (Job("market", Market(DEFAULT_DRIFT, number, DEMO_BARS)) for number in range(DEMO_MARKETS))
