"""Runs and candles as pictures: plain Plotly figures, drawn by the page's own script."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import polars as pl

from mlcore.quality.market_checks import LEAST_HOURLY_VOLATILITY, MOST_HOURLY_VOLATILITY
from training.models import Epoch

Figure = dict[str, Any]

MOST_POINTS = 1200
"""About one a pixel; more cost time to send and draw, and show nothing more."""

BAND = "rgba(63,166,107,0.16)"
TICKS = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
"""Of a logarithmic axis; Plotly's own lie over one another."""

JUDGED = {
    "variance_ratio": (
        "Variance ratio",
        "Moves over 16 bars against moves of one: a market's stay near 1, in the band",
    ),
    "volatility": ("Volatility", "Standard deviation of returns, scaled to an hour"),
    "returns": ("Returns", "Quiet bars and violent ones, against the normal distribution"),
    "day": ("The day", "Volume by the hour: every market sleeps"),
}
"""The pictures of a judgement: what each is called, and what it shows."""


def learning(epochs: Sequence[Epoch], allowed: int) -> dict[str, Figure]:
    """How the losses and the accuracy went, epoch by epoch. Nothing for a run that has reported none."""
    if not epochs:
        return {}
    numbers = [epoch.number for epoch in epochs]
    best = [epoch for epoch in epochs if epoch.is_best][-1:]
    losses = [
        _curve("training", numbers, (epoch.train_loss for epoch in epochs)),
        _curve("validation", numbers, (epoch.validation_loss for epoch in epochs)),
        _best(best, [epoch.validation_loss for epoch in best]),
    ]
    accuracy = [
        _curve("validation", numbers, (epoch.validation_accuracy for epoch in epochs)),
        _best(best, [epoch.validation_accuracy for epoch in best]),
    ]
    return {
        "loss": _over_epochs(losses, "loss", allowed),
        "accuracy": _over_epochs(accuracy, "accuracy", allowed, ".0%"),
    }


