"""What a bot gets that asks for one row at a time: the same answer as in a batch, and how fast."""

from time import perf_counter
from typing import Any

import numpy as np

from mlcore.bundle.predictor import softmax
from mlcore.errors import NotEnoughBars
from mlcore.evaluation.context import EvaluationContext, sample_evenly
from mlcore.evaluation.inspection import FAULTS
from mlcore.features import indicators

TOLERANCE = 1e-5
"""A single row may differ from the batch by TOLERANCE + TOLERANCE · |logit|."""

TIMED_ROWS = 50


def measure_single_sample(context: EvaluationContext) -> dict[str, Any]:
    """Rows of the gate window one at a time, each from exactly the lookback's bars, compared with the batch."""
    rows = context.single_rows
    unknown = dict.fromkeys(("runs", "largest_difference", "largest_excess", "problem"))
    part = {"rows": len(rows), "windows_compared": len(rows), **unknown}
    if not len(rows):
        return {**part, "problem": _describe_short_window(context)}
    try:
        singles = context.single_logits.astype(np.float64)
    except FAULTS as error:
        return {**part, "runs": False, "problem": str(error)}
    batch = context.batch_logits[rows].astype(np.float64)
    with np.errstate(invalid="ignore"):  # equal infinities give NaN, which is stored as null
        difference = np.abs(singles - batch)
        excess = difference - (TOLERANCE + TOLERANCE * np.abs(batch))
    return {
        **part,
        "runs": True,
        "largest_difference": float(difference.max()),
        "largest_excess": float(excess.max()),
    }


def measure_latency(context: EvaluationContext) -> dict[str, Any]:
    """From candles to probabilities, in milliseconds per row on this machine."""
    rows = sample_evenly(context.single_rows, TIMED_ROWS)
    if not len(rows):
        raise NotEnoughBars(_describe_short_window(context))
    predictor, schema, seconds = context.predictor, context.schema, []
    for bar in context.gate_bars[rows].tolist():
        window = context.frame.slice(bar - schema.lookback + 1, schema.lookback)
        start = perf_counter()
        softmax(predictor.logits(indicators.compute_latest(window, schema)))
        seconds.append(perf_counter() - start)
    p50, p99 = 1000 * np.quantile(seconds, [0.5, 0.99])
    return {"rows": len(rows), "p50_ms": float(p50), "p99_ms": float(p99)}


def _describe_short_window(context: EvaluationContext) -> str:
    return f"no row of the gate window has {context.schema.lookback:,} bars before it"
