"""Whether a table of rows makes sense as candles: the first row that does not is named, with its figures."""

import numpy as np
import polars as pl

from mlcore.data.readers import COLUMNS, NUMBERS
from mlcore.errors import CandlesRefused

SCHEMA = pl.Schema([("timestamp", pl.Datetime("ms", "UTC")), *((name, pl.Float64()) for name in NUMBERS)])

_PRICES = ("open", "high", "low", "close")


def validate_candles(frame: pl.DataFrame, source: str = "the candles") -> pl.DataFrame:
    """The candles, if every row is a possible one and the rows stand on one time grid; timestamps in milliseconds.

    Gaps (missing bars) are allowed, `candles.describe` counts them. Raises CandlesRefused.
    """
    frame = _in_milliseconds(frame)
    if frame.schema != SCHEMA:
        raise CandlesRefused(_other_schema(frame), source=source)
    if frame.height < 2:
        raise CandlesRefused("fewer than 2 rows", source=source)
    if frame["timestamp"].null_count():
        row = int(frame["timestamp"].is_null().arg_true()[0])
        raise CandlesRefused("timestamp is missing", source=source, row=row + 1)
    _refuse_first(frame, _row_faults(frame), source)
    milliseconds = infer_interval_ms(frame)
    if milliseconds % 1000:
        raise CandlesRefused(f"an interval of {milliseconds} ms is not whole seconds", source=source)
    step = f"timestamp {{timestamp}} is off the grid: not a multiple of {milliseconds // 1000} s after the row before"
    _refuse_first(frame, {step: _off_grid(frame, milliseconds)}, source)
    return frame


def _in_milliseconds(frame: pl.DataFrame) -> pl.DataFrame:
    """Timestamps of another unit, as polars reads them from a CSV, in ours; the same frame where they are so already."""
    found = frame.schema.get("timestamp")
    if not isinstance(found, pl.Datetime) or found.time_unit == "ms" or found.time_zone != "UTC":
        return frame
    return frame.with_columns(pl.col("timestamp").dt.cast_time_unit("ms"))


def _other_schema(frame: pl.DataFrame) -> str:
    """What of the frame's columns is not as it must be."""
    if tuple(frame.columns) != COLUMNS:
        return f"the columns are {', '.join(frame.columns) or 'none'}; they must be {', '.join(COLUMNS)}, in this order"
    name = next(name for name, kind in SCHEMA.items() if frame.schema[name] != kind)
    wanted = "timestamps in UTC" if name == "timestamp" else "float64"
    return f"{name} holds {frame.schema[name]}; it must hold {wanted}"


def infer_interval_ms(frame: pl.DataFrame) -> int:
    """The most common step between rows; the smaller of two equally common ones."""
    steps, counts = np.unique(_steps(frame), return_counts=True)
    return int(steps[counts.argmax()])


def _off_grid(frame: pl.DataFrame, milliseconds: int) -> np.ndarray:
    """Rows that come after another time than a multiple of the interval; divided are the few that come after another."""
    steps = np.append(milliseconds, _steps(frame))
    others = np.flatnonzero(steps != milliseconds)
    found = np.zeros(frame.height, bool)
    found[others] = steps[others] % milliseconds != 0
    return found


def _steps(frame: pl.DataFrame) -> np.ndarray:
    """Milliseconds since the row before, int64 [rows − 1]."""
    return np.diff(frame["timestamp"].dt.epoch("ms").to_numpy())


def _row_faults(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """What is wrong with which rows, as a sentence over a row's own values; earlier ones win on the same row.

    In numpy: a bot has its 2,048 bars checked before every decision, and a polars query costs more than the checking.
    """
    numbers = {name: frame[name].to_numpy() for name in NUMBERS}
    low, high = numbers["low"], numbers["high"]
    steps = np.append(1, _steps(frame))
    faults = {f"{name} is {{{name}}}: not a finite number": ~np.isfinite(numbers[name]) for name in NUMBERS}
    for name in _PRICES:
        faults[f"{name} is {{{name}}}: a price must be above zero"] = numbers[name] <= 0
    faults["volume is {volume}: it cannot be negative"] = numbers["volume"] < 0
    faults["high {high} is below low {low}"] = high < low
    for name in ("open", "close"):
        outside = (numbers[name] < low) | (numbers[name] > high)
        faults[f"{name} {{{name}}} is outside low {{low}} … high {{high}}"] = outside
    faults["timestamp {timestamp} is there twice: it repeats the row before"] = steps == 0
    faults["timestamp {timestamp} is earlier than the row before; sort the rows by time"] = steps < 0
    return faults


def _refuse_first(frame: pl.DataFrame, faults: dict[str, np.ndarray], source: str) -> None:
    sentences = list(faults)
    breaches = [(int(rows.argmax()), i) for i, rows in enumerate(faults.values()) if rows.any()]
    if not breaches:
        return
    row, i = min(breaches)
    values = {**frame.row(row, named=True), "timestamp": f"{frame['timestamp'][row]:%Y-%m-%dT%H:%M:%SZ}"}
    count = np.count_nonzero(faults[sentences[i]])
    more = f" ({count - 1:,} more rows like it)" if count > 1 else ""
    raise CandlesRefused(sentences[i].format(**values) + more, source=source, row=row + 1)
