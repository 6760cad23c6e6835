"""A report as a document, for programs: what the page says, without its pictures."""

from typing import Any

from deploy.reports.comparison import Cell, Comparison, FailureAnswer, GateRow, Side, Trial
from deploy.reports.skill import Interval, Skill
from gates.catalogue.gate import GateOutcome


def document(found: Comparison) -> dict[str, Any]:
    return {
        "release": _side(found.after),
        "against": _side(found.before) if found.before else None,
        "headline": found.headline,
        "standing": found.standing,
        "weaker_than_baseline": found.weaker_than_baseline,
        "failures": [_failure(answer) for answer in found.failures],
        "skill": [_skill(skill) for skill in found.skills],
        "gates": [_row(row) for row in found.gates],
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "release": side.release,
        "line": side.line,
        "state": side.state,
        "policy": side.policy,
        "is_simulated": side.is_simulated,
        "launched_by": side.launched_by,
        "launched_at": side.launched_at,
        "coins": [
            {
                "coin": judged.coin,
                "verdict": judged.verdict,
                "diagnosis": judged.diagnosis,
                "bundle": judged.bundle,
            }
            for judged in side.coins.values()
        ],
    }


def _failure(found: FailureAnswer) -> dict[str, Any]:
    return {
        "number": found.failure.number,
        "name": found.failure.name,
        "plan": found.failure.plan,
        "gate": found.failure.gate,
        "measure": found.failure.measure,
        "before": [_trial(trial) for trial in found.before],
        "after": [_trial(trial) for trial in found.after],
        "answer": found.answer.value.replace(" ", "_"),
        "sentence": found.sentence,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "coin": trial.coin,
        "figure": trial.figure,
        "verdict": trial.verdict,
        "sentence": trial.sentence,
    }


def _skill(skill: Skill) -> dict[str, Any]:
    return {
        "coin": skill.coin,
        "rows": skill.rows,
        "accuracy": _interval(skill.accuracy),
        "required": skill.required,
        "naive": skill.naive,
        "naive_accuracy": skill.naive_accuracy,
        "difference": _interval(skill.difference),
        "baseline": _interval(skill.baseline),
        "is_baseline": skill.is_baseline,
        "sentence": skill.sentence,
    }


def _interval(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else {"point": found.point, "lower": found.lower, "upper": found.upper}


def _row(row: GateRow) -> dict[str, Any]:
    return {
        "gate": row.gate,
        "about": row.about,
        "threshold": row.threshold,
        "is_required": row.is_required,
        "sentence": row.sentence,
        "coins": [_cell(cell) for cell in row.cells],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {"coin": cell.coin, "before": _outcome(cell.before), "after": _outcome(cell.after)}


def _outcome(outcome: GateOutcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {
        "verdict": outcome.verdict,
        "figure": outcome.figure,
        "observed": outcome.observed,
        "threshold": outcome.threshold,
        "sentence": outcome.sentence,
    }
