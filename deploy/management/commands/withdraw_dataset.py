from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.commands import serialize
from deploy.releases.withdraw_dataset import withdraw_dataset
from training.api.datasets import Datasets
from training.management.datasets import format_dataset
from training.services.candle_checks import list_datasets_refused_for
from training.services.datasets import find_dataset


class Command(ActingCommand):
    help = "Withdraw a dataset that was stored wrongly: it judges no others, and nothing that is released trains on it."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("dataset", type=int, help="the dataset's number")
        parser.add_argument("--reason", required=True, help="recorded in the audit history")

    def answer(self, **options: Any) -> dict[str, Any]:
        dataset = withdraw_dataset(
            find_dataset(options["dataset"]), actor=self.actor(options), reason=options["reason"]
        )
        refused = [other.pk for other in list_datasets_refused_for(dataset)]
        return {**serialize(Datasets.Output, dataset), "refused_datasets": refused}

    def format_answer(self, answer: dict[str, Any]) -> str:
        told = [
            f"dataset {pk} was refused beside it: withdraw it too and import its file again, to have it judged again"
            for pk in answer["refused_datasets"]
        ]
        return "\n".join([format_dataset(answer), *told])
