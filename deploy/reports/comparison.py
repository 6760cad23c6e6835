"""Compares two releases, from their measurements and gate outcomes. Plain values; no ORM, clock or I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from deploy.reports.failures import FAILURES, KnownFailure
from deploy.reports.skill import Skill, describe_skill
from deploy.rules import ReleaseState
from gates.catalogue.gate import GateOutcome
from gates.catalogue.measurement_reader import MeasurementReader
from gates.catalogue.registry import GATES
from gates.policy_changes import weaker_than_baseline
from mlcore.quality.result import format_interval
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
    interval_seconds: int
    is_simulated: bool
    launched_by: str
    launched_at: str
    coins: Mapping[str, ComparedCoin]
    is_numbered: bool = False
    """Whether sentences name it by its number, because the other release is of the same line."""

    @property
    def terms(self) -> str:
        """What its models see and predict, as it was measured; empty before the first measurement."""
        labels = [coin.document.get("label") for coin in self.compared_coins]
        texts = [
            f"{label.get('text')}, from {label.get('input')}, split {' / '.join(map(str, label['shares']))} %"
            for label in labels
            if isinstance(label, Mapping) and isinstance(label.get("shares"), list)
        ]
        return "; ".join(dict.fromkeys(texts))

    @property
    def is_final(self) -> bool:
        """Whether it has ended: no further result will come."""
        return self.state != ReleaseState.BUILDING

    @property
    def label(self) -> str:
        """Its name in sentences."""
        return f"release {self.release} ({self.line})" if self.is_numbered else self.line

    @property
    def name(self) -> str:
        return f"{self.line} (release {self.release})"

    @property
    def compared_coins(self) -> list[ComparedCoin]:
        return list(self.coins.values())


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
    def problem_coins(self) -> list[str]:
        return [cell.coin for cell in self.cells if cell.after is not None and cell.after.is_problem]

    @property
    def is_problem(self) -> bool:
        return bool(self.problem_coins)

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
        found = [weaker_than_baseline(coin.policy) for coin in self.after.compared_coins if coin.policy]
        return list(dict.fromkeys(sentence for sentences in found for sentence in sentences))

    @property
    def warnings(self) -> list[str]:
        """Why the figures of the two cannot be compared; empty where they can."""
        if self.before is None:
            return []
        found = []
        if self.before.is_simulated != self.after.is_simulated:
            found.append("One release was measured on simulated candles and the other on real ones.")
        own, other = (format_interval(side.interval_seconds) for side in (self.after, self.before))
        if own != other:
            found.append(f"{self.after.name} has bars of {own}, and {self.before.name} bars of {other}.")
        labels = [side.terms.partition(",")[0] for side in (self.after, self.before)]
        if all(labels) and labels[0] != labels[1]:
            found.append(f"{self.after.name} predicts {labels[0]}, and {self.before.name} {labels[1]}.")
        return [f"{sentence} Their figures cannot be compared." for sentence in found]


def compare(after: ComparedRelease, before: ComparedRelease | None) -> Comparison:
    """Compare `after` with `before`, coin by coin and gate by gate; `after` by itself where there is no other."""
    if before is not None and before.line == after.line:
        after, before = replace(after, is_numbered=True), replace(before, is_numbered=True)
    failures = [_answer(failure, after, before) for failure in FAILURES]
    gates = _build_rows(after, before)
    skills = [describe_skill(coin.coin, coin.document, coin.policy) for coin in after.compared_coins]
    return Comparison(
        after, before, failures, gates, skills, _format_headline(failures), _summarize(after, gates)
    )


def _answer(failure: KnownFailure, after: ComparedRelease, before: ComparedRelease | None) -> FailureResult:
    now = [_check_failure(failure, coin) for coin in after.compared_coins]
    earlier = [_check_failure(failure, coin) for coin in before.compared_coins] if before else []
    not_passed = [check for check in now if check.verdict != Verdict.PASSED]
    failed = [check for check in not_passed if check.verdict == Verdict.FAILED]
    failed_earlier = [check.coin for check in earlier if check.verdict == Verdict.FAILED]
    gate = failure.gate.replace("_", " ")
    passes = f"{after.label} passes {gate} for every coin"
    if failed:
        answer = Answer.NOT_FIXED
        sentence = f"{after.label} fails {gate} for {_join_coins(failed)}. {failed[0].sentence}"
    elif not_passed:
        answer = Answer.NOT_KNOWN
        coins = _join_coins(not_passed)
        sentence = f"{gate.capitalize()} is inconclusive for {coins}. {not_passed[0].sentence}"
    elif not now:
        answer, sentence = Answer.NOT_KNOWN, f"{after.label} has no coin."
    elif before is None:
        answer = Answer.HOLDS
        sentence = f"{passes}; there is no earlier release to compare it with."
    elif failed_earlier:
        answer = Answer.FIXED
        sentence = f"{before.label} failed {gate} for {_join(failed_earlier)}; {passes}."
    elif earlier and all(check.verdict == Verdict.PASSED for check in earlier):
        answer = Answer.HOLDS
        sentence = f"{passes}; {before.label} passed it too, as its files are measured here."
    else:
        answer, sentence = Answer.HOLDS, f"{passes}; {before.label} was not measured to the end."
    return FailureResult(failure, earlier, now, answer, _capitalize(sentence))


def _check_failure(failure: KnownFailure, compared: ComparedCoin) -> FailureCheck:
    outcome = compared.outcomes.get(failure.gate)
    if outcome is None:
        return FailureCheck(compared.coin, "not measured", None, f"{compared.coin} was not measured.")
    figure = failure.figure(MeasurementReader(compared.document)) or outcome.observed
    return FailureCheck(compared.coin, figure, outcome.verdict, outcome.sentence)


def _build_rows(after: ComparedRelease, before: ComparedRelease | None) -> list[GateRow]:
    """Every gate that judged either release; those that `after` did not pass come first."""
    sides = [side for side in (after, before) if side]
    judged_gates = {gate for side in sides for coin in side.compared_coins for gate in coin.outcomes}
    ordered = [*(gate for gate in GATES if gate in judged_gates), *sorted(judged_gates - set(GATES))]
    rows = [_build_row(gate, after, before) for gate in ordered]
    return sorted(rows, key=lambda row: (not row.is_problem, not row.is_required))


def _build_row(gate: str, after: ComparedRelease, before: ComparedRelease | None) -> GateRow:
    coins = list(dict.fromkeys([*after.coins, *(before.coins if before else ())]))
    now, earlier = _list_outcomes(after, gate, coins), _list_outcomes(before, gate, coins)
    first = next(filter(None, [*now.values(), *earlier.values()]))
    sentence = _describe_passing(after.label, now)
    if before:
        sentence += f"; {_describe_passing(before.label, earlier)}"
    return GateRow(
        gate=gate,
        about=GATES[gate].about if gate in GATES else "",
        threshold=first.threshold,
        is_required=first.is_required,
        cells=[Cell(coin, earlier[coin], now[coin]) for coin in coins],
        sentence=_capitalize(f"{sentence}."),
    )


def _list_outcomes(
    side: ComparedRelease | None, gate: str, coins: Sequence[str]
) -> dict[str, GateOutcome | None]:
    held = side.coins if side else {}
    return {coin: held[coin].outcomes.get(gate) if coin in held else None for coin in coins}


def _describe_passing(name: str, outcomes: Mapping[str, GateOutcome | None]) -> str:
    if not any(outcomes.values()):
        return f"{name} was not judged by it"
    against = [coin for coin, outcome in outcomes.items() if outcome is None or outcome.is_problem]
    return f"{name} does not pass for {_join(against)}" if against else f"{name} passes for every coin"


_COUNTS = ("none", "one", "two", "three", "four", "all five")
_ENDINGS = {
    Answer.FIXED: "fixed",
    Answer.NOT_FIXED: "not fixed",
    Answer.NOT_KNOWN: "not known to be fixed",
    Answer.HOLDS: "passed now and not seen to fail before",
}


def _format_headline(results: Sequence[FailureResult]) -> str:
    """How many of the five failures are fixed, in one sentence."""
    if all(result.answer == Answer.FIXED for result in results):
        return "All five of the V6 failures are fixed."
    phrases = []
    for answer, ending in _ENDINGS.items():
        if numbers := [str(result.failure.number) for result in results if result.answer == answer]:
            verb = "is" if len(numbers) == 1 else "are"
            phrases.append(f"{_COUNTS[len(numbers)]} {verb} {ending} ({_join(numbers)})")
    return f"Of the five V6 failures {'; '.join(phrases)}."


def _summarize(after: ComparedRelease, gates: Sequence[GateRow]) -> str:
    """Whether the release passes as a whole: fixing the five failures alone does not make a good model."""
    outcomes = [o for coin in after.compared_coins for o in coin.outcomes.values() if o.is_required]
    if not outcomes:
        return _capitalize(f"{after.label} has not been judged.")
    passed = sum(not outcome.is_problem for outcome in outcomes)
    sentence = f"{after.label} passes {passed} of {len(outcomes)} required gates."
    against = [row for row in gates if row.is_required and row.is_problem]
    if names := [f"{row.gate.replace('_', ' ')} for {_join(row.problem_coins)}" for row in against]:
        sentence += f" Not passed: {'; '.join(names)}."
    if unjudged := [coin.coin for coin in after.compared_coins if not coin.outcomes]:
        sentence += f" Not judged: {_join(unjudged)}."
    return _capitalize(sentence)


def _capitalize(text: str) -> str:
    """With a capital if it begins with "release"; the name of a line stays as it is."""
    return text[0].upper() + text[1:] if text.startswith("release ") else text


def _join_coins(checks: Sequence[FailureCheck]) -> str:
    return _join([check.coin for check in checks])


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
