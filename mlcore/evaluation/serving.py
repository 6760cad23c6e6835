"""What a bot gets that asks for one row at a time: the same answer as the batch, and how soon."""

from typing import Any

import numpy as np

from mlcore.errors import NotEnoughBars
from mlcore.evaluation.context import Subject
from mlcore.evaluation.inspection import FAULTS
from mlcore.evaluation.single_rows import seconds_of, spread

TOLERANCE = 1e-5
"""A single row may differ from the batch by TOLERANCE + TOLERANCE · |logit|."""

TIMED_ROWS = 50

_FACTS = ("runs", "largest_difference", "largest_excess", "problem")


def single_sample(subject: Subject) -> dict[str, Any]:
    """Rows of the gate window one at a time, each from exactly the lookback's bars, against the batch."""
    rows = subject.single_rows
    part = {"rows": len(rows), "windows_compared": len(rows), **dict.fromkeys(_FACTS)}
    if not len(rows):
        return {**part, "problem": _too_short(subject)}
    try:
        singles = subject.single_logits.astype(np.float64)
    except FAULTS as error:
        return {**part, "runs": False, "problem": str(error)}
    wide = subject.logits[rows].astype(np.float64)
    with np.errstate(invalid="ignore"):  # between infinities there is no difference, and none is reported
        difference = np.abs(singles - wide)
        excess = difference - (TOLERANCE + TOLERANCE * np.abs(wide))
    return {
        **part,
        "runs": True,
        "largest_difference": float(difference.max()),
        "largest_excess": float(excess.max()),
    }


def latency(subject: Subject) -> dict[str, Any]:
    """From candles to probabilities, milliseconds a row on this machine: some of the rows of `single_sample`."""
    rows = spread(subject.single_rows, TIMED_ROWS)
    if not len(rows):
        raise NotEnoughBars(_too_short(subject))
    bars = subject.gate_bars[rows]
    milliseconds = 1000 * seconds_of(subject.predictor, subject.frame, bars, subject.schema)
    half, nearly_all = np.quantile(milliseconds, [0.5, 0.99])
    return {"rows": len(rows), "p50_ms": float(half), "p99_ms": float(nearly_all)}


def _too_short(subject: Subject) -> str:
    return f"no row of the gate window has {subject.schema.lookback:,} bars before it"
