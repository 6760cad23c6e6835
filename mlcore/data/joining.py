"""Joins the CSV files of a zip that are one market's candles, cut by date, as Binance publishes them."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from mlcore.errors import CandlesRefused

_DATED = re.compile(r"(.*?)(\d{4}-\d{2}(?:-\d{2})?)(\D*)", re.DOTALL)
"""A name with one date, such as `BTCUSDT-1h-2025-01.csv`."""


@dataclass(frozen=True)
class Part:
    """One of the joined files."""

    name: str
    first_line: int
    """The line of the joined text in which its first row is, or its header if that was kept; from 1."""
    skipped_lines: int


def order_by_date(names: Sequence[str]) -> list[str]:
    """The names in the order of their dates; empty where they differ by more than their dates, so by market or interval."""
    found = [_DATED.fullmatch(name) for name in names]
    if not all(found) or len({(match[1], match[3]) for match in found if match}) > 1:
        return []
    return sorted(names)


def join(files: Sequence[tuple[str, bytes]]) -> tuple[bytes, tuple[Part, ...]]:
    """One text with one header, if the files have one. Raises CandlesRefused where their headers differ."""
    texts = [text.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") + b"\n" for _, text in files]
    headers = [head for text in texts if not (head := text.partition(b"\n")[0].strip(b'\r" '))[:1].isdigit()]
    if headers and (len(headers) < len(files) or len(set(headers)) > 1):
        raise CandlesRefused(
            "the files of the zip do not have the same first line; join their rows in one file with one header"
        )
    parts, kept, line = list[Part](), list[bytes](), 1
    for (name, _), text in zip(files, texts, strict=True):
        skipped = 1 if headers and parts else 0
        kept.append(text.partition(b"\n")[2] if skipped else text)
        parts.append(Part(name, line, skipped))
        line += kept[-1].count(b"\n")
    return b"".join(kept), tuple(parts)


def locate(refused: CandlesRefused, parts: Sequence[Part]) -> CandlesRefused:
    """The refusal with the file of the zip that holds its line; as it is where nothing was joined."""
    if not parts or refused.line is None:
        return refused
    part = parts[bisect_right(parts, refused.line, key=lambda part: part.first_line) - 1]
    line = refused.line - part.first_line + 1 + part.skipped_lines
    return CandlesRefused(f"{refused.reason} (line {line:,} of {part.name})", row=refused.row)
