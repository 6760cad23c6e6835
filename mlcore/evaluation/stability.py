"""Whether a model is as good in one month as in the next, in calm as in wild hours, and on today's candles."""

from itertools import pairwise
from typing import Any

import numpy as np

from mlcore.constants import PSI_DRIFTED, VOLATILITY_TERCILES
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.single_rows import sample_evenly
from mlcore.features import labels

RECENT_ROWS = 500

_FIT_ROWS = 5000
_BANDS = 10


def measure_stability(context: EvaluationContext) -> dict[str, Any]:
    """Accuracy of the gate window by calendar month (UTC) and by tercile of the trailing volatility."""
    times = context.examples.timestamps[context.examples.split.gate.start :]
    months = times.dt.replace_time_zone(None).to_numpy().astype("datetime64[M]")
    closes, rows = context.gate_closes
    volatility = labels.compute_trailing_volatility(closes)[rows]
    calm, usual = np.quantile(volatility, [1 / 3, 2 / 3])
    terciles = (volatility > calm).astype(np.int8) + (volatility > usual)
    return {
        "months": [
            {"month": str(months[some.start]), **_among(context.hits[some])} for some in _alike(months)
        ],
        "volatility": [
            {"tercile": name, **_among(context.hits[terciles == tercile])}
            for tercile, name in enumerate(VOLATILITY_TERCILES)
        ],
    }


def _alike(values: np.ndarray) -> list[slice]:
    """Stretches of equal values, which stand together: time only grows."""
    borders = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return [slice(start, stop) for start, stop in pairwise(borders)]


def _among(hits: np.ndarray) -> dict[str, Any]:
    return {"rows": len(hits), "accuracy": float(hits.mean()) if len(hits) else None}


def measure_drift(context: EvaluationContext) -> dict[str, Any]:
    """How far the newest rows' features are from those that were fitted on.

    The population stability index of each feature over the deciles of the fit window: Σ (a − e) · ln(a / e), a the
    share of recent rows in a band, e that of fit rows; an empty band counts as half a row. Of a long fit window evenly
    spread rows are enough.
    """
    learned = context.training or context.examples
    fitted = np.sort(sample_evenly(learned.features[learned.split.fit], _FIT_ROWS), axis=0)
    recent = np.sort(context.examples.features[context.examples.split.gate][-RECENT_ROWS:], axis=0)
    edges = fitted[[len(fitted) * band // _BANDS for band in range(1, _BANDS)]]
    indices = {
        name: _stability_index(fitted[:, column], recent[:, column], edges[:, column])
        for column, name in enumerate(context.schema.columns)
    }
    largest = max(indices, key=lambda name: indices[name])
    return {
        "recent_rows": len(recent),
        "fit_rows": len(fitted),
        "psi": indices,
        "largest": {"name": largest, "psi": indices[largest]},
        "over": float(np.mean([index > PSI_DRIFTED for index in indices.values()])),
    }


def _stability_index(fitted: np.ndarray, recent: np.ndarray, edges: np.ndarray) -> float:
    """Of two sorted columns. Equal edges (a feature that takes few values) make bands that are empty in both."""
    expected, actual = (_shares(column, edges) for column in (fitted, recent))
    is_empty = (expected == 0) & (actual == 0)
    expected, actual = np.maximum(expected, 0.5 / len(fitted)), np.maximum(actual, 0.5 / len(recent))
    return float(np.where(is_empty, 0.0, (actual - expected) * np.log(actual / expected)).sum())


def _shares(column: np.ndarray, edges: np.ndarray) -> np.ndarray:
    borders = [0, *np.searchsorted(column, edges, side="right"), len(column)]
    return np.diff(borders) / len(column)
