"""Charts of runs and datasets: plain Plotly figures, drawn by the script of the page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from common.plotting import BAND, GREEN, RED, SERIES, Figure, build_trace, compute_middles
from mlcore.quality.market_checks import MAX_HOURLY_VOLATILITY, MIN_HOURLY_VOLATILITY
from training.models import Epoch, TrainingRun

MAX_CANDLES = 300
"""Each is at least two pixels wide."""

TICKS = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
"""Ticks of a logarithmic axis; those of Plotly overlap."""

CURVE: Figure = {"mode": "lines+markers", "line": {"width": 2}, "marker": {"size": 4}}

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
    losses = {"training": "train_loss", "validation": "validation_loss"}
    accuracy = {"validation": "validation_accuracy"}
    return {
        "loss": _draw_epochs(epochs, losses, "cross-entropy loss", allowed),
        "accuracy": _draw_epochs(epochs, accuracy, "validation accuracy", allowed, ".0%"),
    }


def _draw_epochs(
    epochs: Sequence[Epoch], columns: Mapping[str, str], title: str, allowed: int, form: str = ""
) -> Figure:
    """A curve of each named column by epoch, and a marker at the best epoch of the last one."""
    best = [epoch for epoch in epochs if epoch.is_best][-1:]

    def draw(column: str, shown: Sequence[Epoch], hover: str, **style: Any) -> Figure:
        values = [getattr(epoch, column) for epoch in shown]
        return build_trace([epoch.number for epoch in shown], values, hover, **style)

    curves = [
        draw(column, epochs, f"epoch %{{x}}, {name} %{{y:.4f}}", name=name, **CURVE)
        for name, column in columns.items()
    ]
    diamond: Figure = {"mode": "markers", "marker": {"size": 10, "symbol": "diamond"}}
    last = [*columns.values()][-1]
    marker = draw(last, best, "best: epoch %{x}, %{y:.4f}", name="best epoch", **diamond)
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "range": [0.5, max(2, allowed) + 0.5], "tickformat": "d"},
        "yaxis": {"title": {"text": title}, "tickformat": form},
        "legend": {"orientation": "h", "x": 0, "y": 1.12},
        "uirevision": title,
    }
    return {"data": [*curves, marker], "layout": layout}


def draw_compared_curves(compared: Sequence[TrainingRun]) -> dict[str, Figure]:
    """The validation loss and accuracy of several runs by epoch, each run in its colour. Empty without an epoch."""
    epochs = [list(run.epoch_rows.all()) for run in compared]
    if not any(epochs):
        return {}
    titles = {"loss": "validation loss", "accuracy": "validation accuracy"}
    figures = {}
    for name, title in titles.items():
        curves = [
            build_trace(
                [epoch.number for epoch in rows],
                [getattr(epoch, f"validation_{name}") for epoch in rows],
                f"run {run.pk}, epoch %{{x}}: %{{y:.4f}}",
                name=f"run {run.pk}",
                mode="lines+markers",
                line={"width": 2, "color": colour},
                marker={"size": 4, "color": colour},
            )
            for run, rows, colour in zip(compared, epochs, SERIES, strict=False)
        ]
        xaxis = {
            "title": {"text": "epoch"},
            "tickformat": "d",
            "range": [0.5, max(2, *map(len, epochs)) + 0.5],
        }
        form = {"tickformat": ".0%"} if name == "accuracy" else {}
        legend = {"orientation": "h", "x": 0, "y": 1.12}
        figures[name] = _build_figure(
            curves, title, form, xaxis=xaxis, legend=legend, uirevision=title, showlegend=True
        )
    return figures


def count_bars_per_candle(rows: int) -> int:
    return max(1, math.ceil(rows / MAX_CANDLES))


def draw_candlesticks(candles: pl.DataFrame) -> dict[str, Figure]:
    """The whole range as at most MAX_CANDLES candlesticks, each of as many bars as that takes, and their volumes below."""
    per_candle = count_bars_per_candle(candles.height)
    shown = (
        candles.with_row_index("bar")
        .group_by(pl.col("bar") // per_candle, maintain_order=True)
        .agg(
            pl.col("timestamp", "open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
    )
    times = shown["timestamp"].dt.strftime("%Y-%m-%d %H:%M").to_list()
    is_up = (shown["close"] >= shown["open"]).to_list()
    sticks: Figure = {
        "type": "candlestick",
        "x": times,
        **{name: shown[name].to_list() for name in ("open", "high", "low", "close")},
        "increasing": {"line": {"color": GREEN, "width": 1}, "fillcolor": GREEN},
        "decreasing": {"line": {"color": RED, "width": 1}, "fillcolor": RED},
    }
    volume: Figure = {
        "type": "bar",
        "x": times,
        "y": shown["volume"].to_list(),
        "yaxis": "y2",
        "marker": {"color": [GREEN if up else RED for up in is_up], "opacity": 0.45},
        "hovertemplate": "volume %{y:,.5~g}<extra></extra>",
    }
    layout = {
        "xaxis": {"rangeslider": {"visible": False}, "anchor": "y2"},
        "yaxis2": {"title": {"text": "volume"}, "domain": [0, 0.2], "rangemode": "tozero", "nticks": 2},
        "hovermode": "x",
        "bargap": 0.1,
    }
    return {"price": _build_figure([sticks, volume], "price", {"domain": [0.26, 1]}, **layout)}


def draw_market_statistics(document: Mapping[str, Any]) -> dict[str, Figure]:
    """The market statistics of stored candle checks with their allowed bands. Empty where none were computed."""
    plots = document.get("plots") or {}
    figures = {}
    if stretches := plots.get("stretches"):
        figures["variance_ratio"] = _draw_variance_ratio(stretches)
        figures["volatility"] = _draw_volatility(stretches, document.get("generator"))
    if (returns := plots.get("returns", {})).get("edges"):
        figures["returns"] = _draw_returns(returns)
    if any(day := plots.get("day", [])):
        figures["day"] = _draw_day(day)
    return figures


def _draw_variance_ratio(stretches: Sequence[Mapping[str, Any]]) -> Figure:
    at, bands = [s["at"] for s in stretches], [s["band"] for s in stretches]
    band = _build_band(at, [low for low, _ in bands], [high for _, high in bands], BAND)
    curve = build_trace(at, [s["variance_ratio"] for s in stretches], "%{x}: %{y:.2f}", **CURVE)
    return _build_figure([*band, curve], "variance ratio", {"rangemode": "tozero"})


def _draw_volatility(stretches: Sequence[Mapping[str, Any]], generator: object) -> Figure:
    values = [s["volatility"] for s in stretches]
    curve = build_trace([s["at"] for s in stretches], values, "%{x}: %{y:.2%} per hour", **CURVE)
    axis = {"type": "log", "tickformat": ".2~%", "tickvals": TICKS}
    axis["range"] = _compute_log_range(values, generator is None)
    figure = _build_figure([curve], "volatility per hour", axis)
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


def _draw_returns(histogram: Mapping[str, Any]) -> Figure:
    edges = histogram["edges"]
    middles = compute_middles(edges)
    bar = {"type": "bar", "name": "this dataset", "width": edges[1] - edges[0]}
    bars = build_trace(middles, histogram["shares"], "%{x:.2f} deviations: %{y:.2%}", **bar)
    dotted: Figure = {"mode": "lines", "name": "normal distribution", "line": {"width": 1.5, "dash": "dot"}}
    normal = build_trace(middles, histogram["normal"], **dotted)
    layout = {
        "xaxis": {"title": {"text": "standard deviations"}},
        "bargap": 0,
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.15},
    }
    return _build_figure([bars, normal], "share of bars", {"tickformat": ".0%"}, **layout)


def _draw_day(shares: Sequence[float | None]) -> Figure:
    hours = [f"{hour:02}" for hour in range(len(shares))]
    bars = build_trace(hours, shares, "%{x}:00 UTC: %{y:.2f} times the mean", type="bar")
    xaxis = {"title": {"text": "hour (UTC)"}, "type": "category"}
    return _build_figure([bars], "volume / mean", xaxis=xaxis, bargap=0.15)


def _build_band(x: Sequence[Any], low: Sequence[float], high: Sequence[float], colour: str) -> list[Figure]:
    """The area between two curves."""
    edge: Figure = {"mode": "lines", "line": {"width": 0}}
    return [build_trace(x, low, **edge), build_trace(x, high, fill="tonexty", fillcolor=colour, **edge)]


def _build_figure(
    data: list[Figure], title: str, yaxis: Mapping[str, Any] | None = None, **layout: Any
) -> Figure:
    axis = {"title": {"text": title, "standoff": 12}, **(yaxis or {})}  # beside long labels too
    return {
        "data": data,
        "layout": {"showlegend": False, "yaxis": axis, "hovermode": "closest", **layout},
    }
