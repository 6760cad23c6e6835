"""Candle files from outside, read in the sandbox. The page, the API and the command all come here."""

import json
import re
import tempfile
from pathlib import Path, PurePath
from typing import Any

import polars as pl
from django.conf import settings

from common.errors import InvalidInput, Unavailable
from mlcore.data import candles
from mlcore.data.readers import MAX_ROWS
from mlcore.errors import CandlesRefused
from training.jobs import sandbox

PRIVATE_BYTES = 3 * 2**30
"""Memory limit of the reading process. A CSV of 4,000,000 rows, the most that is taken, needs two thirds of it."""

_MAX_CANDLES_BYTES = 25 + 48 * MAX_ROWS
_MAX_ANSWER_BYTES = 16 * 1024
_MAX_REASON_LETTERS = 1000
_SUFFIXES = re.compile(r"(\.[a-z0-9]{1,8}){0,2}")
_REMEDY = "Export the candles again, with the six columns as plain numbers and times."


def read_candle_file(data: bytes, name: str) -> pl.DataFrame:
    """Valid candles of a file. `name` is the file name: for messages, and its suffix must match the content.

    Raises InvalidInput with the row and the reason, and Unavailable when the sandbox cannot be used now.
    """
    with tempfile.TemporaryDirectory(prefix="candles-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        _convert(folder, data, name)
        try:
            answer = _read_answer(folder)
            if "reason" in answer:
                raise InvalidInput(
                    str(CandlesRefused(answer["reason"], source=name, row=answer["row"])), field="file"
                )
            # Plain arrays of a fixed length, which are validated again: nothing of the process is trusted.
            written = sandbox.read_output(folder / "candles.canonical", _MAX_CANDLES_BYTES)
            return candles.decode_canonical(written)
        except (sandbox.ProcessFailed, CandlesRefused, ValueError) as failure:
            raise InvalidInput(
                f"{name} cannot be read: the process that reads it {failure}. {_REMEDY}", field="file"
            ) from failure


def _convert(folder: Path, data: bytes, name: str) -> None:
    suffixes = "".join(PurePath(name.lower()).suffixes[-2:])
    file = folder / f"file{suffixes if _SUFFIXES.fullmatch(suffixes) else ''}"
    file.write_bytes(data)
    try:
        sandbox.run_module(
            "mlcore.data.convert",
            ["--file", file.name, "--candles", "candles.canonical", "--answer", "answer.json"],
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


def _read_answer(folder: Path) -> dict[str, Any]:
    """Empty, or reason and row of a refusal. Raises ProcessFailed for anything else."""
    try:
        answer = json.loads(sandbox.read_output(folder / "answer.json", _MAX_ANSWER_BYTES))
    except (ValueError, RecursionError) as error:
        raise sandbox.ProcessFailed("left no usable answer") from error
    if answer == {}:
        return {}
    reason, row = (answer.get("reason"), answer.get("row")) if isinstance(answer, dict) else (None, None)
    if not isinstance(reason, str) or not (row is None or type(row) is int):
        raise sandbox.ProcessFailed("left no usable answer")
    printable = "".join(letter if letter.isprintable() else " " for letter in reason)
    return {"reason": printable[:_MAX_REASON_LETTERS], "row": row}
