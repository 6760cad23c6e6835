from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from common.commands import serialize
from common.errors import InvalidInput
from training.api.datasets import CheckUpload
from training.management.datasets import DatasetCommand
from training.models import Dataset
from training.services import coins, datasets


class Command(DatasetCommand):
    help = "Import a coin's candles from a file of any usual format and check them; exits 1 when they fail."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("coin")
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--check", action="store_true", help="say what would be stored, and store nothing"
        )

    def answer(self, **options: Any) -> dict[str, Any]:
        if not options["check"]:
            return super().answer(**options)
        coin = coins.find_coin(options["coin"])
        path: Path = options["file"]
        preview = datasets.preview_import(coin, _read(path), name=path.name, actor=self.actor(options))
        return serialize(CheckUpload.Output, preview)

    def store(self, options: dict[str, Any]) -> Dataset:
        path: Path = options["file"]
        coin = coins.find_coin(options["coin"])
        return datasets.import_candles(coin, _read(path), name=path.name, actor=self.actor(options)).dataset


def _read(path: Path) -> bytes:
    try:
        if not path.is_file() and path.exists():  # a pipe or a device may have no end
            raise InvalidInput(f"{path} is not a file.", field="file")
        datasets.require_importable_size(path.stat().st_size, path.name)
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.", field="file") from error
