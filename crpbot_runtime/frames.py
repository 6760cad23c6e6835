"""Candles as bots have them, made a polars frame: of polars, pandas, Arrow or another library, or rows as of ccxt."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mlcore.data import candles
from mlcore.data.columns import COLUMNS
from mlcore.data.readers import read_frame
from mlcore.data.validation import SCHEMA
from mlcore.errors import CandlesRefused

_FORKED = (
    "polars was used in this process before it was forked, and would wait for ever here: hand in a polars frame of {columns}"
    " (timestamp in UTC, the others float64), or start the process with spawn or forkserver"
)
_POOL_THREAD = re.compile(r"polars-\d")
"""Any of them: one that has just begun has no name yet. Polars has another thread from its import on."""
_is_polars_stuck = False


def to_candles(table: object, source: str) -> pl.DataFrame:
    """A frame with the columns of candles, the oldest bar first; not validated where it had them already.

    Times without a zone are UTC, whole numbers are epochs of any unit, and an index of times counts as a column. Other
    columns are ignored. Raises CandlesRefused.
    """
    if isinstance(table, pl.DataFrame) and _is_canonical(table):
        return table
    _require_polars(source)
    try:
        frame = table if isinstance(table, pl.DataFrame) else _convert(table)
    except CandlesRefused as refused:
        raise CandlesRefused(refused.reason, source=source) from None
    except (Exception, pl.exceptions.PanicException) as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CandlesRefused(f"{_name(table)} cannot be read as a table ({cause})", source=source) from error
    return read_frame(frame, source).frame


def read_candles(path: str | Path) -> pl.DataFrame:
    """Valid candles from a file of any format that the service imports, the oldest bar first. Raises CandlesRefused."""
    try:
        file = Path(path)
        file.stat()
    except (TypeError, ValueError) as error:
        raise CandlesRefused(f"{path!r:.80} is not the name of a file ({error!s:.80})") from error
    except OSError:
        pass  # said by the reader
    _require_polars(file.name)
    return candles.read(file)


def note_fork() -> None:
    """In the child: the threads of polars did not come along, if it had started any."""
    global _is_polars_stuck
    _is_polars_stuck = _is_polars_stuck or _had_threads


def look_for_threads() -> None:
    """Before a fork: whether polars has started its threads. Only Linux tells; elsewhere they are taken for started."""
    global _had_threads
    try:
        tasks = Path("/proc/self/task").iterdir()
        _had_threads = any(_POOL_THREAD.match((task / "comm").read_text()) for task in tasks)
    except OSError:
        _had_threads = True


_had_threads = False


def _is_canonical(frame: pl.DataFrame) -> bool:
    time = frame.schema.get("timestamp")
    is_utc = isinstance(time, pl.Datetime) and time.time_zone == "UTC"
    return is_utc and tuple(frame.columns) == COLUMNS and frame.dtypes[1:] == list(SCHEMA.values())[1:]


def _require_polars(source: str) -> None:
    if _is_polars_stuck:
        raise CandlesRefused(_FORKED.format(columns=", ".join(COLUMNS)), source=source)


def _convert(table: Any) -> pl.DataFrame:
    if hasattr(table, "iloc") and hasattr(table, "columns"):
        return _convert_pandas(table)
    if hasattr(table, "__arrow_c_stream__") and not hasattr(table, "iloc"):
        return pl.DataFrame(table)
    if hasattr(table, "__dataframe__"):
        return pl.from_dataframe(table)
    if isinstance(table, Mapping):
        return pl.DataFrame({str(name): _to_series(values) for name, values in table.items()})
    if isinstance(table, np.ndarray) and table.dtype.names:
        return pl.DataFrame({name: _to_series(table[name]) for name in table.dtype.names})
    if isinstance(table, Sequence | np.ndarray) and not isinstance(table, str | bytes):
        rows = list(table)
        if rows and isinstance(rows[0], Mapping):
            return pl.DataFrame(rows)
        if all(len(row) == len(COLUMNS) for row in rows):
            columns = zip(*rows, strict=True) if rows else [[]] * len(COLUMNS)
            return pl.DataFrame({name: _to_series(list(c)) for name, c in zip(COLUMNS, columns, strict=True)})
    raise CandlesRefused(
        f"{_name(table)} is no table of {', '.join(COLUMNS)}: hand in a frame of polars or pandas, an Arrow table, or"
        " rows of these six"
    )


def _convert_pandas(frame: Any) -> pl.DataFrame:
    """By way of NumPy: polars itself would need pyarrow."""
    if type(frame.index).__name__ != "RangeIndex":
        frame = frame.reset_index()
    columns: dict[str, pl.Series] = {}
    for at, label in enumerate(frame.columns):
        name = str(label[0] if isinstance(label, tuple) else label)  # yfinance has a second level, the ticker
        if name in columns:
            raise CandlesRefused(
                f"the column {name[:40]!r} is there more than once; a table has one coin's candles"
            )
        columns[name] = _to_series(frame.iloc[:, at])
    return pl.DataFrame(columns)


def _to_series(values: Any) -> pl.Series:
    """From a list, an array, or a series or index of pandas."""
    if hasattr(values, "to_numpy") and hasattr(values, "dtype") and not isinstance(values, pl.Series):
        has_zone = getattr(values.dtype, "tz", None) is not None
        values = values.to_numpy("datetime64[us]" if has_zone else None)  # in UTC
    elif isinstance(values, list) and values and isinstance(values[0], np.datetime64):
        values = np.array(values)
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "M":
            values = values.astype("datetime64[us]")  # polars knows no seconds or days
        elif values.dtype.kind not in "iuf" or values.dtype.itemsize < 4:
            values = values.tolist()
    return pl.Series(values, strict=not isinstance(values, list))


def _name(table: object) -> str:
    return type(table).__name__[:60]
