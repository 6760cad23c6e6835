"""Candle files from outside, read in the sandbox. The page, the API and the command all come here."""

import json
import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings

from common.errors import InvalidInput, Unavailable
from mlcore.data import candles
from mlcore.data.columns import MAX_ROWS
from mlcore.data.import_report import ImportReport
from mlcore.data.readers import Options, ReadCandles
from mlcore.errors import CandlesRefused
from training.jobs import sandbox

PRIVATE_BYTES = 3 * 2**30
"""Memory limit of the reading process. A CSV of 4,000,000 rows, the most that is taken, needs two thirds of it."""

_MAX_CANDLES_BYTES = 25 + 48 * MAX_ROWS
_MAX_ANSWER_BYTES = 64 * 1024
_MAX_REASON_LETTERS = 1000
_REMEDY = "Export the candles again, with the six columns as plain numbers and times."


def read_candle_file(data: bytes, name: str, options: Options) -> ReadCandles:
    """Valid candles of a file, and what was done with it. `name` is the file name, for messages.

    Raises InvalidInput with the row and the reason, and Unavailable when the sandbox cannot be used now.
    """
    with tempfile.TemporaryDirectory(prefix="candles-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        _convert(folder, data, name, options)
        try:
            answer = _read_answer(folder)
            if isinstance(answer, CandlesRefused):
                refused = CandlesRefused(answer.reason, source=name, row=answer.row, line=answer.line)
                raise InvalidInput(str(refused), field="file")
            # Plain arrays of a fixed length, which are validated again: nothing of the process is trusted.
            written = sandbox.read_output(folder / "candles.canonical", _MAX_CANDLES_BYTES)
            return ReadCandles(candles.decode_canonical(written), answer)
        except (sandbox.ProcessFailed, CandlesRefused, ValueError) as failure:
            raise InvalidInput(
                f"{name} cannot be read: the process that reads it {failure}. {_REMEDY}", field="file"
            ) from failure


def _convert(folder: Path, data: bytes, name: str, said: Options) -> None:
    file = folder / "file"
    file.write_bytes(data)
    options = ["--closing-times"] * said.closing_times + ["--repeated-once"] * said.repeated_once
    try:
        sandbox.run_module(
            "mlcore.data.convert",
            ["--file", file.name, "--candles", "candles.canonical", "--answer", "answer.json", *options],
            folder=folder,
            seconds=settings.IMPORT_TIME_LIMIT_SECONDS,
            private_bytes=PRIVATE_BYTES,
            output_bytes=2 * _MAX_CANDLES_BYTES,
        )
    except sandbox.ProcessKilled as killed:
        raise Unavailable(
            f"The process that reads {name} was {killed}: try again, or check the machine's memory."
        ) from killed
    except sandbox.ProcessTimedOut as late:
        raise InvalidInput(
            f"{name}: reading it took {late} and was stopped. {_REMEDY}", field="file"
        ) from late
    except sandbox.ProcessFailed as failure:
        raise InvalidInput(
            f"{name} cannot be read: the process that reads it {failure}. {_REMEDY}", field="file"
        ) from failure


def _read_answer(folder: Path) -> ImportReport | CandlesRefused:
    """Raises ProcessFailed for anything that is neither a report nor a refusal."""
    try:
        answer: Any = json.loads(sandbox.read_output(folder / "answer.json", _MAX_ANSWER_BYTES))
        if set(answer) == {"report"}:
            return ImportReport.from_document(answer["report"])
        reason, row, line = answer["reason"], answer["row"], answer["line"]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise sandbox.ProcessFailed("left no usable answer") from error
    if not isinstance(reason, str) or not all(
        number is None or type(number) is int for number in (row, line)
    ):
        raise sandbox.ProcessFailed("left no usable answer")
    printable = "".join(letter if letter.isprintable() else " " for letter in reason)
    return CandlesRefused(printable[:_MAX_REASON_LETTERS], row=row, line=line)
