"""A diagnosis as a command prints it."""

from typing import Any

from gates.models import Diagnosis

WORDS = {"passed": "✓ passed", "failed": "✗ failed", "inconclusive": "? inconclusive", "error": "! error"}


def described(diagnosis: Diagnosis) -> dict[str, Any]:
    """For JSON, and for `table`."""
    return {
        "diagnosis": diagnosis.pk,
        "coin": diagnosis.coin.symbol,
        "line": diagnosis.bundle.line,
        "bundle": diagnosis.bundle.digest,
        "dataset": diagnosis.dataset_id,
        "simulated": diagnosis.dataset.is_simulated,
        "policy": diagnosis.policy.number,
        "verdict": diagnosis.verdict,
        "digest": diagnosis.digest,
        "gates": [
            {
                "gate": result.gate,
                "required": result.is_required,
                "verdict": result.verdict,
                "figure": result.figure,
                "observed": result.observed,
                "threshold": result.threshold,
                "sentence": result.sentence,
            }
            for result in diagnosis.results.all()
        ],
    }


def table(diagnosis: dict[str, Any]) -> str:
    """A line a gate, and below it the sentence of each that did not pass."""
    simulated = ", simulated" if diagnosis["simulated"] else ""
    title = (
        f"{diagnosis['coin']} {diagnosis['line']} {diagnosis['bundle'][:19]} on dataset {diagnosis['dataset']}{simulated}, "
        f"policy {diagnosis['policy']}: {diagnosis['verdict'].upper()}"
    )
    rows = [_row(gate) for gate in diagnosis["gates"]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    against = [f"  {gate['sentence']}" for gate in diagnosis["gates"] if gate["verdict"] != "passed"]
    return "\n".join([title, *lines, *against])


def _row(gate: dict[str, Any]) -> tuple[str, str, str, str]:
    name = gate["gate"] + ("" if gate["required"] else " (advisory)")
    return WORDS[gate["verdict"]], name, gate["observed"], gate["threshold"]
