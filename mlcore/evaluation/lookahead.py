"""Whether a feature uses the future: rows are computed again from candles that end with them."""

from typing import Any

import numpy as np

from mlcore.evaluation.context import EvaluationContext, sample_evenly
from mlcore.features import indicators

FIT_ROWS = 64
GATE_ROWS = 64
"""For a gate window too short for `single_rows`; else those 512 rows are compared, which exist anyway."""

TOLERANCE = 1e-5
"""In units of a column's deviation over the fit window, plus two last bits of float32. The same bars give the same bits
(see `rolling`). A feature that uses one future bar differs by more than a hundredth of its deviation."""

_DEVIATION_ROWS = 5000
_LAST_BITS = 2 * np.finfo(np.float32).eps


def measure_lookahead(context: EvaluationContext) -> dict[str, Any]:
    """Over fit and gate windows. `largest_difference` is in units of the column's deviation over the fit window.

    The candles before the lookback are cut off too: a feature that needs more bars than the bot fetches differs as well.
    """
    features, split = context.examples.features, context.examples.split
    columns = context.schema.columns
    sample = features[sample_evenly(np.arange(split.fit.stop), _DEVIATION_ROWS)]
    deviation = sample.reshape(-1, len(columns)).std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1.0  # a column that is constant
    fit_rows = sample_evenly(np.arange(split.fit.stop), FIT_ROWS)
    gate_rows = split.gate.start + context.single_rows
    if len(gate_rows):
        recomputed = context.single_features
    else:
        gate_rows = sample_evenly(np.arange(split.gate.start, split.gate.stop), GATE_ROWS)
        recomputed = _recompute_rows(context, gate_rows)
    recomputed = np.concatenate([_recompute_rows(context, fit_rows), recomputed])
    used = features[np.concatenate([fit_rows, gate_rows])].astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(recomputed - used)
        is_same = difference <= TOLERANCE * deviation + _LAST_BITS * np.abs(used)
    is_same = is_same.reshape(-1, len(columns))
    return {
        "rows": len(used),
        "columns_differing": [columns[column] for column in np.flatnonzero(~is_same.all(axis=0))],
        "largest_difference": float((difference / deviation).max()),
    }


def _recompute_rows(context: EvaluationContext, rows: np.ndarray) -> np.ndarray:
    """float32 [n, 72] or [n, L, 5]: each row's input from the candles up to it, at most the lookback's."""
    bars, lookback = context.examples.bars[rows], context.schema.lookback
    is_short = bars < lookback - 1  # never of a window
    short = [
        indicators.compute_features(context.frame.head(bar + 1), context.schema, np.float32)[-1:]
        for bar in bars[is_short].tolist()
    ]
    return np.concatenate(
        [*short, indicators.compute_latest_at(context.frame, bars[~is_short], context.schema)]
    )
