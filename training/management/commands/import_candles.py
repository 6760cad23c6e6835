from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from common.commands import serialize
from common.errors import InvalidInput
from training.api.datasets import CheckUpload
from training.management.datasets import DatasetCommand
from training.services import coins, datasets


class Command(DatasetCommand):
    help = "Import a coin's candles from a file of any usual format and check them; exits 1 when they fail."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("coin")
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--closing-times", action="store_true", help="its times are closing times: convert them"
        )
        parser.add_argument(
            "--repeated-once",
            action="store_true",
            help="leave out rows that repeat their neighbour value for value",
        )
        parser.add_argument(
            "--check", action="store_true", help="say what would be stored, and store nothing"
        )

    def answer(self, **options: Any) -> dict[str, Any]:
        if not options["check"]:
            return super().answer(**options)
        return serialize(CheckUpload.Output, datasets.preview_import(**self._read_file(options)))

    def store(self, options: dict[str, Any]) -> datasets.StoredDataset:
        return datasets.import_candles(**self._read_file(options))

    def _read_file(self, options: dict[str, Any]) -> dict[str, Any]:
        path: Path = options["file"]
        return {
            "coin": coins.find_coin(options["coin"]),
            "data": _read(path),
            "name": path.name,
            "actor": self.actor(options),
            "closing_times": options["closing_times"],
            "repeated_once": options["repeated_once"],
        }


def _read(path: Path) -> bytes:
    try:
        if not path.is_file() and path.exists():  # a pipe or a device may have no end
            raise InvalidInput(f"{path} is not a file.", field="file")
        datasets.require_importable_size(path.stat().st_size, path.name)
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.", field="file") from error
