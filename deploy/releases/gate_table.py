"""The gate table: gates down, coins across, with the result of every gate for every coin of a release."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.models import Release, ReleaseCoin
from deploy.outcomes import find_outcome
from deploy.rules import ReleaseState
from gates.catalogue.advisory import ADVISORY
from gates.catalogue.baseline import BASELINE
from gates.catalogue.evidence import EVIDENCE
from gates.catalogue.gate import Group, Reading
from gates.catalogue.registry import GROUPS, find_group, read_gate
from gates.catalogue.skill import SKILL
from gates.models import Diagnosis, GateResult
from mlcore.verdict import Verdict

_ORDER = (BASELINE, SKILL, EVIDENCE, ADVISORY)
"""The groups in the order in which they are shown."""


@dataclass(frozen=True)
class Cell:
    """The result of one gate for one coin; without one, why it is missing."""

    coin: str
    result: GateResult | None = None
    reading: Reading | None = None
    missing: str = "not measured yet"

    @property
    def is_problem(self) -> bool:
        return self.result is not None and self.result.verdict != Verdict.PASSED


@dataclass(frozen=True)
class Row:
    gate: str
    threshold: str
    is_required: bool
    cells: Sequence[Cell]

    @property
    def group(self) -> Group:
        return find_group(self.gate, is_required=self.is_required)

    @property
    def is_problem(self) -> bool:
        return any(cell.is_problem for cell in self.cells)

    @property
    def can_collapse(self) -> bool:
        """Whether every coin passed and no meter tells how clearly a required gate did: such gates fit on one line."""
        has_meter = any(cell.reading and cell.reading.meter for cell in self.cells)
        has_passed = all(cell.result is not None and not cell.is_problem for cell in self.cells)
        return has_passed and not (self.is_required and has_meter)


@dataclass(frozen=True)
class CollapsedRows:
    """Gates of one group that every coin passed, shown on one line."""

    group: Group
    rows: Sequence[Row]


@dataclass(frozen=True)
class GateTable:
    coins: Sequence[str]
    rows: Sequence[Row]
    attempts: Mapping[str, int]
    """How many candidates of each coin have been judged on its gate window, this one counted."""
    is_final: bool
    """Whether the release has ended: no further result will come."""

    @property
    def expanded(self) -> Sequence[Row]:
        """The rows shown gate by gate: required gates that did not pass, then the passed ones, then advisory gates."""
        rows = [row for row in self.rows if not row.can_collapse]
        return sorted(
            rows, key=lambda row: (not row.is_required, not row.is_problem, _ORDER.index(row.group))
        )

    @property
    def collapsed(self) -> Sequence[CollapsedRows]:
        """The rows that need no detail, a line for each group."""
        rows = [row for row in reversed(self.rows) if row.can_collapse]
        by_group = {group: [row for row in rows if row.group == group] for group in GROUPS}
        return [CollapsedRows(group, rows) for group, rows in by_group.items() if rows]

    @property
    def judged(self) -> int:
        """How many results of required gates there are."""
        return sum(row.is_required and cell.result is not None for row in self.rows for cell in row.cells)

    @property
    def due(self) -> int:
        """How many results of required gates there are once every coin is judged."""
        return sum(row.is_required for row in self.rows) * len(self.coins)

    @property
    def missing(self) -> int:
        return self.due - self.judged

    @property
    def passed(self) -> int:
        return self.judged - self.problems

    @property
    def problems(self) -> int:
        return sum(row.is_required and cell.is_problem for row in self.rows for cell in row.cells)


def build_gate_table(release: Release, release_coins: Sequence[ReleaseCoin]) -> GateTable:
    """Build it from the coins of the release, with diagnoses and results loaded. Required gates come first."""
    diagnoses = {row.coin.symbol: row.diagnosis for row in release_coins}
    missing = {row.coin.symbol: _describe_missing(release, row) for row in release_coins}
    by_coin = {coin: _read_cells(coin, diagnosis) for coin, diagnosis in diagnoses.items()}
    results = [cell.result for cells in by_coin.values() for cell in cells.values() if cell.result]
    first = {result.gate: result for result in reversed(results)}
    rows = [
        Row(
            result.gate,
            result.threshold,
            result.is_required,
            [cells.get(result.gate) or Cell(coin, missing=missing[coin]) for coin, cells in by_coin.items()],
        )
        for result in sorted(first.values(), key=lambda result: -result.position)
    ]
    attempts = {coin: count for coin, each in diagnoses.items() if (count := read_attempt(each))}
    return GateTable(list(by_coin), rows, attempts, is_final=release.state != ReleaseState.BUILDING)


def _describe_missing(release: Release, release_coin: ReleaseCoin) -> str:
    outcome = find_outcome(release_coin)
    if outcome is not None and outcome.missing:
        return f"not measured: {outcome.missing}"
    return "not measured yet" if release.state == ReleaseState.BUILDING else "not measured"


def read_attempt(diagnosis: Diagnosis | None) -> int | None:
    """The number of the attempt that was judged; None where it was not counted."""
    attempts = diagnosis.context_document.get("attempts") if diagnosis else None
    return attempts.get("count") if attempts else None


def _read_cells(coin: str, diagnosis: Diagnosis | None) -> dict[str, Cell]:
    if diagnosis is None:
        return {}
    measured, policy = diagnosis.judged_document, diagnosis.policy_document
    return {
        result.gate: Cell(coin, result, read_gate(result.gate, measured, policy))
        for result in diagnosis.results.all()
    }
