"""The answer of every command that stores or withdraws candles."""

from abc import abstractmethod
from typing import Any

from accounts.commands import ActingCommand
from common.commands import serialize
from mlcore.verdict import Verdict
from training.api.datasets import Datasets
from training.models import Dataset


class DatasetCommand(ActingCommand):
    """Stores one dataset and prints it; exit status 1 when it did not pass its checks."""

    @abstractmethod
    def store(self, options: dict[str, Any]) -> Dataset:
        """Call the service that stores the dataset."""

    def answer(self, **options: Any) -> dict[str, Any]:
        return serialize(Datasets.Output, self.store(options))

    def format_answer(self, answer: dict[str, Any]) -> str:
        return format_dataset(answer)

    def is_failure(self, answer: dict[str, Any]) -> bool:
        return bool(answer["verdict"] != Verdict.PASSED)


def format_dataset(document: dict[str, Any]) -> str:
    """Content, digest, verdict, and each check that did not pass."""
    simulated = "; simulated" if document["is_simulated"] else ""
    failed = [
        f"{row['check']} {row['verdict']}: {row['observed']}, required {row['threshold']}. {row['sentence']}"
        for row in document["checks"]
        if row["verdict"] != Verdict.PASSED
    ]
    lines = [document["verdict"], *failed]
    if document["withdrawn_at"]:
        lines.insert(0, f"withdrawn by {document['withdrawn_by']}: {document['withdrawn_reason']}")
    return (
        f"Dataset {document['id']}: {document['rows']:,} bars of {document['coin']}"
        f" from {document['first_at']} to {document['last_at']}, one in {document['interval_seconds']} s;"
        f" {document['gaps']} gaps ({document['missing_bars']} bars missing),"
        f" {document['zero_volume_bars']} bars without volume{simulated}\n{document['digest']}\n"
        + "\n  ".join(lines)
    )
