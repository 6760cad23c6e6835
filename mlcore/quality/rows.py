"""Checks of every row of candles and of every step between rows, real or simulated."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from mlcore.data.columns import NUMBERS
from mlcore.data.validation import PRICES, find_other_run, infer_interval_ms
from mlcore.quality.market_statistics import find_longest_run
from mlcore.quality.result import Check, format_interval, pass_or_fail
from mlcore.verdict import Verdict

MAX_MISSING_SHARE = 0.02  # real: 0.0005 of five years, 0.004 of any 2,000 bars
MAX_DEAD_SHARE = (
    0.20  # bars without volume; real: 0.02 at most, Bitcoin on one exchange in 2017; more on thin ones
)
MAX_REPEATED_SHARE = 0.05  # volumes that repeat the one before; real: none, but for volumes in whole lots
LOT_LAG_BARS = 24  # volumes in lots repeat at any distance, and a filled column at short ones
MAX_STANDSTILL_BARS = 24  # real: 3


def check_rows(frame: pl.DataFrame) -> Iterator[Check]:
    """For any frame with the columns of candles and at least two rows."""
    steps: np.ndarray = np.diff(frame["timestamp"].dt.epoch("ms").to_numpy())
    numbers = {name: frame[name].to_numpy() for name in NUMBERS}
    interval = infer_interval_ms(frame)
    off_grid = steps % interval != 0 if interval > 0 else np.ones(len(steps), bool)
    if (other := find_other_run(steps, interval)) is not None:
        off_grid |= steps == steps[other.start]
    grid = f"grid of {format_interval(interval // 1000)}"
    invalid = ~np.isfinite(list(numbers.values())).all(axis=0)
    invalid |= np.any([numbers[name] <= 0 for name in PRICES], axis=0)
    body = np.stack([numbers["open"], numbers["close"]])
    outside = ~((body >= numbers["low"]) & (body <= numbers["high"])).all(axis=0)
    yield _check_no_rows(
        "order", steps < 0, "earlier than the row before", "Every row is later than the one before."
    )
    yield _check_no_rows("duplicates", steps == 0, "with the time of the row before", "No time occurs twice.")
    yield _check_no_rows("interval", off_grid, f"off the {grid}", f"All bars lie on one {grid}.")
    yield _check_gaps(steps, interval)
    yield _check_no_rows(
        "prices", invalid, "without finite prices above zero", "Every price is finite and above zero."
    )
    yield _check_no_rows(
        "ranges",
        outside,
        "whose open or close is outside low … high",
        "Low ≤ open, close ≤ high in every row.",
    )
    yield _check_volume(numbers["volume"])


def check_last_bar(frame: pl.DataFrame, now: datetime) -> Check:
    """Real bars have closed: the figures of one that is still forming change, and no market has bars of the future."""
    closes_at = frame["timestamp"][-1] + timedelta(milliseconds=infer_interval_ms(frame))
    return pass_or_fail(
        "last_bar",
        "closed when it was checked",
        (now - closes_at).total_seconds(),
        f"closes at {closes_at:%Y-%m-%d %H:%M}Z",
        passed="The last bar has closed.",
        failed="The last bar has not closed: leave it out, or check the times and the clock.",
        is_passed=closes_at <= now,
    )


def _check_no_rows(name: str, rows: ArrayLike, fault: str, passed: str) -> Check:
    count = int(np.count_nonzero(rows))
    observed = f"{count:,} row{'' if count == 1 else 's'}"
    failed = f"{observed} {fault}: the file is damaged, or was put together wrongly."
    return pass_or_fail(
        name, f"no row {fault}", count, observed, passed=passed, failed=failed, is_passed=count == 0
    )


def _check_gaps(steps: np.ndarray, interval: int) -> Check:
    """One long halt is for a person to look at; many gaps are a bad file."""
    gaps = (steps // interval - 1).clip(0) if interval > 0 else np.zeros(1, int)
    missing, longest = int(gaps.sum()), int(gaps.max(initial=0))
    share, others = (count / (count + len(steps) + 1) for count in (missing, missing - longest))
    is_halt = others <= MAX_MISSING_SHARE
    return pass_or_fail(
        "gaps",
        f"≤ {MAX_MISSING_SHARE:.0%} of the bars missing",
        share,
        f"{missing:,} missing ({share:.2%}), {longest:,} in a row",
        passed="Almost every bar of the range is present.",
        failed=f"{longest:,} bars in a row are missing: a halt of the exchange, or a part of the file. A person must look."
        if is_halt
        else f"{share:.1%} of the bars are missing: a model trained on this learns the gaps.",
        is_passed=share <= MAX_MISSING_SHARE,
        otherwise=Verdict.INCONCLUSIVE if is_halt else Verdict.FAILED,
    )


def _check_volume(volume: np.ndarray) -> Check:
    """Bars without trades are those of a thin market, or of a halt; a column that was filled in is no volume."""
    is_valid = bool(np.isfinite(volume).all() and (volume >= 0).all())
    dead, standstill = float((volume == 0).mean()), find_longest_run(volume == 0)
    is_repeated = (np.diff(volume) == 0) & (volume[1:] > 0)
    repeated, repeated_run = float(is_repeated.mean()), find_longest_run(is_repeated)
    is_filled = (
        repeated > MAX_REPEATED_SHARE + 2 * _measure_lots(volume) or repeated_run > MAX_STANDSTILL_BARS
    )
    is_alive = dead <= MAX_DEAD_SHARE and standstill <= MAX_STANDSTILL_BARS
    is_thin = is_valid and not is_filled and dead < 1
    return pass_or_fail(
        "volume",
        f"≤ {MAX_DEAD_SHARE:.0%} of the bars without volume, ≤ {MAX_STANDSTILL_BARS} in a row,"
        f" ≤ {MAX_REPEATED_SHARE:.0%} that repeat the one before",
        repeated if is_filled else dead,
        f"{dead:.2%} without, {standstill} in a row, {repeated:.2%} repeated",
        passed="Almost every bar has volume.",
        failed=f"Nobody traded in {dead:.0%} of these bars, {standstill} in a row: a thin market, a halt, or gaps that were"
        " filled. A person must look."
        if is_thin
        else "The volume is not real: nobody traded in these bars, or the column was filled in.",
        is_passed=is_valid and is_alive and not is_filled,
        otherwise=Verdict.INCONCLUSIVE if is_thin else Verdict.FAILED,
    )


def _measure_lots(volume: np.ndarray) -> float:
    """The share of volumes that equal the one LOT_LAG_BARS before, as numbers of whole lots do by chance."""
    later = volume[LOT_LAG_BARS:]
    return float(((later == volume[:-LOT_LAG_BARS]) & (later > 0)).mean()) if len(later) else 0.0
