"""The small arrays a page draws of a judged series: how it moved against the bands it was judged by."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from mlcore.quality.market_statistics import DAY, Market

_EDGES = np.linspace(-6, 6, 49)


def build_plot_data(
    market: Market, compute_variance_ratio_band: Callable[[int], tuple[float, float]]
) -> dict[str, Any]:
    """Variance ratio and volatility stretch by stretch, the returns' histogram in their own deviations, the day."""
    return {
        "stretches": [
            {
                "at": _day(part),
                "variance_ratio": _rounded(part.variance_ratio),
                "band": [_rounded(bound) for bound in compute_variance_ratio_band(len(part))],
                "volatility": _rounded(part.hourly_volatility),
            }
            for part in market.stretches()
            if len(part) > 32
        ],
        "returns": _histogram(market.returns),
        "day": [_rounded(share) for share in market.profile(DAY, 24)]
        if market.interval_seconds < DAY
        else [],
    }


def _histogram(returns: np.ndarray) -> dict[str, list[float | None]]:
    deviation = float(returns.std()) if len(returns) else 0.0
    if not deviation:
        return {"edges": [], "shares": [], "normal": []}
    inside = np.clip((returns - returns.mean()) / deviation, _EDGES[0], _EDGES[-1])
    shares = np.histogram(inside, _EDGES)[0] / len(returns)
    middles = (_EDGES[1:] + _EDGES[:-1]) / 2
    normal = np.exp(-(middles**2) / 2) / np.sqrt(2 * np.pi) * np.diff(_EDGES)
    return {
        "edges": _EDGES.tolist(),
        "shares": [_rounded(x) for x in shares],
        "normal": [_rounded(x) for x in normal],
    }


def _day(part: Market) -> str:
    middle = int(part.seconds[len(part) // 2])
    return datetime.fromtimestamp(middle, UTC).strftime("%Y-%m-%d %H:%M")


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
