"""What was found so far, a JSON line each, so that an interrupted run goes on where it stopped; and what it adds up to."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.power.border import ALLOWED, BEYOND
from benchmarks.power.markets import FULL, Market
from benchmarks.power.shares import Share
from mlcore.data.simulate import COINS

RELEASED_AT = 1.5
LEAST_RELEASED = 0.95
RELEASED_WITHOUT_DRIFT = 1
"""Of sixty, under a policy that asks for a lead; the full policy releases none."""
FIRST_COIN = "BTC"
"""Always judged, so its figures do not depend on whether a coin before it was refused."""


@dataclass
class Results:
    """All lines of one file, as one policy judges them. The border is that of the full policy's accuracy gate."""

    markets: list[dict[str, Any]] = field(default_factory=list)
    borders: list[dict[str, Any]] = field(default_factory=list)
    policy: str = FULL

    @classmethod
    def read(cls, path: Path, policy: str = FULL) -> "Results":
        """None found yet is no error; a last line cut off by a crash is left out."""
        found = cls(policy=policy)
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                found.add(json.loads(line))
            except ValueError:
                continue
        return found

    def add(self, line: dict[str, Any]) -> None:
        if line["kind"] != "market":
            if self.policy == FULL:
                self.borders.append(line)
            return
        coins = {
            coin: {**found, "refused_by": found["refused_by"][self.policy]}
            for coin, found in line["coins"].items()
        }
        refused = any(found["refused_by"] for found in coins.values())
        self.markets.append({**line, "coins": coins, "is_released": len(coins) == len(COINS) and not refused})

    def has(self, market: Market) -> bool:
        wanted = asdict(market)
        return any({name: line[name] for name in wanted} == wanted for line in self.markets)

    def has_border(self, number: int, bars: int) -> bool:
        return any((line["number"], line["bars"]) == (number, bars) for line in self.borders)

    @property
    def bars(self) -> list[int]:
        """The lengths of market there are, the longest first."""
        return sorted({line["bars"] for line in self.markets}, reverse=True)

    def of(self, bars: int) -> "Results":
        """Only the markets of that length."""
        return Results([line for line in self.markets if line["bars"] == bars], self.borders, self.policy)

    @property
    def asked(self) -> "Results":
        """Those that something is asked of: the longest markets."""
        return self.of(self.bars[0]) if self.markets else self

    def drifts(self) -> list[float]:
        return sorted({line["drift"] for line in self.markets})

    def released(self, drift: float) -> Share:
        return _share(line["is_released"] for line in self.markets if line["drift"] == drift)

    def find_half(self) -> tuple[float, float] | None:
        """The drift above which half of the markets or more are always released, and the true lead over the base rate there.

        Interpolated between the two drifts beside it: the last ones, where the shares go up and down. The lead is the mean
        of the first coin's: of a trained model on bars that it has not seen, and so without bias. None where no drift
        releases half.
        """
        drifts = self.drifts()
        for below, above in reversed(list(pairwise(drifts))):
            before, after = (self.released(drift).share for drift in (below, above))
            if before < 0.5 <= after:
                way = (0.5 - before) / (after - before)
                leads = [self._mean_lead(drift) for drift in (below, above)]
                return below + way * (above - below), leads[0] + way * (leads[1] - leads[0])
        return None

    def _mean_lead(self, drift: float) -> float:
        coins = [line["coins"][FIRST_COIN] for line in self.markets if line["drift"] == drift]
        leads = [coin["over_base_rate"] for coin in coins if coin["over_base_rate"] is not None]
        return statistics.fmean(leads) if leads else math.nan

    def coins(self, drift: float) -> list[dict[str, Any]]:
        return [coin for line in self.markets if line["drift"] == drift for coin in line["coins"].values()]

    def refused(self, drift: float) -> dict[str, Share]:
        """For each gate that refused any coin at any drift: the share of this drift's coins that it refused."""
        return {
            gate: _share(gate in coin["refused_by"] for coin in self.coins(drift)) for gate in self.gates()
        }

    def gates(self) -> list[str]:
        found: dict[str, int] = {}
        for line in self.markets:
            for coin in line["coins"].values():
                for gate in coin["refused_by"]:
                    found[gate] = found.get(gate, 0) + 1
        return sorted(found, key=lambda gate: -found[gate])

    def border(self) -> dict[str, dict[str, Share]]:
        """{forecaster: {window: share that passed}}."""
        sums: dict[str, dict[str, list[int]]] = {}
        for line in self.borders:
            for name, windows in line["tallies"].items():
                for window, (passed, of) in windows.items():
                    tally = sums.setdefault(name, {}).setdefault(window, [0, 0])
                    tally[0] += passed
                    tally[1] += of
        return {name: {w: Share(*tally) for w, tally in windows.items()} for name, windows in sums.items()}

    def shortfalls(self) -> list[str]:
        """What is asked and was not reached, a sentence each."""
        found, asked, is_full = [], self.asked, self.policy == FULL
        allowed, goal = (0, "none") if is_full else (RELEASED_WITHOUT_DRIFT, "at most 1 in 60")
        if 0.0 in asked.drifts() and asked.released(0.0).hits > allowed:
            found.append(
                f"Without drift {asked.released(0.0)} of the markets were released; the goal is {goal}."
            )
        if not is_full:
            return found
        if RELEASED_AT in asked.drifts() and asked.released(RELEASED_AT).share <= LEAST_RELEASED:
            found.append(f"At drift {RELEASED_AT} only {asked.released(RELEASED_AT)} were released.")
        found += [
            f"At the border, {name} passed in {share} of the windows of {window}."
            for name, windows in self.border().items()
            for window, share in windows.items()
            if name != BEYOND and share.share > ALLOWED
        ]
        return found


def _share(outcomes: Iterable[bool]) -> Share:
    listed = list(outcomes)
    return Share(sum(listed), len(listed))
