"""Whether valid candles are the ones to decide on now: the model's interval, a last bar that has just closed, few gaps."""

from datetime import UTC, datetime

import numpy as np
import polars as pl

from mlcore.data.validation import find_other_run, infer_step

MAX_AGE_INTERVALS = 2
"""How old the last bar may be, from its opening time on, unless the bot says otherwise."""
LATE_S = 30.0
"""What an exchange may take to publish a bar, beyond that; at most a tenth of the interval."""
EARLY_S = 5.0
"""How much this machine's clock may be behind the exchange's when a bar closes; at most a tenth of the interval."""
MAX_MISSING_SHARE = 0.05
"""Of the bars that a prediction looks at: a halt of four days in hourly bars, of eight hours in 5-minute ones."""


def find_fault(candles: pl.DataFrame, *, interval_s: int, max_age_s: float | None, now: datetime) -> str:
    """Why these valid candles (`validate_candles`) are not to be decided on at this moment; empty if they are.

    `interval_s` is the model's. `max_age_s` counts from the opening time of the last bar; None
    is two intervals.
    """
    times = candles["timestamp"].to_physical().to_numpy()
    steps = np.diff(times)
    step_s = infer_step(steps) / 1000
    if step_s != interval_s:
        return f"the bars are {format_seconds(step_s)} apart, and the model was trained on {format_seconds(interval_s)}"
    if (other := find_other_run(steps, round(step_s * 1000))) is not None:
        apart = format_seconds(int(steps[other.start]) / 1000)
        return f"bars that are {apart} apart are among those of {format_seconds(step_s)}"
    opened_at = datetime.fromtimestamp(int(times[-1]) / 1000, UTC)
    last = f"the last bar, {opened_at:%Y-%m-%d %H:%M:%S}Z,"
    age_s = (now - opened_at).total_seconds()
    if age_s < -min(EARLY_S, step_s / 10):
        return f"{last} opens in the future: these are closing times, or this machine's clock is behind"
    if age_s < step_s - min(EARLY_S, step_s / 10):
        return f"{last} has not closed yet: leave it out"
    limit_s = MAX_AGE_INTERVALS * step_s + min(LATE_S, step_s / 10) if max_age_s is None else max_age_s
    if age_s > limit_s:
        allowed = format_seconds(MAX_AGE_INTERVALS * step_s if max_age_s is None else max_age_s)
        return (
            f"{last} is {format_seconds(age_s)} old, more than {allowed}: the feed stopped, or this machine's clock is"
            " ahead"
        )
    return _find_gaps(times, step_s)


def _find_gaps(times: np.ndarray, step_s: float) -> str:
    expected = round(float(times[-1] - times[0]) / 1000 / step_s) + 1
    missing = expected - len(times)
    if missing <= MAX_MISSING_SHARE * expected:
        return ""
    return f"{missing:,} of {expected:,} bars are missing ({missing / expected:.0%}), more than {MAX_MISSING_SHARE:.0%}"


def format_seconds(seconds: float) -> str:
    """In the largest unit that is not below one: `1 h`, `15 min`, `2.5 d`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return (
                f"{seconds / size:,.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"
            )
    return f"{seconds:,.3g} s"