def price(candles: pl.DataFrame) -> dict[str, Figure]:
    """Closing prices over the whole range, with the highs and lows of each stretch behind them."""
    every = max(1, math.ceil(candles.height / MOST_POINTS))
    stretches = (
        candles.with_row_index("bar")
        .group_by(pl.col("bar") // every, maintain_order=True)
        .agg(pl.col("timestamp").last(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last())
    )
    times = stretches["timestamp"].dt.strftime("%Y-%m-%d %H:%M").to_list()
    edge = {
        "type": "scatter",
        "mode": "lines",
        "x": times,
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return {
        "price": {
            "data": [
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": "close",
                    "x": times,
                    "y": stretches["close"].to_list(),
                    "line": {"width": 1.2},
                    "hovertemplate": "%{x} UTC: %{y:,.6~g}<extra></extra>",
                },
                {**edge, "y": stretches["high"].to_list()},
                {
                    **edge,
                    "y": stretches["low"].to_list(),
                    "fill": "tonexty",
                    "fillcolor": "rgba(128,128,128,0.25)",
                },
            ],
            "layout": {"showlegend": False, "yaxis": {"title": {"text": "price"}}, "hovermode": "x"},
        }
    }


def judged(document: Mapping[str, Any]) -> dict[str, Figure]:
    """How candles moved against the bands they were judged by, from a stored judgement; nothing of one without."""
    plots = document.get("plots") or {}
    drawn = {
        "variance_ratio": _variance_ratio(plots.get("stretches", [])),
        "volatility": _volatility(plots.get("stretches", []), document.get("generator")),
        "returns": _returns(plots.get("returns", {})),
        "day": _day(plots.get("day", [])),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _variance_ratio(stretches: Sequence[Mapping[str, Any]]) -> Figure | None:
    if not stretches:
        return None
    at, bands = [s["at"] for s in stretches], [s["band"] for s in stretches]
    edge: Figure = {"type": "scatter", "mode": "lines", "x": at, "line": {"width": 0}, "hoverinfo": "skip"}
    band = [
        {**edge, "y": [low for low, _ in bands], "showlegend": False},
        {
            **edge,
            "y": [high for _, high in bands],
            "fill": "tonexty",
            "fillcolor": BAND,
            "name": "a market's",
        },
    ]
    line = _over_time(at, [s["variance_ratio"] for s in stretches], "%{x}: %{y:.2f}<extra></extra>")
    return _titled([*band, line], "variance ratio", rangemode="tozero")


def _volatility(stretches: Sequence[Mapping[str, Any]], generator: object) -> Figure | None:
    if not stretches:
        return None
    at = [s["at"] for s in stretches]
    line = _over_time(at, [s["volatility"] for s in stretches], "%{x}: %{y:.2%} an hour<extra></extra>")
    figure = _titled([line], "volatility an hour", type="log", tickformat=".2~%", tickvals=TICKS)
    if generator is None:
        figure["layout"]["shapes"] = [
            {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": LEAST_HOURLY_VOLATILITY,
             "y1": MOST_HOURLY_VOLATILITY, "fillcolor": BAND, "line": {"width": 0}, "layer": "below"}
        ]  # fmt: skip
        figure["layout"]["yaxis"]["range"] = _log_range([s["volatility"] for s in stretches])
    return figure


def _log_range(values: Sequence[float | None]) -> list[float]:
    seen = [value for value in values if value]
    low = min(*seen, LEAST_HOURLY_VOLATILITY) if seen else LEAST_HOURLY_VOLATILITY
    high = max(*seen, MOST_HOURLY_VOLATILITY) if seen else MOST_HOURLY_VOLATILITY
    return [math.log10(low * 0.8), math.log10(high * 1.25)]


def _returns(histogram: Mapping[str, Any]) -> Figure | None:
    edges = histogram.get("edges")
    if not edges:
        return None
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    bars = {
        "type": "bar",
        "name": "these",
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
    figure = _titled([bars, normal], "share of bars", tickformat=".0%")
    figure["layout"] |= {"xaxis": {"title": {"text": "standard deviations"}}, "bargap": 0}
    figure["layout"] |= {
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.15},
        "hovermode": "closest",
    }
    return figure


def _day(shares: Sequence[float | None]) -> Figure | None:
    if not any(shares):
        return None
    bars = {
        "type": "bar",
        "x": [f"{hour:02}" for hour in range(len(shares))],
        "y": shares,
        "hovertemplate": "%{x}:00 UTC: %{y:.2f} times the mean<extra></extra>",
    }
    figure = _titled([bars], "volume over its mean")
    figure["layout"] |= {"xaxis": {"title": {"text": "hour, UTC"}, "type": "category"}, "bargap": 0.15}
    return figure


def _over_time(at: list[str], values: list[float | None], hover: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": at,
        "y": values,
        "line": {"width": 2},
        "marker": {"size": 4},
        "showlegend": False,
        "hovertemplate": hover,
    }


def _titled(data: list[Figure], title: str, **axis: Any) -> Figure:
    return {
        "data": data,
        "layout": {"showlegend": False, "yaxis": {"title": {"text": title}, **axis}, "hovermode": "closest"},
    }


def _curve(name: str, numbers: list[int], values: Iterable[float | None]) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": numbers,
        "y": list(values),
        "line": {"width": 2},
        "marker": {"size": 4},
        "hovertemplate": f"epoch %{{x}}, {name} %{{y:.4f}}<extra></extra>",
    }


def _best(best: Sequence[Epoch], values: Sequence[float | None]) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "best",
        "x": [epoch.number for epoch in best],
        "y": list(values),
        "marker": {"size": 10, "symbol": "diamond"},
        "hovertemplate": "best: epoch %{x}, %{y:.4f}<extra></extra>",
    }


def _over_epochs(data: list[Figure], title: str, allowed: int, form: str = "") -> Figure:
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": "epoch"}, "range": [0.5, max(2, allowed) + 0.5], "tickformat": "d"},
            "yaxis": {"title": {"text": title}, "tickformat": form},
            "legend": {"orientation": "h", "x": 0, "y": 1.12},
            "uirevision": title,
        },
    }
