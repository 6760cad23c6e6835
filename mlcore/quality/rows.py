"""What must hold of every row of candles and of every step between rows, whatever made them."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from mlcore.data.readers import NUMBERS
from mlcore.data.validation import infer_interval_ms
from mlcore.quality.market_statistics import longest_run
from mlcore.quality.result import Check, check_no_rows, format_interval, pass_or_fail

MOST_MISSING_SHARE = 0.02  # real: 0.0005 of five years, 0.004 of any 2,000 bars
MOST_DEAD_SHARE = 0.01  # bars without volume; real: 0.001 at most
MOST_REPEATED_SHARE = 0.05  # volumes that repeat the one before; real: none
LONGEST_STANDSTILL_BARS = 24  # real: 3


def check_rows(frame: pl.DataFrame) -> Iterator[Check]:
    """What must hold of every row and of every step, of any frame with the columns of candles and two rows or more."""
    steps = np.diff(frame["timestamp"].dt.epoch("ms").to_numpy())
    numbers = {name: frame[name].to_numpy() for name in NUMBERS}
    yield check_no_rows(
        "order",
        int((steps < 0).sum()),
        "earlier than the row before",
        "Every row comes after the one before.",
    )
    yield check_no_rows(
        "duplicates", int((steps == 0).sum()), "with the time of the row before", "No time is there twice."
    )
    interval = infer_interval_ms(frame)
    off = int((steps % interval != 0).sum()) if interval > 0 else len(steps)
    kept = f"All bars stand on one grid of {format_interval(interval // 1000)}."
    yield check_no_rows("interval", off, f"off the grid of {format_interval(interval // 1000)}", kept)
    yield _gaps(steps, interval)
    wrong = ~np.all([np.isfinite(n) for n in numbers.values()], axis=0)
    wrong |= np.any([numbers[name] <= 0 for name in ("open", "high", "low", "close")], axis=0)
    yield check_no_rows(
        "prices",
        int(wrong.sum()),
        "without finite prices above zero",
        "Every price is finite and above zero.",
    )
    body = np.stack([numbers["open"], numbers["close"]])
    outside = ~((body >= numbers["low"]) & (body <= numbers["high"])).all(axis=0)
    yield check_no_rows(
        "ranges",
        int(outside.sum()),
        "whose open or close is outside low … high",
        "Low ≤ open, close ≤ high in every row.",
    )
    yield _volume(numbers["volume"])


def _gaps(steps: np.ndarray, interval: int) -> Check:
    missing = int((steps // interval - 1).clip(0).sum()) if interval > 0 else 0
    share = missing / (missing + len(steps) + 1)
    return Check(
        "gaps",
        f"≤ {MOST_MISSING_SHARE:.0%} of the bars missing",
        pass_or_fail(
            share <= MOST_MISSING_SHARE,
            share,
            f"{missing:,} missing ({share:.2%})",
            "Almost every bar of the range is there.",
            f"{share:.1%} of the bars are missing: what is trained on this learns the holes.",
        ),
    )


def _volume(volume: np.ndarray) -> Check:
    sound = bool(np.isfinite(volume).all() and (volume >= 0).all())
    dead, repeated = float((volume == 0).mean()), float(((np.diff(volume) == 0) & (volume[1:] > 0)).mean())
    standstill = longest_run(volume == 0)
    is_alive = (
        dead <= MOST_DEAD_SHARE and repeated <= MOST_REPEATED_SHARE and standstill <= LONGEST_STANDSTILL_BARS
    )
    return Check(
        "volume",
        f"≤ {MOST_DEAD_SHARE:.0%} of the bars without volume, ≤ {LONGEST_STANDSTILL_BARS} in a row,"
        f" ≤ {MOST_REPEATED_SHARE:.0%} that repeat the one before",
        pass_or_fail(
            sound and is_alive,
            dead if dead > MOST_DEAD_SHARE or repeated <= MOST_REPEATED_SHARE else repeated,
            f"{dead:.2%} without, {standstill} in a row, {repeated:.2%} repeated",
            "Something was traded in almost every bar.",
            "The volume is dead: nobody traded in these bars, or the column was filled in.",
        ),
    )
