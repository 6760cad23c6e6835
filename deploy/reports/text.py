"""A report as text, for a terminal."""

import textwrap
from collections.abc import Iterator, Sequence

from deploy.reports.comparison import Comparison, FailureCheck, FailureResult, GateRow
from gates.catalogue.gate import GateOutcome
from mlcore.verdict import Verdict

WIDTH = 110


def format_report(comparison: Comparison) -> str:
    """The result first, then failures, skill and gates; details only where a gate did not pass."""
    against = f" against {comparison.before.name}" if comparison.before else ""
    warnings, weak = comparison.warnings, comparison.weaker_than_baseline
    parts = [
        [f"{comparison.after.name}{against}", comparison.headline, comparison.summary],
        *([terms] if (terms := _format_terms(comparison)) else []),
        *([[f"WARNING: {sentence}" for sentence in warnings]] if warnings else []),
        *([[f"WEAKER THAN THE BASELINE: {sentence}" for sentence in weak]] if weak else []),
        *(list(_format_failure(answer)) for answer in comparison.failures),
        ["Skill", *(f"  {skill.sentence}" for skill in comparison.skills)],
        ["Gates", *(line for row in comparison.gates for line in _format_row(row))],
    ]
    return "\n\n".join("\n".join(_wrap(line) for line in part) for part in parts)


def _format_terms(comparison: Comparison) -> list[str]:
    sides = [side for side in (comparison.after, comparison.before) if side is not None and side.terms]
    return [f"{side.name} predicts {side.terms}." for side in sides]


def _format_failure(result: FailureResult) -> Iterator[str]:
    yield f"{result.failure.number}. {result.failure.name}: {result.answer} ({result.failure.gate})"
    yield f"   counts: {result.failure.measure}"
    yield f"   before: {_format_checks(result.before)}"
    yield f"   now:    {_format_checks(result.after)}"


def _format_checks(checks: Sequence[FailureCheck]) -> str:
    return (
        ", ".join(f"{check.coin} {_get_sign(check.verdict)} {check.figure}" for check in checks) or "nothing"
    )


def _format_row(row: GateRow) -> Iterator[str]:
    advisory = "" if row.is_required else " (advisory)"
    yield f"  {row.gate}{advisory}: {row.sentence}"
    for cell in row.cells:
        if cell.after is not None and cell.after.is_problem:
            yield f"      {cell.coin} {_format_outcome(cell.after)}; was {_format_outcome(cell.before)}"


def _format_outcome(outcome: GateOutcome | None) -> str:
    return "not judged" if outcome is None else f"{_get_sign(outcome.verdict)} {outcome.observed}"


def _get_sign(verdict: str | None) -> str:
    return Verdict(verdict).sign if verdict else "?"


def _wrap(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, WIDTH, subsequent_indent=indent)
