"""The data of a dataset's plots: its statistics, and the ranges that they were checked against."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from mlcore.quality.market_statistics import DAY, HOUR, Market, compute_variance_ratio_band

_EDGES = np.linspace(-6, 6, 49)


def build_plot_data(market: Market) -> dict[str, Any]:
    """Variance ratio and volatility by stretch, the histogram of standardised returns, the volume by hour of day."""
    return {
        "stretches": [
            {
                "at": f"{datetime.fromtimestamp(int(part.seconds[len(part) // 2]), UTC):%Y-%m-%d %H:%M}",
                "variance_ratio": _round(part.variance_ratio),
                "band": [_round(bound) for bound in compute_variance_ratio_band(len(part))],
                "volatility": _round(part.hourly_volatility),
            }
            for part in market.parts[1:]
            if len(part) > 32
        ],
        "returns": _build_histogram(market.returns),
        "day": list(map(_round, _compute_daily_profile(market))) if market.interval_seconds < DAY else [],
    }


def _compute_daily_profile(market: Market) -> np.ndarray:
    """Mean volume by hour of day, over the mean volume: [24], NaN for an hour without bars."""
    hour = market.seconds % DAY // HOUR
    counts = np.bincount(hour, minlength=24)
    means = np.full(24, np.nan)
    np.divide(np.bincount(hour, market.volume, 24), counts, out=means, where=counts > 0)
    return means / (float(market.volume.mean()) or 1.0)


def _build_histogram(returns: np.ndarray) -> dict[str, list[float | None]]:
    deviation = float(returns.std()) if len(returns) else 0.0
    if not deviation:
        return {"edges": [], "shares": [], "normal": []}
    inside = np.clip((returns - returns.mean()) / deviation, _EDGES[0], _EDGES[-1])
    shares = np.histogram(inside, _EDGES)[0] / len(returns)
    middles = (_EDGES[1:] + _EDGES[:-1]) / 2
    normal = np.exp(-(middles**2) / 2) / np.sqrt(2 * np.pi) * np.diff(_EDGES)
    return {
        "edges": _EDGES.tolist(),
        "shares": list(map(_round, shares)),
        "normal": list(map(_round, normal)),
    }


def _round(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
