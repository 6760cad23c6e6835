from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from common.errors import InvalidInput
from training.management.datasets import DatasetCommand
from training.models import Dataset
from training.services import coins, datasets


class Command(DatasetCommand):
    help = "Import a coin's candles from a file of any usual format and check them; exits 1 when they fail."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("coin")
        parser.add_argument("file", type=Path)

    def store(self, options: dict[str, Any]) -> Dataset:
        path: Path = options["file"]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror}.", field="file") from error
        coin = coins.find_coin(options["coin"])
        return datasets.import_candles(coin, data, name=path.name, actor=self.actor(options)).dataset
