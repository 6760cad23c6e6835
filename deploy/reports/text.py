"""A report as a terminal shows it."""

import textwrap
from collections.abc import Iterator, Sequence

from deploy.reports.comparison import Comparison, FailureAnswer, GateRow, Trial
from gates.catalogue.gate import GateOutcome
from mlcore.verdict import Verdict

WIDTH = 110


def words(found: Comparison) -> str:
    """The answer first, then what each coin knows, then what stands against it; passed gates by name alone."""
    against = f" against {found.before.name}" if found.before else ""
    weak = found.weaker_than_baseline
    parts = [
        [f"{found.after.name}{against}", found.headline, found.standing],
        *([[f"WEAKER THAN THE BASELINE: {sentence}" for sentence in weak]] if weak else []),
        *(list(_failure(answer)) for answer in found.failures),
        ["What it knows of the market", *(f"  {skill.sentence}" for skill in found.skills)],
        ["Gate by gate", *(line for row in found.gates for line in _row(row))],
    ]
    return "\n\n".join("\n".join(_wrapped(line) for line in part) for part in parts)


def _failure(found: FailureAnswer) -> Iterator[str]:
    yield f"{found.failure.number}. {found.failure.name}: {found.answer} ({found.failure.gate})"
    yield f"   counts: {found.failure.measure}"
    yield f"   before: {_trials(found.before)}"
    yield f"   now:    {_trials(found.after)}"


def _trials(trials: Sequence[Trial]) -> str:
    return ", ".join(f"{trial.coin} {_sign(trial.verdict)} {trial.figure}" for trial in trials) or "nothing"


def _row(row: GateRow) -> Iterator[str]:
    advisory = "" if row.is_required else " (advisory)"
    yield f"  {row.gate}{advisory}: {row.sentence}"
    for cell in row.cells:
        if cell.after is not None and cell.after.is_against:
            yield f"      {cell.coin} {_observed(cell.after)}; was {_observed(cell.before)}"


def _observed(outcome: GateOutcome | None) -> str:
    return "not judged" if outcome is None else f"{_sign(outcome.verdict)} {outcome.observed}"


def _sign(verdict: str | None) -> str:
    return Verdict(verdict).sign if verdict else "?"


def _wrapped(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, WIDTH, subsequent_indent=indent)
