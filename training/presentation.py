"""Training's records as documents: what the commands print."""

from typing import Any

from mlcore.bundle.format import SCALER_FILE
from mlcore.verdict import Verdict
from training.models import Bundle, Dataset, TrainingRun
from training.services import checks_of


def dataset_document(dataset: Dataset) -> dict[str, Any]:
    return {
        "id": dataset.pk,
        "coin": dataset.coin.symbol,
        "digest": dataset.digest,
        "source": dataset.source,
        "origin": dataset.origin,
        "simulated": dataset.is_simulated,
        "rows": dataset.rows,
        "first_at": dataset.first_at.isoformat(),
        "last_at": dataset.last_at.isoformat(),
        "interval_seconds": dataset.interval_seconds,
        "gaps": dataset.gaps,
        "missing_bars": dataset.missing_bars,
        "zero_volume_bars": dataset.zero_volume_bars,
        "verdict": dataset.verdict,
        "checks": checks_of(dataset),
        "withdrawn_at": dataset.withdrawn_at.isoformat() if dataset.withdrawn_at else None,
        "withdrawn_by": dataset.withdrawn_by,
        "withdrawn_reason": dataset.withdrawn_reason,
    }


def dataset_sentence(document: dict[str, Any]) -> str:
    """The same for a person."""
    simulated = "; simulated" if document["simulated"] else ""
    judged = [f"{document['verdict'] or 'not judged'}", *map(_check_line, _against(document))]
    if document["withdrawn_at"]:
        judged.insert(0, f"withdrawn by {document['withdrawn_by']}: {document['withdrawn_reason']}")
    return (
        f"Dataset {document['id']}: {document['rows']:,} bars of {document['coin']}"
        f" from {document['first_at']} to {document['last_at']}, one in {document['interval_seconds']} s;"
        f" {document['gaps']} gaps ({document['missing_bars']} bars missing),"
        f" {document['zero_volume_bars']} bars without volume{simulated}\n{document['digest']}\n"
        + "\n  ".join(judged)
    )


def is_refused(document: dict[str, Any]) -> bool:
    """Whether these candles were kept, but will train no release."""
    return bool(document["verdict"] != Verdict.PASSED)


def _against(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in document["checks"] if row["verdict"] != Verdict.PASSED]


def _check_line(row: dict[str, Any]) -> str:
    return (
        f"{row['check']} {row['verdict']}: {row['observed']}, required {row['threshold']}. {row['sentence']}"
    )


def bundle_document(bundle: Bundle) -> dict[str, Any]:
    return {
        "id": bundle.pk,
        "digest": bundle.digest,
        "coin": bundle.coin.symbol,
        "line": bundle.line,
        "origin": bundle.origin,
        "simulated": bundle.is_simulated,
        "files": [artifact.name for artifact in bundle.artifacts.all()],
    }


def bundle_sentence(document: dict[str, Any]) -> str:
    """The same for a person."""
    scaler = "with a scaler" if SCALER_FILE in document["files"] else "without a scaler"
    simulated = "; simulated" if document["simulated"] else ""
    what = f"Bundle of {document['coin']} {document['line']}, {scaler}{simulated}"
    return f"{what}; {document['origin']}\n{document['digest']}"


def run_document(run: TrainingRun) -> dict[str, Any]:
    best = run.epoch_rows.filter(is_best=True).last()
    return {
        "id": run.pk,
        "coin": run.coin.symbol,
        "dataset": run.dataset_id,
        "line": run.line,
        "parameters": run.parameters,
        "seed": run.seed,
        "state": run.state,
        "failure": run.failure,
        "epochs_done": run.epoch_rows.count(),
        "best_epoch": best.number if best else None,
        "validation_accuracy": best.validation_accuracy if best else None,
        "device": run.device,
        "billed_seconds": round(run.billed_seconds, 3),
        "spent_usd": str(run.spent_usd),
        "bundle": run.bundle.digest if run.bundle else None,
    }


def run_sentence(document: dict[str, Any]) -> str:
    """The same for a person."""
    cost = (
        f"{document['billed_seconds']:.1f} s on {document['device'] or 'no device'}, ${document['spent_usd']}"
    )
    if document["failure"]:
        return f"Run {document['id']} {document['state']}: {document['failure']} ({cost})"
    accuracy = document["validation_accuracy"]
    return (
        f"Run {document['id']} {document['state']} after {document['epochs_done']} epochs ({cost});"
        f" best epoch {document['best_epoch']}, validation accuracy {accuracy:.4f}\nbundle {document['bundle']}"
    )
