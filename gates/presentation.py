"""A diagnosis as a command prints it: the API's document as a table."""

from collections.abc import Mapping
from typing import Any

from common.formatting import align_columns
from mlcore.verdict import Verdict


def format_table(diagnosis: Mapping[str, Any]) -> str:
    """A line for each gate, and below it the sentence of each that did not pass."""
    simulated = ", simulated" if diagnosis["is_simulated"] else ""
    title = (
        f"{diagnosis['coin']} {diagnosis['line']} {diagnosis['bundle'][:19]} on dataset {diagnosis['dataset']}{simulated}, "
        f"policy {diagnosis['policy']}: {diagnosis['verdict'].upper()}"
    )
    rows = align_columns([_format_row(gate) for gate in diagnosis["gates"]])
    against = [f"  {gate['sentence']}" for gate in diagnosis["gates"] if gate["verdict"] != Verdict.PASSED]
    return "\n".join([title, *rows, *against])


def _format_row(gate: Mapping[str, Any]) -> tuple[str, str, str, str]:
    name = gate["gate"] + ("" if gate["is_required"] else " (advisory)")
    verdict = Verdict(gate["verdict"])
    return f"{verdict.sign} {verdict}", name, gate["observed"], gate["threshold"]
