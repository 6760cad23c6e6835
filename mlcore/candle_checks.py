"""Whether a table of rows makes sense as candles: the first row that does not is named, with its figures."""

import polars as pl

from mlcore.candle_files import COLUMNS, NUMBERS
from mlcore.errors import CandlesRefused

SCHEMA = pl.Schema([("timestamp", pl.Datetime("ms", "UTC")), *((name, pl.Float64()) for name in NUMBERS)])

_PRICES = ("open", "high", "low", "close")
_STEP = pl.col("timestamp").diff().dt.total_milliseconds()


def check(frame: pl.DataFrame, source: str = "the candles") -> pl.DataFrame:
    """The frame itself if every row is a possible candle and the rows stand on one time grid.

    Gaps (missing bars) are allowed, `candles.describe` counts them. Raises CandlesRefused.
    """
    if frame.schema != SCHEMA:
        raise CandlesRefused(f"a frame of other columns or types than {', '.join(COLUMNS)}", source=source)
    if frame.height < 2:
        raise CandlesRefused("fewer than 2 rows", source=source)
    _refuse_first(frame, _row_rules(), source)
    milliseconds = interval_milliseconds(frame)
    if milliseconds % 1000:
        raise CandlesRefused(f"an interval of {milliseconds} ms is not whole seconds", source=source)
    step = f"timestamp {{timestamp}} is off the grid: not a multiple of {milliseconds // 1000} s after the row before"
    _refuse_first(frame, {step: _STEP % milliseconds != 0}, source)
    return frame


def interval_milliseconds(frame: pl.DataFrame) -> int:
    """The most common step between rows; the smaller of two equally common ones."""
    steps = frame.select(step=_STEP.drop_nulls())["step"].value_counts()
    return int(steps.sort(["count", "step"], descending=[True, False])["step"][0])


def _row_rules() -> dict[str, pl.Expr]:
    """What is wrong with a row, as a sentence over its own values; earlier rules win on the same row."""
    rules: dict[str, pl.Expr] = {}
    for column in NUMBERS:
        rules[f"{column} is {{{column}}}: not a finite number"] = ~pl.col(column).is_finite()
    for column in _PRICES:
        rules[f"{column} is {{{column}}}: a price must be above zero"] = pl.col(column) <= 0
    rules["volume is {volume}: it cannot be negative"] = pl.col("volume") < 0
    rules["high {high} is below low {low}"] = pl.col("high") < pl.col("low")
    for column in ("open", "close"):
        outside = (pl.col(column) < pl.col("low")) | (pl.col(column) > pl.col("high"))
        rules[f"{column} {{{column}}} is outside low {{low}} … high {{high}}"] = outside
    rules["timestamp {timestamp} is there twice: it repeats the row before"] = _STEP == 0
    rules["timestamp {timestamp} is earlier than the row before; sort the rows by time"] = _STEP < 0
    return rules


def _refuse_first(frame: pl.DataFrame, rules: dict[str, pl.Expr], source: str) -> None:
    sentences = list(rules)
    found = frame.select(rule.arg_true().first().alias(str(i)) for i, rule in enumerate(rules.values())).row(
        0
    )
    breaches = [(row, i) for i, row in enumerate(found) if row is not None]
    if not breaches:
        return
    row, i = min(breaches)
    values = {**frame.row(row, named=True), "timestamp": f"{frame['timestamp'][row]:%Y-%m-%dT%H:%M:%SZ}"}
    count = frame.select(rules[sentences[i]].sum()).item()
    more = f" ({count - 1:,} more rows like it)" if count > 1 else ""
    raise CandlesRefused(sentences[i].format(**values) + more, source=source, row=row + 1)
