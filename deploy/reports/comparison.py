"""Compares two releases, from their measurements and gate outcomes. Plain values; no ORM, clock or I/O."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from deploy.reports.failures import FAILURES, KnownFailure
from deploy.reports.skill import Skill, describe_skill
from gates.catalogue.gate import GateOutcome
from gates.catalogue.measurement_reader import MeasurementReader
from gates.catalogue.registry import GATES
from gates.policy_changes import weaker_than_baseline
from mlcore.verdict import Verdict


@dataclass(frozen=True)
class ComparedCoin:
    """One coin of a release: its measurement, and the outcome of every gate."""

    coin: str
    document: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    outcomes: Mapping[str, GateOutcome] = field(default_factory=dict)
    verdict: str | None = None
    diagnosis: int | None = None
    bundle: str | None = None


@dataclass(frozen=True)
class ComparedRelease:
    """One of the two releases."""

    release: int
    line: str
    state: str
    policy: int
    is_simulated: bool
    launched_by: str
    launched_at: str
    coins: Mapping[str, ComparedCoin]
    label: str = ""
    """Its name in sentences: its line alone, unless the other release is of the same line."""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.line)

    @property
    def name(self) -> str:
        return f"{self.line} (release {self.release})"

    def get_outcome(self, coin: str, gate: str) -> GateOutcome | None:
        compared = self.coins.get(coin)
        return compared.outcomes.get(gate) if compared else None

    @property
    def outcomes(self) -> list[GateOutcome]:
        """Those of the required gates."""
        return [o for compared in self.coins.values() for o in compared.outcomes.values() if o.is_required]

    @property
    def compared_coins(self) -> list[ComparedCoin]:
        return list(self.coins.values())

    @property
    def is_sound(self) -> bool:
        """Whether every coin passed every required gate."""
        return bool(self.coins) and all(
            compared.verdict == Verdict.PASSED for compared in self.coins.values()
        )


class Answer(StrEnum):
    """Whether a failure is fixed."""

    FIXED = "fixed"
    NOT_FIXED = "not fixed"
    NOT_KNOWN = "not known"
    HOLDS = "holds"  # it passes, and the other release was not seen to fail

    @property
    def code(self) -> str:
        """For programs."""
        return self.value.replace(" ", "_")


@dataclass(frozen=True)
class FailureCheck:
    """One failure in one coin of one release: the figure, and the gate's verdict."""

    coin: str
    figure: str
    verdict: str | None
    sentence: str


@dataclass(frozen=True)
class FailureResult:
    failure: KnownFailure
    before: Sequence[FailureCheck]
    after: Sequence[FailureCheck]
    answer: Answer
    sentence: str


@dataclass(frozen=True)
class Cell:
    """The two outcomes of one gate for one coin."""

    coin: str
    before: GateOutcome | None
    after: GateOutcome | None

    @property
    def is_same(self) -> bool:
        """Whether verdict and figures are the same before and after."""
        pair = (self.before, self.after)
        return all(pair) and len({(outcome.verdict, outcome.observed) for outcome in pair if outcome}) == 1


@dataclass(frozen=True)
class GateRow:
    gate: str
    about: str
    threshold: str
    is_required: bool
    cells: Sequence[Cell]
    sentence: str

    @property
    def is_problem(self) -> bool:
        return any(cell.after is not None and cell.after.is_problem for cell in self.cells)

    @property
    def is_unchanged(self) -> bool:
        """Whether both releases passed for every coin."""
        return all(
            outcome is not None and not outcome.is_problem
            for cell in self.cells
            for outcome in (cell.before, cell.after)
        )


@dataclass(frozen=True)
class Comparison:
    """The report: one release, the one it is compared with, and the result."""

    after: ComparedRelease
    before: ComparedRelease | None
    failures: Sequence[FailureResult]
    gates: Sequence[GateRow]
    skills: Sequence[Skill]
    headline: str
    summary: str

    @property
    def coins(self) -> list[str]:
        return list(self.after.coins)

    @property
    def changed(self) -> list[GateRow]:
        """The gates that at least one of the two did not pass."""
        return [row for row in self.gates if not row.is_unchanged]

    @property
    def unchanged(self) -> list[GateRow]:
        """The gates that both passed for every coin."""
        return [row for row in self.gates if row.is_unchanged]

    @property
    def weaker_than_baseline(self) -> list[str]:
        """Where the policy of the release requires less than the baseline."""
        policies = [compared.policy for compared in self.after.coins.values() if compared.policy]
        return list(
            dict.fromkeys(sentence for policy in policies for sentence in weaker_than_baseline(policy))
        )


