"""Whether a table of rows is valid candles. The error names the first bad row and its values."""

import math

import numpy as np
import polars as pl

from mlcore.data.columns import COLUMNS, NUMBERS
from mlcore.errors import CandlesRefused

SCHEMA = pl.Schema([("timestamp", pl.Datetime("ms", "UTC")), *((name, pl.Float64()) for name in NUMBERS)])

PRICES = ("open", "high", "low", "close")

ROUNDING = 1e-12
"""Prices that were multiplied by one factor do not round alike: open or close may lie so far outside, as a share of it."""

_FEWEST_JOINED, _EXCHANGED = 20, 3.0
"""How many bars tell whether open and close are exchanged, and how many times as far from each other they are then."""

_MIXED = 20
"""So many steps of one length, other than the interval, are bars of another one, and not gaps."""

DAY_MS = 86_400_000
_SHORTEST_MONTH_MS = 28 * DAY_MS
CLOSING_MS = (1, 1000)
"""How long before the next bar a closing time may lie, if it is not that bar's opening time."""
CLOSING_REMEDY = "export opening times, or say at the import that they are closing times"
FOREIGN_STEPS = 8
"""Gaps of one length follow each other by chance, where many bars are missing; so many do not."""
END_MS = 7_258_118_400_000
"""The year 2200, in epoch milliseconds. Python has no datetime for what some files hold."""


def validate_candles(frame: pl.DataFrame, source: str = "the candles") -> pl.DataFrame:
    """The candles with timestamps in milliseconds, if every row is possible and all rows lie on one time grid.

    Gaps (missing bars) are allowed, `candles.describe` counts them. High and low are moved by a rounding error, if they
    need it to enclose open and close. Raises CandlesRefused.
    """
    frame, _ = enclose_prices(_to_milliseconds(frame))
    if frame.schema != SCHEMA:
        raise CandlesRefused(_describe_schema_error(frame), source=source)
    if frame.height < 2:
        raise CandlesRefused("fewer than 2 rows", source=source)
    if frame["timestamp"].null_count():
        row = int(frame["timestamp"].is_null().arg_true()[0])
        raise CandlesRefused("timestamp is missing", source=source, row=row + 1)
    moments = frame["timestamp"].dt.epoch("ms").to_numpy()
    outside = (moments < 0) | (moments >= END_MS)
    if outside.any():
        reason = "timestamp is outside 1970 … 2199; check its unit: seconds, milliseconds or nanoseconds"
        raise CandlesRefused(reason, source=source, row=int(outside.argmax()) + 1)
    _refuse_first(frame, _find_row_faults(frame), source)
    interval_ms = infer_interval_ms(frame)
    if interval_ms % 1000:
        raise CandlesRefused(f"an interval of {interval_ms} ms is not whole seconds", source=source)
    _refuse_off_grid(moments, interval_ms, source)
    if interval_ms >= _SHORTEST_MONTH_MS and (_compute_steps(frame) % interval_ms).any():
        reason = f"bars {interval_ms // DAY_MS} days apart, and others: months and years differ in length, and candles have"
        raise CandlesRefused(f"{reason} one interval; export bars of a week or less", source=source)
    fault = f"timestamp {{timestamp}} is off the grid: not a multiple of {interval_ms // 1000} s after the row before"
    _refuse_first(frame, {fault: np.append(0, _compute_steps(frame)) % interval_ms != 0}, source)
    return frame


def _refuse_off_grid(moments: np.ndarray, interval_ms: int, source: str) -> None:
    """Bars open on full intervals of a day, and longer ones on full days, in UTC: all of them, or the times are others.

    A week may begin on any day: on Monday (Binance), Sunday, or Thursday, as epochs do (Kraken).
    """
    grid = math.gcd(interval_ms, DAY_MS)
    offsets = moments % grid
    if not offsets.all():  # a row off the grid is named later, with the row before it
        return
    offset = int(offsets[0])
    if (offsets != offset).any():
        return
    if grid - offset in CLOSING_MS:
        reason = f"the times are closing times: each lies {'a millisecond' if grid - offset == 1 else 'a second'} before"
        raise CandlesRefused(f"{reason} the next bar; {CLOSING_REMEDY}", source=source)
    raise CandlesRefused(
        f"bars of {interval_ms // 1000:,} s that open {offset / 1000:,.10g} s off the grid: they must open at full"
        f" {'days' if grid == DAY_MS else f'multiples of {grid // 1000:,} s'} in UTC; check the time zone of the times",
        source=source,
    )


