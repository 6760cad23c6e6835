"""Gates against coins: what every gate said of every coin of a release, ready to be read across."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deploy.models import ReleaseCoin
from gates.catalogue.groups import ADVICE, EVIDENCE, GROUPS, PLAN, SKILL, Group, group_of
from gates.catalogue.readings import Reading, reading
from gates.models import Diagnosis, GateResult
from gates.policy import Verdict

_ORDER = (PLAN, SKILL, EVIDENCE, ADVICE)
"""The groups in the order in which they are worth a look."""


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

    @property
    def group(self) -> Group:
        return group_of(self.gate, is_required=self.is_required)

    @property
    def is_against(self) -> bool:
        return any(cell.is_against for cell in self.cells)

    @property
    def is_quiet(self) -> bool:
        """Whether every coin passed, and there is no scale worth a look: one line is enough for all such gates."""
        return all(
            cell.result is not None and not cell.is_against and not (cell.reading and cell.reading.meter)
            for cell in self.cells
        )


@dataclass(frozen=True)
class Quiet:
    """Gates of one group that every coin passed, on one line."""

    group: Group
    rows: Sequence[Row]


@dataclass(frozen=True)
class Matrix:
    coins: Sequence[str]
    rows: Sequence[Row]
    attempts: Mapping[str, int]
    """How many candidates of each coin have been judged on its gate window, this one counted."""

    @property
    def loud(self) -> Sequence[Row]:
        """What is shown gate by gate: what decides and did not pass, what passed by how much, what is only advice."""
        rows = [row for row in self.rows if not row.is_quiet]
        return sorted(
            rows, key=lambda row: (not row.is_required, not row.is_against, _ORDER.index(row.group))
        )

    @property
    def quiet(self) -> Sequence[Quiet]:
        """What passed without a scale, a line for each group."""
        quiet = [row for row in reversed(self.rows) if row.is_quiet]
        rows = {group: [row for row in quiet if row.group == group] for group in GROUPS}
        return [Quiet(group, found) for group, found in rows.items() if found]

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
        {place.coin.symbol: count for place in places if (count := attempt_of(place.diagnosis))},
    )


def attempt_of(diagnosis: Diagnosis | None) -> int | None:
    """Which try at its gate window was judged; None where nobody counted."""
    attempts = json.loads(diagnosis.circumstances).get("attempts") if diagnosis else None
    return attempts.get("count") if attempts else None


def _words(diagnosis: Diagnosis | None) -> dict[str, tuple[GateResult, Reading | None]]:
    if diagnosis is None:
        return {}
    measured = {**diagnosis.document, **json.loads(diagnosis.circumstances)}
    policy = diagnosis.frozen_policy
    return {
        result.gate: (result, reading(result.gate, measured, policy)) for result in diagnosis.results.all()
    }
