"""Makes canonical candles of a candle file from outside. Run this in the sandbox: the readers below it are not trusted.

    python -m mlcore.data.convert --file FILE --candles CANDLES --answer ANSWER.json \
        [--closing-times] [--repeated-once]

The answer is the import report, or says why the file is refused, in which row and line.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mlcore.data import candles, readers
from mlcore.errors import CandlesRefused


def main(arguments: list[str] | None = None) -> int:
    options = _build_parser().parse_args(arguments)
    answer: dict[str, Any]
    try:
        data = options.file.read_bytes()
        said = readers.Options(options.closing_times, options.repeated_once)
        found = readers.read_file(data, options.file.name, said)
        options.candles.write_bytes(candles.encode_canonical(found.frame))
        answer = {"report": found.report.document()}
    except CandlesRefused as refused:
        answer = {"reason": refused.reason, "row": refused.row, "line": refused.line}
    except MemoryError:
        answer = {"reason": "it needs more memory than a candle file may take", "row": None, "line": None}
    options.answer.write_text(json.dumps(answer))
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlcore.data.convert", description="Make canonical candles of a file."
    )
    parser.add_argument("--file", type=Path, required=True, help="a candle file of any format")
    parser.add_argument("--candles", type=Path, required=True, help="where the canonical candles go")
    parser.add_argument("--answer", type=Path, required=True, help="where the answer goes, as JSON")
    parser.add_argument(
        "--closing-times", action="store_true", help="the times are those at which bars close"
    )
    parser.add_argument(
        "--repeated-once",
        action="store_true",
        help="a row that repeats its neighbour value for value is left out",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
