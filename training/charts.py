"""Charts of runs and datasets: plain Plotly figures, drawn by the script of the page."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import polars as pl

from common.plotting import BAND, GRID, Figure
from mlcore.quality.market_checks import MAX_HOURLY_VOLATILITY, MIN_HOURLY_VOLATILITY
from training.models import Epoch

MAX_POINTS = 1200
"""About one per pixel."""

TICKS = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
"""Ticks of a logarithmic axis; those of Plotly overlap."""

MARKET_CHARTS = {
    "variance_ratio": (
        "Variance ratio",
        "Variance of 16-bar returns divided by 16 times that of 1-bar returns; band: usual for a market",
    ),
    "volatility": ("Volatility", "Standard deviation of returns per hour"),
    "returns": (
        "Return distribution",
        "Returns in standard deviations, compared with the normal distribution",
    ),
    "day": ("Volume by hour of day", "Mean volume of each hour divided by the mean of all hours"),
}
"""The charts of the market statistics: title and description of each."""


def draw_learning_curves(epochs: Sequence[Epoch], allowed: int) -> dict[str, Figure]:
    """Losses and validation accuracy by epoch. Empty for a run without epochs."""
    if not epochs:
        return {}
    losses = [
        _build_epoch_curve("training", epochs, "train_loss"),
        _build_epoch_curve("validation", epochs, "validation_loss"),
        _build_best_marker(epochs, "validation_loss"),
    ]
    accuracy = [
        _build_epoch_curve("validation", epochs, "validation_accuracy"),
        _build_best_marker(epochs, "validation_accuracy"),
    ]
    return {
        "loss": _build_epoch_figure(losses, "cross-entropy loss", allowed),
        "accuracy": _build_epoch_figure(accuracy, "validation accuracy", allowed, ".0%"),
    }


def draw_price(candles: pl.DataFrame) -> dict[str, Figure]:
    """Closing prices over the whole range, with the band from low to high behind them."""
    bars_per_point = max(1, math.ceil(candles.height / MAX_POINTS))
    points = (
        candles.with_row_index("bar")
        .group_by(pl.col("bar") // bars_per_point, maintain_order=True)
        .agg(pl.col("timestamp").last(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last())
    )
    times = points["timestamp"].dt.strftime("%Y-%m-%d %H:%M").to_list()
    close = {
        **_build_curve(times, points["close"].to_list(), "%{x} UTC: %{y:,.6~g}<extra></extra>"),
        "mode": "lines",
        "name": "close",
        "line": {"width": 1.2},
    }
    band = _build_band(times, points["low"].to_list(), points["high"].to_list(), GRID)
    layout = {"showlegend": False, "yaxis": {"title": {"text": "price"}}, "hovermode": "x"}
    return {"price": {"data": [close, *band], "layout": layout}}


def draw_market_statistics(document: Mapping[str, Any]) -> dict[str, Figure]:
    """The market statistics of stored candle checks with their allowed bands. Empty where none were computed."""
    plots = document.get("plots") or {}
    drawn = {
        "variance_ratio": _draw_variance_ratio(plots.get("stretches", [])),
        "volatility": _draw_volatility(plots.get("stretches", []), document.get("generator")),
        "returns": _draw_returns(plots.get("returns", {})),
        "day": _draw_day(plots.get("day", [])),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _draw_variance_ratio(stretches: Sequence[Mapping[str, Any]]) -> Figure | None:
    if not stretches:
        return None
    at, bands = [s["at"] for s in stretches], [s["band"] for s in stretches]
    band = _build_band(at, [low for low, _ in bands], [high for _, high in bands], BAND)
    line = _build_curve(at, [s["variance_ratio"] for s in stretches], "%{x}: %{y:.2f}<extra></extra>")
    return _build_figure([*band, line], "variance ratio", rangemode="tozero")


def _draw_volatility(stretches: Sequence[Mapping[str, Any]], generator: object) -> Figure | None:
    if not stretches:
        return None
    at = [s["at"] for s in stretches]
    line = _build_curve(at, [s["volatility"] for s in stretches], "%{x}: %{y:.2%} per hour<extra></extra>")
    figure = _build_figure([line], "volatility per hour", type="log", tickformat=".2~%", tickvals=TICKS)
    figure["layout"]["yaxis"]["range"] = _compute_log_range(
        [s["volatility"] for s in stretches], generator is None
    )
    if generator is None:
        figure["layout"]["shapes"] = [
            {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": MIN_HOURLY_VOLATILITY,
             "y1": MAX_HOURLY_VOLATILITY, "fillcolor": BAND, "line": {"width": 0}, "layer": "below"}
        ]  # fmt: skip
    return figure


def _compute_log_range(values: Sequence[float | None], has_band: bool) -> list[float]:
    """The range of the axis: all values, the allowed band where there is one, and a tick on either side."""
    shown = [value for value in values if value]
    if has_band or not shown:
        shown += [MIN_HOURLY_VOLATILITY, MAX_HOURLY_VOLATILITY]
    low = max((tick for tick in TICKS if tick <= min(shown)), default=min(shown))
    high = min((tick for tick in TICKS if tick >= max(shown)), default=max(shown))
    return [math.log10(low * 0.9), math.log10(high * 1.1)]


def _draw_returns(histogram: Mapping[str, Any]) -> Figure | None:
    edges = histogram.get("edges")
    if not edges:
        return None
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    bars = {
        "type": "bar",
        "name": "this dataset",
        "x": middles,
        "y": histogram["shares"],
        "width": edges[1] - edges[0],
        "hovertemplate": "%{x:.2f} deviations: %{y:.2%}<extra></extra>",
    }
    normal = {
        "type": "scatter",
        "mode": "lines",
        "name": "normal distribution",
        "x": middles,
        "y": histogram["normal"],
        "line": {"width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
    }
    figure = _build_figure([bars, normal], "share of bars", tickformat=".0%")
    figure["layout"] |= {"xaxis": {"title": {"text": "standard deviations"}}, "bargap": 0}
    figure["layout"] |= {
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.15},
        "hovermode": "closest",
    }
    return figure


def _draw_day(shares: Sequence[float | None]) -> Figure | None:
    if not any(shares):
        return None
    bars = {
        "type": "bar",
        "x": [f"{hour:02}" for hour in range(len(shares))],
        "y": shares,
        "hovertemplate": "%{x}:00 UTC: %{y:.2f} times the mean<extra></extra>",
    }
    figure = _build_figure([bars], "volume / mean")
    figure["layout"] |= {"xaxis": {"title": {"text": "hour (UTC)"}, "type": "category"}, "bargap": 0.15}
    return figure


def _build_curve(x: Sequence[Any], y: Sequence[float | None], hover: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": y,
        "line": {"width": 2},
        "marker": {"size": 4},
        "hovertemplate": hover,
    }


def _build_band(x: Sequence[Any], low: Sequence[float], high: Sequence[float], colour: str) -> list[Figure]:
    """The area between two curves."""
    edge = {"type": "scatter", "mode": "lines", "x": x, "line": {"width": 0}, "hoverinfo": "skip"}
    return [{**edge, "y": low}, {**edge, "y": high, "fill": "tonexty", "fillcolor": colour}]


def _build_figure(data: list[Figure], title: str, **axis: Any) -> Figure:
    return {
        "data": data,
        "layout": {"showlegend": False, "yaxis": {"title": {"text": title}, **axis}, "hovermode": "closest"},
    }


def _build_epoch_curve(name: str, epochs: Sequence[Epoch], column: str) -> Figure:
    values = [getattr(epoch, column) for epoch in epochs]
    hover = f"epoch %{{x}}, {name} %{{y:.4f}}<extra></extra>"
    return {**_build_curve([epoch.number for epoch in epochs], values, hover), "name": name}


def _build_best_marker(epochs: Sequence[Epoch], column: str) -> Figure:
    best = [epoch for epoch in epochs if epoch.is_best][-1:]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "best epoch",
        "x": [epoch.number for epoch in best],
        "y": [getattr(epoch, column) for epoch in best],
        "marker": {"size": 10, "symbol": "diamond"},
        "hovertemplate": "best: epoch %{x}, %{y:.4f}<extra></extra>",
    }


def _build_epoch_figure(data: list[Figure], title: str, allowed: int, form: str = "") -> Figure:
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": "epoch"}, "range": [0.5, max(2, allowed) + 0.5], "tickformat": "d"},
            "yaxis": {"title": {"text": title}, "tickformat": form},
            "legend": {"orientation": "h", "x": 0, "y": 1.12},
            "uirevision": title,
        },
    }
