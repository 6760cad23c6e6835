"""From what was measured and said of two releases to a report. Plain values; no ORM, clock or I/O."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from deploy.reports.failures import FAILURES, KnownFailure
from deploy.reports.skill import Skill, skill_of
from gates.catalogue.gate import GateOutcome
from gates.catalogue.measurement_reader import MeasurementReader
from gates.catalogue.registry import GATES
from gates.policy_changes import weaker_than_baseline
from mlcore.verdict import Verdict


@dataclass(frozen=True)
class Judged:
    """One coin of a release: what was measured of it, and every gate's outcome."""

    coin: str
    document: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    outcomes: Mapping[str, GateOutcome] = field(default_factory=dict)
    verdict: str | None = None
    diagnosis: int | None = None
    bundle: str | None = None


@dataclass(frozen=True)
class Side:
    """One release of the two."""

    release: int
    line: str
    state: str
    policy: int
    is_simulated: bool
    launched_by: str
    launched_at: str
    coins: Mapping[str, Judged]
    called: str = ""
    """What sentences call it: its line alone, unless the other is of that line too."""

    def __post_init__(self) -> None:
        if not self.called:
            object.__setattr__(self, "called", self.line)

    @property
    def name(self) -> str:
        return f"{self.line} (release {self.release})"

    def get_outcome(self, coin: str, gate: str) -> GateOutcome | None:
        judged = self.coins.get(coin)
        return judged.outcomes.get(gate) if judged else None

    @property
    def outcomes(self) -> list[GateOutcome]:
        """Those of the required gates."""
        return [o for judged in self.coins.values() for o in judged.outcomes.values() if o.is_required]

    @property
    def is_sound(self) -> bool:
        """Whether every coin passed every required gate."""
        return bool(self.coins) and all(judged.verdict == Verdict.PASSED for judged in self.coins.values())


class Answer(StrEnum):
    """What became of a failure."""

    FIXED = "fixed"
    NOT_FIXED = "not fixed"
    NOT_KNOWN = "not known"
    HOLDS = "holds"  # it passes, and what it is compared with was not seen to fail


@dataclass(frozen=True)
class Trial:
    """One failure looked for in one coin of one release: the figure, and the gate's outcome."""

    coin: str
    figure: str
    verdict: str | None
    sentence: str


@dataclass(frozen=True)
class FailureAnswer:
    failure: KnownFailure
    before: Sequence[Trial]
    after: Sequence[Trial]
    answer: Answer
    sentence: str


@dataclass(frozen=True)
class Cell:
    """One gate's two outcomes for one coin."""

    coin: str
    before: GateOutcome | None
    after: GateOutcome | None

    @property
    def is_the_same(self) -> bool:
        """Whether there is nothing to tell of before: the same verdict and figures as after."""
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
    def is_against(self) -> bool:
        return any(cell.after is not None and cell.after.is_against for cell in self.cells)

    @property
    def is_unchanged(self) -> bool:
        """Whether both passed for every coin: there is little to tell."""
        return all(
            outcome is not None and not outcome.is_against
            for cell in self.cells
            for outcome in (cell.before, cell.after)
        )


@dataclass(frozen=True)
class Comparison:
    """The report: one release, what it is held against, and what came of it."""

    after: Side
    before: Side | None
    failures: Sequence[FailureAnswer]
    gates: Sequence[GateRow]
    skills: Sequence[Skill]
    headline: str
    standing: str

    @property
    def coins(self) -> list[str]:
        return list(self.after.coins)

    @property
    def told(self) -> list[GateRow]:
        """The gates that tell the two apart, or stand against either."""
        return [row for row in self.gates if not row.is_unchanged]

    @property
    def unchanged(self) -> list[GateRow]:
        """The gates that both pass for every coin."""
        return [row for row in self.gates if row.is_unchanged]

    @property
    def weaker_than_baseline(self) -> list[str]:
        """Where the policy that the release was judged by requires less than the baseline."""
        policies = [judged.policy for judged in self.after.coins.values() if judged.policy]
        return list(
            dict.fromkeys(sentence for policy in policies for sentence in weaker_than_baseline(policy))
        )


