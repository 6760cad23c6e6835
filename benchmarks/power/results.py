"""What was found so far, a JSON line each, so that an interrupted run goes on where it stopped; and what it adds up to."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.power.border import ALLOWED, BEYOND
from benchmarks.power.markets import Market
from benchmarks.power.shares import Share

RELEASED_AT = 1.5
LEAST_RELEASED = 0.95


@dataclass
class Results:
    """All lines of one file."""

    markets: list[dict[str, Any]] = field(default_factory=list)
    borders: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Results":
        """None found yet is no error; a last line cut off by a crash is left out."""
        found = cls()
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                found.add(json.loads(line))
            except ValueError:
                continue
        return found

    def add(self, line: dict[str, Any]) -> None:
        (self.markets if line["kind"] == "market" else self.borders).append(line)

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
        return Results([line for line in self.markets if line["bars"] == bars], self.borders)

    @property
    def asked(self) -> "Results":
        """Those that something is asked of: the longest markets."""
        return self.of(self.bars[0]) if self.markets else self

    def drifts(self) -> list[float]:
        return sorted({line["drift"] for line in self.markets})

    def released(self, drift: float) -> Share:
        return _share(line["is_released"] for line in self.markets if line["drift"] == drift)

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
        found, asked = [], self.asked
        if 0.0 in asked.drifts() and asked.released(0.0).hits:
            found.append(
                f"Without drift {asked.released(0.0)} of the markets were released; the goal is none."
            )
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
