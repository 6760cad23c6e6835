"""The answer of every command that brings in candles."""

from typing import Any

from accounts.commands import ActingCommand
from common.commands import serialize
from training.api.datasets import Datasets
from training.models import Dataset
from training.presentation import format_dataset, is_refused


class DatasetCommand(ActingCommand):
    """Stores one dataset and prints it; exit status 1 when it did not pass its checks."""

    def store(self, options: dict[str, Any]) -> Dataset:
        raise NotImplementedError

    def answer(self, **options: Any) -> dict[str, Any]:
        return serialize(Datasets.Output, self.store(options))

    def format_answer(self, answer: dict[str, Any]) -> str:
        return format_dataset(answer)

    def is_failure(self, answer: dict[str, Any]) -> bool:
        return is_refused(answer)