def compare(after: ComparedRelease, before: ComparedRelease | None) -> Comparison:
    """Compare `after` with `before`, coin by coin and gate by gate; `after` by itself where there is no other."""
    if before is not None and before.line == after.line:
        after, before = _label_by_number(after), _label_by_number(before)
    failures = [_answer(failure, after, before) for failure in FAILURES]
    return Comparison(
        after=after,
        before=before,
        failures=failures,
        gates=_build_rows(after, before),
        skills=[
            describe_skill(compared.coin, compared.document, compared.policy)
            for compared in after.coins.values()
        ],
        headline=_format_headline(failures),
        summary=_summarize(after),
    )


def _label_by_number(side: ComparedRelease) -> ComparedRelease:
    return replace(side, label=f"release {side.release} ({side.line})")


def _capitalize(text: str) -> str:
    """With a capital if it begins with "release"; the name of a line stays as it is."""
    return text[0].upper() + text[1:] if text.startswith("release ") else text


def _answer(failure: KnownFailure, after: ComparedRelease, before: ComparedRelease | None) -> FailureResult:
    checks_after, checks_before = (
        _check_failure(failure, after),
        _check_failure(failure, before) if before else [],
    )
    failed = [check for check in checks_after if check.verdict == Verdict.FAILED]
    not_passed = [check for check in checks_after if check.verdict != Verdict.PASSED]
    failed_before = [check.coin for check in checks_before if check.verdict == Verdict.FAILED]
    if failed:
        sentence = (
            f"{after.label} fails {_name_gate(failure)} for {_join_coins(failed)}. {failed[0].sentence}"
        )
        return FailureResult(failure, checks_before, checks_after, Answer.NOT_FIXED, _capitalize(sentence))
    if not_passed or not checks_after:
        return FailureResult(
            failure,
            checks_before,
            checks_after,
            Answer.NOT_KNOWN,
            _explain_not_known(failure, after, not_passed),
        )
    passes = f"{after.label} passes {_name_gate(failure)} for every coin"
    if failed_before and before:
        sentence = f"{before.label} failed {_name_gate(failure)} for {_join(failed_before)}; {passes}."
        return FailureResult(failure, checks_before, checks_after, Answer.FIXED, _capitalize(sentence))
    sentence = f"{passes}; {_explain_not_seen(failure, before, checks_before)}"
    return FailureResult(failure, checks_before, checks_after, Answer.HOLDS, _capitalize(sentence))


def _check_failure(failure: KnownFailure, side: ComparedRelease) -> list[FailureCheck]:
    return [_check_coin(failure, compared) for compared in side.coins.values()]


def _check_coin(failure: KnownFailure, compared: ComparedCoin) -> FailureCheck:
    outcome = compared.outcomes.get(failure.gate)
    if outcome is None:
        return FailureCheck(compared.coin, "not measured", None, f"{compared.coin} was not measured.")
    figure = failure.figure(MeasurementReader(compared.document)) or outcome.observed
    return FailureCheck(compared.coin, figure, outcome.verdict, outcome.sentence)


def _explain_not_known(
    failure: KnownFailure, after: ComparedRelease, not_passed: Sequence[FailureCheck]
) -> str:
    if not not_passed:
        return _capitalize(f"{after.label} has no coin.")
    return f"{_name_gate(failure).capitalize()} is inconclusive for {_join_coins(not_passed)}. {not_passed[0].sentence}"


def _explain_not_seen(
    failure: KnownFailure, before: ComparedRelease | None, checks_before: Sequence[FailureCheck]
) -> str:
    if before is None:
        return "there is no earlier release to compare it with."
    if checks_before and all(check.verdict == Verdict.PASSED for check in checks_before):
        return f"{before.label} passed it too, as its files are measured here."
    return f"{before.label} was not measured to the end."


def _build_rows(after: ComparedRelease, before: ComparedRelease | None) -> list[GateRow]:
    """Every gate that judged either release; those that `after` did not pass come first."""
    sides = [after, *([before] if before else [])]
    judged_gates = {gate for side in sides for compared in side.coins.values() for gate in compared.outcomes}
    ordered = [*(gate for gate in GATES if gate in judged_gates), *sorted(judged_gates - set(GATES))]
    rows = [_build_row(gate, after, before) for gate in ordered]
    return sorted(rows, key=lambda row: (not row.is_problem, not row.is_required))