def compare(after: Side, before: Side | None) -> Comparison:
    """Coin by coin, gate by gate: `after` against `before`, or by itself where there is nothing to hold it against."""
    if before is not None and before.line == after.line:
        after, before = _numbered(after), _numbered(before)
    failures = [_answered(failure, after, before) for failure in FAILURES]
    return Comparison(
        after=after,
        before=before,
        failures=failures,
        gates=_rows(after, before),
        skills=[skill_of(judged.coin, judged.document, judged.policy) for judged in after.coins.values()],
        headline=_headline(failures),
        standing=_standing(after),
    )


def _numbered(side: Side) -> Side:
    return replace(side, called=f"release {side.release} ({side.line})")


def _sentence(text: str) -> str:
    """With a capital where a release begins it; a line is a name, and stays as it is."""
    return text[0].upper() + text[1:] if text.startswith("release ") else text


def _answered(failure: KnownFailure, after: Side, before: Side | None) -> FailureAnswer:
    now, then = _trials(failure, after), _trials(failure, before) if before else []
    failed = [trial for trial in now if trial.verdict == Verdict.FAILED]
    open_ = [trial for trial in now if trial.verdict != Verdict.PASSED]
    was = [trial.coin for trial in then if trial.verdict == Verdict.FAILED]
    if failed:
        says = f"{after.called} fails {_gate(failure)} for {_listed(failed)}. {failed[0].sentence}"
        return FailureAnswer(failure, then, now, Answer.NOT_FIXED, _sentence(says))
    if open_ or not now:
        return FailureAnswer(failure, then, now, Answer.NOT_KNOWN, _not_known(failure, after, open_))
    passes = f"{after.called} passes {_gate(failure)} for every coin"
    if was and before:
        says = f"{before.called} failed {_gate(failure)} for {_and(was)}; {passes}."
        return FailureAnswer(failure, then, now, Answer.FIXED, _sentence(says))
    says = f"{passes}; {_not_seen(failure, before, then)}"
    return FailureAnswer(failure, then, now, Answer.HOLDS, _sentence(says))


def _trials(failure: KnownFailure, side: Side) -> list[Trial]:
    return [_trial(failure, judged) for judged in side.coins.values()]


def _trial(failure: KnownFailure, judged: Judged) -> Trial:
    outcome = judged.outcomes.get(failure.gate)
    if outcome is None:
        return Trial(judged.coin, "not measured", None, f"{judged.coin} was not measured.")
    figure = failure.figure(MeasurementReader(judged.document)) or outcome.observed
    return Trial(judged.coin, figure, outcome.verdict, outcome.sentence)


def _not_known(failure: KnownFailure, after: Side, open_: Sequence[Trial]) -> str:
    if not open_:
        return _sentence(f"{after.called} holds no coin.")
    return f"{_gate(failure).capitalize()} does not tell for {_listed(open_)}. {open_[0].sentence}"


def _not_seen(failure: KnownFailure, before: Side | None, then: Sequence[Trial]) -> str:
    if before is None:
        return "there is no release before it to hold it against."
    if then and all(trial.verdict == Verdict.PASSED for trial in then):
        return f"{before.called}, as its files are measured here, passed it too."
    return f"whether {before.called} failed it was not measured to the end."


def _rows(after: Side, before: Side | None) -> list[GateRow]:
    """Every gate that spoke of either; those that stand against the release first, then in the order of the gates."""
    sides = [after, *([before] if before else [])]
    spoken = {gate for side in sides for judged in side.coins.values() for gate in judged.outcomes}
    ordered = [*(gate for gate in GATES if gate in spoken), *sorted(spoken - set(GATES))]
    rows = [_row(gate, after, before) for gate in ordered]
    return sorted(rows, key=lambda row: (not row.is_against, not row.is_required))


