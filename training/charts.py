"""Runs and candles as pictures: plain Plotly figures, drawn by the page's own script."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from training.models import Epoch

Figure = dict[str, Any]

MOST_POINTS = 1200
"""About one a pixel; more cost time to send and draw, and show nothing more."""


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
