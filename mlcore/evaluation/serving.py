"""What a bot gets that asks for one row at a time: the same answer as the batch, and how soon."""

from typing import Any

import numpy as np

from mlcore.errors import NotEnoughBars
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.inspection import FAULTS
from mlcore.evaluation.single_rows import sample_evenly, time_predictions

TOLERANCE = 1e-5
"""A single row may differ from the batch by TOLERANCE + TOLERANCE · |logit|."""

TIMED_ROWS = 50

_FACTS = ("runs", "largest_difference", "largest_excess", "problem")


def measure_single_sample(context: EvaluationContext) -> dict[str, Any]:
    """Rows of the gate window one at a time, each from exactly the lookback's bars, against the batch."""
    rows = context.single_rows
    part = {"rows": len(rows), "windows_compared": len(rows), **dict.fromkeys(_FACTS)}
    if not len(rows):
        return {**part, "problem": _too_short(context)}
    try:
        singles = context.single_logits.astype(np.float64)
    except FAULTS as error:
        return {**part, "runs": False, "problem": str(error)}
    wide = context.logits[rows].astype(np.float64)
    with np.errstate(invalid="ignore"):  # between infinities there is no difference, and none is reported
        difference = np.abs(singles - wide)
        excess = difference - (TOLERANCE + TOLERANCE * np.abs(wide))
    return {
        **part,
        "runs": True,
        "largest_difference": float(difference.max()),
        "largest_excess": float(excess.max()),
    }


def measure_latency(context: EvaluationContext) -> dict[str, Any]:
    """From candles to probabilities, milliseconds a row on this machine: some of the rows of `single_sample`."""
    rows = sample_evenly(context.single_rows, TIMED_ROWS)
    if not len(rows):
        raise NotEnoughBars(_too_short(context))
    bars = context.gate_bars[rows]
    milliseconds = 1000 * time_predictions(context.predictor, context.frame, bars, context.schema)
    half, nearly_all = np.quantile(milliseconds, [0.5, 0.99])
    return {"rows": len(rows), "p50_ms": float(half), "p99_ms": float(nearly_all)}


def _too_short(context: EvaluationContext) -> str:
    return f"no row of the gate window has {context.schema.lookback:,} bars before it"
