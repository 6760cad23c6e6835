from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.errors import InvalidInput
from training import services
from training.presentation import dataset_document, dataset_sentence, is_refused


class Command(ActingCommand):
    help = "Import a coin's candles from a CSV, CSV.gz or Parquet file, and judge them; exits 1 when they do not pass."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("coin")
        parser.add_argument("file", type=Path)

    def answer(self, **options: Any) -> dict[str, Any]:
        path: Path = options["file"]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror}.", field="file") from error
        kept = services.import_candles(
            services.find_coin(options["coin"]), data, name=path.name, actor=self.actor(options)
        )
        return dataset_document(kept.dataset)

    def say(self, answer: dict[str, Any]) -> str:
        return dataset_sentence(answer)

    def failed(self, answer: dict[str, Any]) -> bool:
        return is_refused(answer)