def open_bars(frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """The candles with opening instead of closing times, and a note of what was done.

    A closing time is that of the next bar's opening, or a millisecond or a second before it. Any other time stays off the
    grid, so that `validate_candles` refuses it.
    """
    interval_ms = max(1, infer_interval_ms(frame)) if frame.height > 1 else 1
    moments = frame["timestamp"].dt.epoch("ms").to_numpy()
    until_next = -moments % math.gcd(interval_ms, DAY_MS)
    opened = moments + np.where(np.isin(until_next, CLOSING_MS), until_next, 0) - interval_ms
    times = pl.Series(opened).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC").alias("timestamp")
    note = f"closing times converted to opening times, {interval_ms // 1000:,} s earlier"
    return frame.with_columns(times), note


def find_same_times(frame: pl.DataFrame) -> np.ndarray:
    """Which rows have the time of the row before, bool [rows]."""
    return np.append(False, _compute_steps(frame) == 0)


def find_repeated(frame: pl.DataFrame) -> np.ndarray:
    """Which rows repeat the row before value for value, bool [rows]. No candle is lost where these are left out."""
    is_repeated = find_same_times(frame)
    for name in NUMBERS if is_repeated.any() else ():
        values = frame[name].to_numpy()
        is_repeated[1:] &= values[1:] == values[:-1]
    return is_repeated


def enclose_prices(frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Widen high and low to enclose open and close where only rounding keeps them from it; returns how many rows.

    Anything beyond ROUNDING stays as it is, and is refused by `validate_candles`.
    """
    if any(frame.schema.get(name) != pl.Float64 for name in PRICES) or any(
        frame[name].null_count() for name in PRICES
    ):
        return frame, 0
    prices = {name: frame[name].to_numpy() for name in PRICES}
    top = np.maximum(prices["open"], prices["close"])
    bottom = np.minimum(prices["open"], prices["close"])
    is_above = (top > prices["high"]) & (top <= prices["high"] * (1 + ROUNDING))
    is_below = (bottom < prices["low"]) & (bottom >= prices["low"] * (1 - ROUNDING))
    rows = int(np.count_nonzero(is_above | is_below))
    if not rows:
        return frame, 0
    high, low = np.where(is_above, top, prices["high"]), np.where(is_below, bottom, prices["low"])
    # One at a time: two would run in polars' threads, for which a process waits for ever after a fork.
    return frame.with_columns(pl.Series("high", high)).with_columns(pl.Series("low", low)), rows


def refuse_exchanged_prices(frame: pl.DataFrame) -> None:
    """Raises CandlesRefused where open and close have each other's place: a bar opens near the close before it.

    Real series of hours, days and weeks have at most a quarter of the distance between a close and the open before it, even
    in their worst 20 bars. Exchanged, they have four times as much.
    """
    if frame.height < _FEWEST_JOINED or any(frame.schema[name] != pl.Float64 for name in PRICES):
        return
    opened, closed = frame["open"].to_numpy(), frame["close"].to_numpy()
    joined = np.abs(opened[1:] - closed[:-1]).sum()
    if joined > _EXCHANGED * np.abs(closed[1:] - opened[:-1]).sum():
        raise CandlesRefused(
            "each bar closes near the open of the bar before it: open and close are exchanged, or the times run backwards;"
            " put them right, and import the file again"
        )


def refuse_mixed_intervals(frame: pl.DataFrame) -> None:
    """Raises CandlesRefused with the row from which the bars have another interval. Gaps do not repeat with one length."""
    if frame.height <= _MIXED or frame["timestamp"].null_count():
        return
    steps = _compute_steps(frame)
    interval = infer_step(steps)
    if (run := find_other_run(steps, interval, _MIXED)) is not None:
        raise CandlesRefused(
            f"{run.stop - run.start:,} bars from here on are {steps[run.start] // 1000:,} s apart, and most others"
            f" {interval // 1000:,} s: a file has one interval; import them one at a time",
            row=run.start + 1,
        )


def _to_milliseconds(frame: pl.DataFrame) -> pl.DataFrame:
    """Converts timestamps in another unit, as polars reads them from a CSV."""
    dtype = frame.schema.get("timestamp")
    if not isinstance(dtype, pl.Datetime) or dtype.time_unit == "ms" or dtype.time_zone != "UTC":
        return frame
    return frame.with_columns(pl.col("timestamp").dt.cast_time_unit("ms"))


def _describe_schema_error(frame: pl.DataFrame) -> str:
    if tuple(frame.columns) != COLUMNS:
        return f"the columns are {', '.join(frame.columns) or 'none'}; they must be {', '.join(COLUMNS)}, in this order"
    name = next(name for name, kind in SCHEMA.items() if frame.schema[name] != kind)
    wanted = "timestamps in UTC" if name == "timestamp" else "float64"
    return f"{name} holds {frame.schema[name]}; it must hold {wanted}"


def infer_interval_ms(frame: pl.DataFrame) -> int:
    """The most common step between rows; the smaller one if two are equally common."""
    return infer_step(_compute_steps(frame))


def infer_step(all_steps: np.ndarray) -> int:
    """The most common of these steps, int64 [n]."""
    if len(all_steps) and (all_steps == all_steps[0]).all():
        return int(all_steps[0])  # nearly always, and a bot asks before every decision: sorting takes longer
    steps, counts = np.unique(all_steps, return_counts=True)
    return int(steps[counts.argmax()])


def find_other_run(all_steps: np.ndarray, step: int, least: int = FOREIGN_STEPS) -> slice | None:
    """The first run of so many steps of one length other than `step`: bars of another interval, and no gaps.

    `all_steps` is int64 [n]. None without such a run.
    """
    begins = np.flatnonzero(np.diff(all_steps, prepend=np.iinfo(np.int64).min // 2))
    lengths = np.diff(begins, append=len(all_steps))
    others = (lengths >= least) & (all_steps[begins] != step) & (all_steps[begins] > 0)
    if not others.any():
        return None
    first, length = int(begins[others][0]), int(lengths[others][0])
    return slice(first, first + length)


def _compute_steps(frame: pl.DataFrame) -> np.ndarray:
    """Milliseconds since the row before, int64 [rows − 1]."""
    return np.diff(frame["timestamp"].dt.epoch("ms").to_numpy())


def _find_row_faults(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """{sentence with placeholders for the row's values: which rows}. For one row, earlier sentences win.

    In NumPy: a bot validates its 2,048 bars before every decision, and a polars query costs more than the checks.
    """
    numbers = {name: frame[name].to_numpy() for name in NUMBERS}
    low, high = numbers["low"], numbers["high"]
    steps = np.append(1, _compute_steps(frame))
    faults = {f"{name} is {{{name}}}: not a finite number": ~np.isfinite(numbers[name]) for name in NUMBERS}
    for name in PRICES:
        faults[f"{name} is {{{name}}}: a price must be above zero"] = numbers[name] <= 0
    faults["volume is {volume}: it cannot be negative"] = numbers["volume"] < 0
    faults["high {high} is below low {low}"] = high < low
    for name in ("open", "close"):
        outside = (numbers[name] < low) | (numbers[name] > high)
        faults[f"{name} {{{name}}} is outside low {{low}} … high {{high}}"] = outside
    faults["timestamp {timestamp} is there twice: delete one of its rows"] = steps == 0
    faults["timestamp {timestamp} is earlier than the row before; sort the rows by time"] = steps < 0
    return faults


def _refuse_first(frame: pl.DataFrame, faults: dict[str, np.ndarray], source: str) -> None:
    sentences = list(faults)
    first_rows = [(int(rows.argmax()), i) for i, rows in enumerate(faults.values()) if rows.any()]
    if not first_rows:
        return
    row, i = min(first_rows)
    values = {**frame.row(row, named=True), "timestamp": f"{frame['timestamp'][row]:%Y-%m-%dT%H:%M:%SZ}"}
    count = np.count_nonzero(faults[sentences[i]])
    more = f" ({count - 1:,} more rows like it)" if count > 1 else ""
    raise CandlesRefused(sentences[i].format(**values) + more, source=source, row=row + 1)