def _row(gate: str, after: Side, before: Side | None) -> GateRow:
    coins = list(dict.fromkeys([*after.coins, *(before.coins if before else ())]))
    cells = [
        Cell(coin, before.get_outcome(coin, gate) if before else None, after.get_outcome(coin, gate))
        for coin in coins
    ]
    first = next(outcome for cell in cells for outcome in (cell.after, cell.before) if outcome is not None)
    known = GATES.get(gate)
    about = known.about if known else ""
    return GateRow(
        gate, about, first.threshold, first.is_required, cells, _change(gate, cells, after, before)
    )


def _change(gate: str, cells: Sequence[Cell], after: Side, before: Side | None) -> str:
    """One sentence: how the gate stands now, and how it stood before."""
    now = _counted(after.called, {cell.coin: cell.after for cell in cells})
    if before is None:
        return _sentence(f"{now}.")
    return _sentence(f"{now}; {_counted(before.called, {cell.coin: cell.before for cell in cells})}.")


def _counted(name: str, outcomes: Mapping[str, GateOutcome | None]) -> str:
    if not any(outcomes.values()):
        return f"it has not spoken of {name}"
    against = [coin for coin, outcome in outcomes.items() if outcome is None or outcome.is_against]
    if not against:
        return f"{name} passes for every coin"
    return f"{name} does not pass for {_and(against)}"


def _headline(answers: Sequence[FailureAnswer]) -> str:
    """How many of the five are fixed, in one sentence."""
    found = {
        answer: [str(a.failure.number) for a in answers if a.answer == answer]
        for answer in dict.fromkeys(Answer)
    }
    if len(found[Answer.FIXED]) == len(answers):
        return "All five of the V6 failures are fixed."
    says = [_STANDS[answer](numbers) for answer, numbers in found.items() if numbers]
    return f"Of the five V6 failures {'; '.join(says)}."


_COUNTS = ("none", "one", "two", "three", "four", "all five")


def _are(numbers: Sequence[str], end: str) -> str:
    return f"{_COUNTS[len(numbers)]} {'is' if len(numbers) == 1 else 'are'} {end} ({_and(numbers)})"


_STANDS: Mapping[Answer, Callable[[Sequence[str]], str]] = {
    Answer.FIXED: lambda numbers: _are(numbers, "fixed"),
    Answer.NOT_FIXED: lambda numbers: _are(numbers, "not fixed"),
    Answer.NOT_KNOWN: lambda numbers: _are(numbers, "not known to be fixed"),
    Answer.HOLDS: lambda numbers: _are(numbers, "sound now and not seen to fail before"),
}


def _standing(after: Side) -> str:
    """Whether the release passes as a whole: five failures mended do not make a model that is right."""
    outcomes = after.outcomes
    against = [outcome for outcome in outcomes if outcome.is_against]
    if after.is_sound:
        return _sentence(f"{after.called} passes {len(outcomes)} of {len(outcomes)} required gates.")
    if not outcomes:
        return _sentence(f"{after.called} has not been judged.")
    gates = {gate: _failing(after, gate) for gate in _required_gates(after)}
    says = "; ".join(f"{gate.replace('_', ' ')} for {_and(coins)}" for gate, coins in gates.items() if coins)
    return _sentence(
        f"{after.called} passes {len(outcomes) - len(against)} of {len(outcomes)} required gates. Against it: {says}."
    )


def _required_gates(side: Side) -> list[str]:
    return list(dict.fromkeys(g for j in side.coins.values() for g, w in j.outcomes.items() if w.is_required))


def _failing(side: Side, gate: str) -> list[str]:
    return [
        coin
        for coin in side.coins
        if (outcome := side.get_outcome(coin, gate)) is not None and outcome.is_against
    ]


def _gate(failure: KnownFailure) -> str:
    return failure.gate.replace("_", " ")


def _listed(trials: Sequence[Trial]) -> str:
    return _and([trial.coin for trial in trials])


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
