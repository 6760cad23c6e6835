"""Candles inside other JSON: in the envelope of an exchange's answer, or column by column, as pandas writes them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlcore.data.tables.names import count_prices, has_time, is_utc, simplify_name
from mlcore.errors import CandlesRefused

MAX_BYTES = 64 * 1024 * 1024
"""Such a document is decoded as one, and takes about 15 times its text."""

MAX_DEPTH = 4
_FEWEST_VALUES = 6
_PRICES = 4
_MOST_MEMBERS = 100
"""An object of more is a table by its index, and describes nothing."""

Rows = list[Any]


@dataclass(frozen=True)
class Unfolded:
    """The rows of a document, written as JSON, a note of where they were, and the zone that the document names."""

    rows: bytes
    note: str
    zone: str


def unfold(data: bytes) -> Unfolded | None:
    """The one list of candles of a document that is an object; None where there is none.

    Raises ValueError for what is no JSON, RecursionError, and CandlesRefused where several lists might be meant.
    """
    if len(data) > MAX_BYTES:
        raise CandlesRefused(
            f"a JSON object of more than {MAX_BYTES:,} bytes; write a list of rows, CSV or Parquet"
        )
    document = json.loads(data, parse_constant=_refuse_constant)
    found = list(_find(document, ""))
    if len(found) > 1:
        listed = ", ".join(name[:40] for name, _ in found[:5])
        raise CandlesRefused(
            f"this is JSON with {len(found)} lists of candles: {listed}; import one at a time"
        )
    if not found:
        return None
    name, rows = found[0]
    note = f"rows taken from {name[:80]!r} of the JSON" if name else "JSON by columns read as rows"
    return Unfolded(json.dumps(rows).encode(), note, _find_zone(document))


def _find_zone(value: Any, depth: int = 0) -> str:
    """A zone other than UTC beside the rows, as Alpha Vantage and Yahoo name it; empty if there is none."""
    if not isinstance(value, dict) or depth > MAX_DEPTH or len(value) > _MOST_MEMBERS:
        return ""
    for key, below in value.items():
        if isinstance(below, str) and simplify_name(key).endswith("timezone") and not is_utc(below.strip()):
            return below.strip()[:40]
        if zone := _find_zone(below, depth + 1):
            return zone
    return ""


def _refuse_constant(name: str) -> float:
    raise ValueError(f"JSON has no {name}")


def _find(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Rows]]:
    if isinstance(value, list):
        if _is_rows(value):
            yield name, value
    elif isinstance(value, dict) and depth <= MAX_DEPTH:
        if (rows := _read_columns(value)) is not None:
            yield name, rows
        else:
            for key, below in value.items():
                yield from _find(below, f"{name}.{key}" if name else key, depth + 1)


def _is_rows(values: Sequence[Any]) -> bool:
    """Whether these are rows of scalars, or objects with four prices."""
    first = values[0] if values else None
    if isinstance(first, dict):
        return count_prices(list(first)) == _PRICES
    return isinstance(first, list) and len(first) >= _FEWEST_VALUES and not any(map(_is_nested, first))


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _read_columns(table: Mapping[str, Any]) -> Rows | None:
    """The rows of a table by columns, by index, or split, as `pandas.DataFrame.to_json` has them; None if it is none."""
    names, data, index = table.get("columns"), table.get("data"), table.get("index")
    if (
        isinstance(names, list)
        and _have_prices(names)
        and isinstance(data, list)
        and all(map(_is_list, data))
    ):
        keys = index if isinstance(index, list) and len(index) == len(data) else [""] * len(data)
        return [
            _with_key(key, dict(zip(names, row, strict=True))) for key, row in zip(keys, data, strict=True)
        ]
    values = list(table.values())
    if _have_prices(list(table)):
        return _turn_columns({name: column for name, column in table.items() if _is_nested(column)})
    if values and isinstance(values[0], dict) and all(isinstance(row, dict) for row in values):
        is_row = _have_prices(list(values[0])) and not any(map(_is_nested, values[0].values()))
        return [_with_key(key, row) for key, row in table.items()] if is_row else None
    return None


def _have_prices(names: Sequence[Any]) -> bool:
    return all(isinstance(name, str) for name in names) and count_prices(names) == _PRICES


def _turn_columns(columns: Mapping[str, Any]) -> Rows | None:
    """Columns may hold lists, or objects by the index of their rows."""
    if not _have_prices(list(columns)):
        return None
    first = next(iter(columns.values()))
    keys = list(first) if isinstance(first, dict) else [""] * len(first)
    for name, column in columns.items():
        is_alike = list(column) == keys if isinstance(column, dict) else len(column) == len(keys)
        if type(column) is not type(first) or not is_alike:
            raise CandlesRefused(
                f"the column {name[:40]!r} has other rows than the first column of this JSON"
            )
    values = [list(column.values()) if isinstance(column, dict) else column for column in columns.values()]
    return [
        _with_key(key, dict(zip(columns, row, strict=True)))
        for key, row in zip(keys, zip(*values, strict=True), strict=True)
    ]


def _with_key(key: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    """An index is the time where no column is."""
    return dict(row) if key == "" or has_time(list(row)) else {"timestamp": key, **row}
