"""Gates against coins: what every gate said of every coin of a release, ready to be read across."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deploy.models import ReleaseCoin
from gates.models import Diagnosis, GateResult
from gates.readings import Reading, reading
from gates.rules import Verdict


@dataclass(frozen=True)
class Cell:
    """What one gate said of one coin; no result while it has not spoken."""

    coin: str
    result: GateResult | None
    reading: Reading | None

    @property
    def is_against(self) -> bool:
        return self.result is not None and self.result.verdict != Verdict.PASSED


@dataclass(frozen=True)
class Row:
    gate: str
    threshold: str
    is_required: bool
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Matrix:
    coins: Sequence[str]
    rows: Sequence[Row]

    @property
    def spoken(self) -> int:
        """How many required words there are."""
        return sum(row.is_required and cell.result is not None for row in self.rows for cell in row.cells)

    @property
    def passed(self) -> int:
        return self.spoken - self.against

    @property
    def against(self) -> int:
        return sum(row.is_required and cell.is_against for row in self.rows for cell in row.cells)


def matrix(places: Iterable[ReleaseCoin]) -> Matrix:
    """From the coins of a release, their diagnoses and results loaded. What decides most stands first."""
    places = list(places)
    words = {place.coin.symbol: _words(place.diagnosis) for place in places}
    spoken = [word for of_coin in words.values() for word in of_coin.values()]
    gates = {result.gate: result for result, _ in reversed(spoken)}
    ordered = sorted(gates.values(), key=lambda result: -result.position)
    return Matrix(
        list(words),
        [
            Row(
                first.gate,
                first.threshold,
                first.is_required,
                [Cell(coin, *of_coin.get(first.gate, (None, None))) for coin, of_coin in words.items()],
            )
            for first in ordered
        ],
    )


def _words(diagnosis: Diagnosis | None) -> dict[str, tuple[GateResult, Reading | None]]:
    if diagnosis is None:
        return {}
    measured, policy = diagnosis.document, json.loads(diagnosis.policy_body)
    return {
        result.gate: (result, reading(result.gate, measured, policy)) for result in diagnosis.results.all()
    }
