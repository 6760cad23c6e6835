"""The answer of every command that stores or withdraws candles."""

from abc import abstractmethod
from typing import Any

from accounts.commands import ActingCommand
from common.commands import serialize
from mlcore.verdict import Verdict
from training.api.datasets import Datasets
from training.services.datasets import StoredDataset


class DatasetCommand(ActingCommand):
    """Stores one dataset and prints it; exit status 1 when it did not pass its checks."""

    @abstractmethod
    def store(self, options: dict[str, Any]) -> StoredDataset:
        """Call the service that stores the dataset."""

    def answer(self, **options: Any) -> dict[str, Any]:
        kept = self.store(options)
        return {**serialize(Datasets.Output, kept.dataset), "is_new": kept.is_new}

    def format_answer(self, answer: dict[str, Any]) -> str:
        known = (
            "" if answer.get("is_new", True) else "These candles were stored before, and nothing was added.\n"
        )
        return known + format_dataset(answer)

    def is_failure(self, answer: dict[str, Any]) -> bool:
        return bool(answer["verdict"] != Verdict.PASSED)


def format_dataset(document: dict[str, Any]) -> str:
    """Content, digest, what was done with the file, verdict, and each check that did not pass."""
    simulated = "; simulated" if document["is_simulated"] else ""
    failed = [
        f"{row['check']} {row['verdict']}: {row['observed']}, required {row['threshold']}. {row['sentence']}"
        for row in document["checks"]
        if row["verdict"] != Verdict.PASSED
    ]
    lines = [document["verdict"], *failed]
    if document.get("withdrawn_at"):
        lines.insert(0, f"withdrawn by {document['withdrawn_by']}: {document['withdrawn_reason']}")
    name = f"Dataset {document['id']}" if "id" in document else _name_preview(document)
    return (
        f"{name}: {document['rows']:,} bars of {document['coin']}"
        f" from {document['first_at']} to {document['last_at']}, one in {document['interval_seconds']} s;"
        f" {document['gaps']} gaps ({document['missing_bars']} bars missing),"
        f" {document['zero_volume_bars']} bars without volume{simulated}\n{document['digest']}\n"
        + "".join(f"{line}\n" for line in _list_report(document["import_report"]))
        + "\n  ".join(lines)
    )


def _name_preview(document: dict[str, Any]) -> str:
    stored = (
        f"these candles are dataset {document['dataset']}" if document["dataset"] else "nothing was stored"
    )
    return f"Checked only, {stored}"


def _list_report(report: dict[str, Any] | None) -> list[str]:
    """What was done with the file, a line for each."""
    return (
        [f"{report['format']}, {report['layout']}", *(f"  {note}" for note in report["notes"])]
        if report
        else []
    )
