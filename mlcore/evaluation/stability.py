"""Whether a model is equally good in every month and at every volatility, and whether today's features have drifted."""

from typing import Any

import numpy as np

from mlcore.constants import PSI_DRIFTED, VOLATILITY_TERCILES
from mlcore.evaluation.context import EvaluationContext, sample_evenly
from mlcore.features import labels
from mlcore.features.indicators import SCHEMAS

RECENT_ROWS = 500

_FIT_ROWS = 5000
_OF_WINDOWS = "relative72"
_BINS = 10


def measure_stability(context: EvaluationContext) -> dict[str, Any]:
    """Accuracy of the gate window by calendar month (UTC) and by tercile of the trailing volatility."""
    times = context.examples.candles["timestamp"][context.examples.split.gate]
    months = times.dt.replace_time_zone(None).to_numpy().astype("datetime64[M]")
    closes, rows = context.gate_closes
    volatility = labels.compute_trailing_volatility(closes)[rows]
    lower, upper = np.quantile(volatility, [1 / 3, 2 / 3])
    terciles = (volatility > lower).astype(np.int8) + (volatility > upper)
    return {
        "months": [
            {"month": str(month), **_summarise(context.hits[months == month])} for month in np.unique(months)
        ],
        "volatility": [
            {"tercile": name, **_summarise(context.hits[terciles == tercile])}
            for tercile, name in enumerate(VOLATILITY_TERCILES)
        ],
    }


def _summarise(hits: np.ndarray) -> dict[str, Any]:
    return {"rows": len(hits), "accuracy": float(hits.mean()) if len(hits) else None}


def measure_drift(context: EvaluationContext) -> dict[str, Any]:
    """How far the newest rows' features are from those of the fit window; for a window's model, those of relative72.

    The population stability index of each feature over the deciles of the fit window: Σ (a − e) · ln(a / e), with a the
    share of recent rows in a bin, and e that of fit rows; an empty bin counts as half a row. A long fit window is
    sampled evenly.
    """
    schema = SCHEMAS[_OF_WINDOWS] if context.schema.is_window else context.schema
    training, measured = context.training_candles, context.build_judged_examples(schema)
    fitted_on = measured if training is None else context.build_examples(training, schema)
    fit = np.sort(sample_evenly(fitted_on.features[fitted_on.split.fit], _FIT_ROWS), axis=0)
    recent = np.sort(measured.features[measured.split.gate][-RECENT_ROWS:], axis=0)
    edges = fit[[len(fit) * bin_ // _BINS for bin_ in range(1, _BINS)]]
    indices = {
        name: _compute_psi(fit[:, column], recent[:, column], edges[:, column])
        for column, name in enumerate(schema.columns)
    }
    largest = max(indices, key=lambda name: indices[name])
    return {
        "recent_rows": len(recent),
        "fit_rows": len(fit),
        "psi": indices,
        "largest": {"name": largest, "psi": indices[largest]},
        "over": float(np.mean([index > PSI_DRIFTED for index in indices.values()])),
    }


def _compute_psi(fit: np.ndarray, recent: np.ndarray, edges: np.ndarray) -> float:
    """Of two sorted columns. Equal edges (a feature with few values) make bins that are empty in both."""
    expected, actual = (_compute_shares(column, edges) for column in (fit, recent))
    is_empty = (expected == 0) & (actual == 0)
    expected, actual = np.maximum(expected, 0.5 / len(fit)), np.maximum(actual, 0.5 / len(recent))
    return float(np.where(is_empty, 0.0, (actual - expected) * np.log(actual / expected)).sum())


def _compute_shares(column: np.ndarray, edges: np.ndarray) -> np.ndarray:
    borders = [0, *np.searchsorted(column, edges, side="right"), len(column)]
    return np.diff(borders) / len(column)
