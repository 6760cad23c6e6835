import shutil
from pathlib import Path
from typing import IO, Any

from django.core.management.base import CommandParser

from common.commands import GateCommand
from common.errors import InvalidInput
from training.services import datasets, downloads


class Command(GateCommand):
    help = "Write a dataset's candles to a file, as CSV or Parquet by its suffix; importing it again gives the same digest."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("dataset", type=int)
        parser.add_argument("file", type=Path, help="a new file ending with .csv or .parquet")

    def answer(self, **options: Any) -> dict[str, Any]:
        path: Path = options["file"]
        form = path.suffix.removeprefix(".").lower()
        if form not in downloads.CONTENT_TYPES:
            raise InvalidInput(f"{path} must end with .csv or .parquet.", field="file")
        dataset = datasets.find_dataset(options["dataset"])
        download = downloads.open_download(dataset, form)
        with download.stream as stream:
            _write(stream, path)
        return {"file": str(path), "bytes": download.size, "rows": dataset.rows, "digest": dataset.digest}

    def format_answer(self, answer: dict[str, Any]) -> str:
        return f"{answer['file']}: {answer['rows']:,} candles, {answer['bytes']:,} bytes\n{answer['digest']}"


def _write(stream: IO[bytes], path: Path) -> None:
    """A whole new file, or none."""
    try:
        with path.open("xb") as file:
            try:
                shutil.copyfileobj(stream, file)
            except OSError:
                path.unlink()
                raise
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}.", field="file") from error
