"""Whether any feature sees the future: rows computed again from candles that end with them."""

from typing import Any

import numpy as np

from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.single_rows import sample_evenly
from mlcore.features import indicators

FIT_ROWS = 64
GATE_ROWS = 64
"""Of a gate window too short for `single_rows`; else those 512 are compared, which are computed anyway."""

TOLERANCE = 1e-5
"""In units of a column's deviation over the fit window, with two last bits of float32 beside it. The same bars give the
same bits (see `rolling`); a feature that sees one bar ahead is off by more than a hundredth of its deviation."""

_UNIT_ROWS = 5000
_LAST_BITS = 2 * np.finfo(np.float32).eps


def measure_lookahead(context: EvaluationContext) -> dict[str, Any]:
    """Rows over fit and gate windows; `largest_difference` is in units of the column's deviation over the fit window.

    Cut off is also what lies before the lookback: a feature that needs more than the bot fetches shows here too.
    """
    found = context.examples
    unit = _unit(sample_evenly(found.features[found.split.fit], _UNIT_ROWS))
    fit_rows = sample_evenly(np.arange(found.split.fit.stop), FIT_ROWS)
    gate_rows = found.split.gate.start + context.single_rows
    alone = [_cut_off(context, fit_rows)]
    if len(gate_rows):
        alone.append(context.single_features)
    else:
        gate_rows = sample_evenly(np.arange(found.split.gate.start, found.split.gate.stop), GATE_ROWS)
        alone.append(_cut_off(context, gate_rows))
    whole = found.features[np.concatenate([fit_rows, gate_rows])].astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.concatenate(alone) - whole)
        same = difference <= TOLERANCE * unit + _LAST_BITS * np.abs(whole)
    columns = context.schema.columns
    return {
        "rows": len(whole),
        "columns_differing": [columns[column] for column in np.flatnonzero(~same.all(axis=0))],
        "largest_difference": float((difference / unit).max()),
    }


def _unit(rows: np.ndarray) -> np.ndarray:
    deviation = rows.std(axis=0, dtype=np.float64)
    return np.where(deviation > 0, deviation, 1.0)


def _cut_off(context: EvaluationContext, rows: np.ndarray) -> np.ndarray:
    """float32 [n, 72]: each row's features from the candles up to it, at most the lookback's."""
    bars, lookback = context.examples.bars[rows], context.schema.lookback
    short = bars < lookback - 1
    alone = [
        indicators.compute_rows(context.frame.head(bar + 1), context.schema)[-1:]
        for bar in bars[short].tolist()
    ]
    return np.concatenate([*alone, indicators.compute_latest_at(context.frame, bars[~short], context.schema)])
