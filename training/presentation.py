"""Datasets, runs and bundles as text for a terminal. Each function takes the document of the API's serializer."""

from typing import Any

from mlcore.bundle.format import SCALER_FILE
from mlcore.verdict import Verdict


def format_dataset(document: dict[str, Any]) -> str:
    """Content, digest, verdict, and each check that did not pass."""
    simulated = "; simulated" if document["is_simulated"] else ""
    lines = [document["verdict"], *map(_format_check, _failed_checks(document))]
    if document["withdrawn_at"]:
        lines.insert(0, f"withdrawn by {document['withdrawn_by']}: {document['withdrawn_reason']}")
    return (
        f"Dataset {document['id']}: {document['rows']:,} bars of {document['coin']}"
        f" from {document['first_at']} to {document['last_at']}, one in {document['interval_seconds']} s;"
        f" {document['gaps']} gaps ({document['missing_bars']} bars missing),"
        f" {document['zero_volume_bars']} bars without volume{simulated}\n{document['digest']}\n"
        + "\n  ".join(lines)
    )


def is_refused(document: dict[str, Any]) -> bool:
    """Whether this dataset was stored, but did not pass its checks."""
    return bool(document["verdict"] != Verdict.PASSED)


def _failed_checks(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in document["checks"] if row["verdict"] != Verdict.PASSED]


def _format_check(row: dict[str, Any]) -> str:
    return (
        f"{row['check']} {row['verdict']}: {row['observed']}, required {row['threshold']}. {row['sentence']}"
    )


def format_bundle(document: dict[str, Any]) -> str:
    """Coin, recipe, scaler, origin and digest."""
    scaler = "with a scaler" if SCALER_FILE in document["files"] else "without a scaler"
    simulated = "; simulated" if document["is_simulated"] else ""
    title = f"Bundle of {document['coin']} {document['line']}, {scaler}{simulated}"
    return f"{title}; {document['origin']}\n{document['digest']}"


def format_run(document: dict[str, Any]) -> str:
    """How the run ended, what it cost, and its best epoch."""
    cost = (
        f"{document['billed_seconds']:.1f} s on {document['device'] or 'no device'}, ${document['spent_usd']}"
    )
    if document["failure"]:
        return f"Run {document['id']} {document['state']}: {document['failure']} ({cost})"
    return (
        f"Run {document['id']} {document['state']} after {document['epochs_done']} epochs ({cost}); best epoch"
        f" {document['best_epoch']}, validation accuracy {document['best_validation_accuracy']:.4f}"
        f"\nbundle {document['bundle']}"
    )