def _build_row(gate: str, after: ComparedRelease, before: ComparedRelease | None) -> GateRow:
    coins = list(dict.fromkeys([*after.coins, *(before.coins if before else ())]))
    cells = [
        Cell(coin, before.get_outcome(coin, gate) if before else None, after.get_outcome(coin, gate))
        for coin in coins
    ]
    first = next(outcome for cell in cells for outcome in (cell.after, cell.before) if outcome is not None)
    known = GATES.get(gate)
    about = known.about if known else ""
    return GateRow(
        gate, about, first.threshold, first.is_required, cells, _describe_change(gate, cells, after, before)
    )


def _describe_change(
    gate: str, cells: Sequence[Cell], after: ComparedRelease, before: ComparedRelease | None
) -> str:
    """One sentence: the result after, and the result before."""
    sentence = _describe_passing(after.label, {cell.coin: cell.after for cell in cells})
    if before is None:
        return _capitalize(f"{sentence}.")
    return _capitalize(
        f"{sentence}; {_describe_passing(before.label, {cell.coin: cell.before for cell in cells})}."
    )


def _describe_passing(name: str, outcomes: Mapping[str, GateOutcome | None]) -> str:
    if not any(outcomes.values()):
        return f"{name} was not judged by it"
    against = [coin for coin, outcome in outcomes.items() if outcome is None or outcome.is_problem]
    if not against:
        return f"{name} passes for every coin"
    return f"{name} does not pass for {_join(against)}"


def _format_headline(answers: Sequence[FailureResult]) -> str:
    """How many of the five failures are fixed, in one sentence."""
    numbers = {
        answer: [str(result.failure.number) for result in answers if result.answer == answer]
        for answer in dict.fromkeys(Answer)
    }
    if len(numbers[Answer.FIXED]) == len(answers):
        return "All five of the V6 failures are fixed."
    phrases = [_PHRASES[answer](some) for answer, some in numbers.items() if some]
    return f"Of the five V6 failures {'; '.join(phrases)}."


_COUNTS = ("none", "one", "two", "three", "four", "all five")


def _count(numbers: Sequence[str], end: str) -> str:
    return f"{_COUNTS[len(numbers)]} {'is' if len(numbers) == 1 else 'are'} {end} ({_join(numbers)})"


_PHRASES: Mapping[Answer, Callable[[Sequence[str]], str]] = {
    Answer.FIXED: lambda numbers: _count(numbers, "fixed"),
    Answer.NOT_FIXED: lambda numbers: _count(numbers, "not fixed"),
    Answer.NOT_KNOWN: lambda numbers: _count(numbers, "not known to be fixed"),
    Answer.HOLDS: lambda numbers: _count(numbers, "passed now and not seen to fail before"),
}


def _summarize(after: ComparedRelease) -> str:
    """Whether the release passes as a whole: fixing the five failures alone does not make a good model."""
    outcomes = after.outcomes
    against = [outcome for outcome in outcomes if outcome.is_problem]
    if after.is_sound:
        return _capitalize(f"{after.label} passes {len(outcomes)} of {len(outcomes)} required gates.")
    if not outcomes:
        return _capitalize(f"{after.label} has not been judged.")
    gates = {gate: _list_failing_coins(after, gate) for gate in _list_required_gates(after)}
    sentence = "; ".join(
        f"{gate.replace('_', ' ')} for {_join(coins)}" for gate, coins in gates.items() if coins
    )
    return _capitalize(
        f"{after.label} passes {len(outcomes) - len(against)} of {len(outcomes)} required gates. Not passed: {sentence}."
    )


def _list_required_gates(side: ComparedRelease) -> list[str]:
    return list(dict.fromkeys(g for j in side.coins.values() for g, w in j.outcomes.items() if w.is_required))


def _list_failing_coins(side: ComparedRelease, gate: str) -> list[str]:
    return [
        coin
        for coin in side.coins
        if (outcome := side.get_outcome(coin, gate)) is not None and outcome.is_problem
    ]


def _name_gate(failure: KnownFailure) -> str:
    return failure.gate.replace("_", " ")


def _join_coins(checks: Sequence[FailureCheck]) -> str:
    return _join([check.coin for check in checks])


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
