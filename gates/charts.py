"""A diagnosis as pictures: plain Plotly figures (dicts, ready for JSON), drawn by the page's own script.

Backgrounds are transparent and fonts left to the page, so that one figure serves light and dark. What was not measured
is not drawn.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from gates.rules import SEED_POLICY
from gates.seed_gates import DIRECTIONS

Figure = dict[str, Any]

BLUE, RED, GREEN, GREY = "#4c8bf5", "#e5534b", "#3fa66b", "#8b949e"
GRID = "rgba(128,128,128,0.25)"
BAND = "rgba(63,166,107,0.16)"
CLEAR = "rgba(0,0,0,0)"
NAMES = [direction.capitalize() for direction in DIRECTIONS]

EXPLODED = 100.0
"""Logits beyond this are drawn on a logarithmic axis: on a linear one the allowed band would be a hair."""


def charts(document: Mapping[str, Any], policy: Mapping[str, Any] = SEED_POLICY) -> dict[str, Figure]:
    """Every picture that a measurement document holds figures for, by name, with the policy's thresholds drawn in."""
    gates = policy.get("gates", {})
    drawn = {name: draw(document, gates) for name, draw in _CHARTS.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def confidence(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """How sure the network is, how often; red where the confidence gate counts."""
    found = _histogram(document.get("confidence"))
    if found is None:
        return None
    edges, counts = found
    level = float(gates.get("confidence", {}).get("level", 0.9))
    bars = _bars(edges, _shares(counts), [RED if edge >= level - 1e-9 else BLUE for edge in edges[:-1]])
    layout = _layout("Confidence of predictions", "probability of the direction said", "share of predictions")
    layout["xaxis"] |= {"tickformat": ".0%", "range": [min(edges), 1]}
    layout["yaxis"] |= {"tickformat": ".0%"}
    layout["shapes"] = [_line(level)]
    return {"data": [bars], "layout": layout}


def logits(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """The network's raw answers against the allowed range, on a logarithmic axis where they explode."""
    found = _histogram(document.get("logits"))
    if found is None:
        return None
    edges, counts = found
    band = gates.get("logit_range", {})
    low, high = float(band.get("least", -10)), float(band.get("greatest", 10))
    has_exploded = max(abs(edges[0]), abs(edges[-1])) > EXPLODED
    scale: Callable[[float], float] = _signed_log if has_exploded else float
    colours = [BLUE if low <= left and right <= high else RED for left, right in pairwise(edges)]
    bars = _bars([scale(edge) for edge in edges], _shares(counts), colours)
    bars["customdata"] = [f"{left:,.4g} … {right:,.4g}" for left, right in pairwise(edges)]
    bars["hovertemplate"] = "%{customdata}: %{y:.2%}<extra></extra>"
    layout = _layout("Logits", "logit (logarithmic)" if has_exploded else "logit", "share of logits")
    layout["yaxis"] |= {"tickformat": ".0%"}
    layout["shapes"] = [_band("x", scale(low), scale(high))]
    reach = [scale(min(edges[0], low)), scale(max(edges[-1], high))]
    layout["xaxis"] |= {"range": [1.05 * reach[0], 1.05 * reach[1]]}
    if has_exploded:
        layout["xaxis"] |= _log_ticks(max(abs(edges[0]), abs(edges[-1])))
    return {"data": [bars], "layout": layout}


def shares(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """How often each direction is said, against the band it must lie in."""
    found = document.get("shares")
    said = [found[d] for d in DIRECTIONS if _is_figure(found.get(d))] if isinstance(found, Mapping) else []
    if len(said) < len(DIRECTIONS):
        return None
    band = gates.get("class_balance", {})
    low, high = float(band.get("least", 0.2)), float(band.get("most", 0.4))
    bars = {
        "type": "bar",
        "x": NAMES,
        "y": said,
        "marker": {"color": [BLUE if low <= share <= high else RED for share in said]},
        "text": [f"{share:.1%}" for share in said],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{x}: %{y:.2%}<extra></extra>",
    }
    layout = _layout("Predicted directions", "", "share of predictions")
    layout["bargap"] = 0.4
    layout["yaxis"] |= {"tickformat": ".0%", "range": [0, max(1.15 * max(said), 1.5 * high)]}
    layout["shapes"] = [_band("y", low, high)]
    return {"data": [bars], "layout": layout}


def confusion(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """What was said when what came: rows are what came, each adding up to one."""
    rows = document.get("confusion")
    if not isinstance(rows, Sequence) or len(rows) != 3 or not all(_is_row(row) for row in rows):
        return None
    table = [[count / max(1, sum(row)) for count in row] for row in rows]
    heat = {
        "type": "heatmap",
        "x": NAMES,
        "y": NAMES,
        "z": table,
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "rgba(76,139,245,0.04)"], [1, "rgba(76,139,245,0.9)"]],
        "showscale": False,
        "hovertemplate": "came %{y}, said %{x}: %{z:.1%}<extra></extra>",
    }
    layout = _layout("What came, what was said", "said", "came")
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False}
    layout["xaxis"] |= {"showgrid": False}
    # As annotations, for these take the page's font colour: Plotly's own cell texts reckon with a white page.
    layout["annotations"] = [
        {
            "x": said,
            "y": came,
            "text": f"{table[row][column]:.0%}<br>{rows[row][column]:,}",
            "showarrow": False,
        }
        for row, came in enumerate(NAMES)
        for column, said in enumerate(NAMES)
    ]
    return {"data": [heat], "layout": layout}


def reliability(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """How often it is right when it is so sure; on the diagonal its certainty means what it says."""
    bins = document.get("reliability")
    points = [b for b in bins if _is_bin(b)] if isinstance(bins, Sequence) else []
    if not points:
        return None
    most = max(point["rows"] for point in points)
    curve = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [point["confidence"] for point in points],
        "y": [point["accuracy"] for point in points],
        "marker": {"color": BLUE, "size": [6 + 14 * math.sqrt(point["rows"] / most) for point in points]},
        "line": {"color": BLUE},
        "customdata": [point["rows"] for point in points],
        "hovertemplate": "sure %{x:.1%}, right %{y:.1%}, %{customdata:,} rows<extra></extra>",
    }
    ideal = {
        "type": "scatter",
        "mode": "lines",
        "x": [1 / 3, 1],
        "y": [1 / 3, 1],
        "line": {"color": GREY, "dash": "dash"},
        "hoverinfo": "skip",
    }
    layout = _layout("How sure, how often right", "probability said", "share that was right")
    layout["xaxis"] |= {"tickformat": ".0%", "range": [0.3, 1.02]}
    layout["yaxis"] |= {"tickformat": ".0%", "range": [0, 1.02]}
    return {"data": [ideal, curve], "layout": layout}


_CHARTS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Figure | None]] = {
    "confidence": confidence,
    "logits": logits,
    "shares": shares,
    "confusion": confusion,
    "reliability": reliability,
}


def _layout(title: str, x: str, y: str) -> Figure:
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "automargin": True}
    return {
        "title": {"text": title},
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": y}},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "showlegend": False,
        "bargap": 0.02,
        "margin": {"l": 48, "r": 16, "t": 40, "b": 44},
    }


def _bars(edges: Sequence[float], heights: Sequence[float], colours: Sequence[str]) -> Figure:
    pairs = list(pairwise(edges))
    return {
        "type": "bar",
        "x": [(left + right) / 2 for left, right in pairs],
        "y": heights,
        "width": [right - left for left, right in pairs],
        "marker": {"color": colours},
        "hovertemplate": "%{x:.3f}: %{y:.2%}<extra></extra>",
    }


def _line(at: float) -> Figure:
    line = {"color": GREY, "dash": "dash", "width": 1.5}
    return {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _band(axis: str, low: float, high: float) -> Figure:
    """The allowed range, as a strip behind the bars."""
    across = "y" if axis == "x" else "x"
    return {
        "type": "rect",
        f"{axis}0": low,
        f"{axis}1": high,
        f"{across}ref": "paper",
        f"{across}0": 0,
        f"{across}1": 1,
        "fillcolor": BAND,
        "line": {"color": GREEN, "width": 1, "dash": "dot"},
        "layer": "below",
    }


def _signed_log(value: float) -> float:
    """Plotly's own logarithmic axis has no room for negative logits."""
    return math.copysign(math.log10(1 + abs(value)), value)


def _log_ticks(reach: float) -> Figure:
    """10, 100, 1k …, both ways; every other one where they would run into each other."""
    powers = range(1, math.ceil(math.log10(1 + reach)) + 1)
    sizes = [10.0**power for power in (powers if len(powers) <= 3 else powers[::2])]
    values = [-size for size in reversed(sizes)] + [0.0] + sizes
    texts = [_short(value) for value in values]
    return {"tickvals": [_signed_log(value) for value in values], "ticktext": texts, "tickangle": 0}


def _short(value: float) -> str:
    sign, size = "−" if value < 0 else "", abs(value)
    if size < 1e3:
        return f"{sign}{size:.0f}"
    return (
        f"{sign}{size / 1e3:.0f}k"
        if size < 1e6
        else f"{sign}{size / 1e6:.0f}M"
        if size < 1e9
        else f"{sign}{size:.0e}"
    )


def _histogram(section: object) -> tuple[list[float], list[float]] | None:
    histogram = section.get("histogram") if isinstance(section, Mapping) else None
    if not isinstance(histogram, Mapping):
        return None
    edges, counts = histogram.get("edges"), histogram.get("counts")
    if not isinstance(edges, list) or not isinstance(counts, list) or len(edges) != len(counts) + 1:
        return None
    if not counts or not all(_is_figure(value) for value in [*edges, *counts]):
        return None
    return edges, counts


def _shares(counts: Sequence[float]) -> list[float]:
    whole = sum(counts) or 1
    return [count / whole for count in counts]


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_row(row: object) -> bool:
    return isinstance(row, Sequence) and len(row) == 3 and all(_is_figure(count) for count in row)


def _is_bin(found: object) -> bool:
    return (
        isinstance(found, Mapping)
        and all(_is_figure(found.get(name)) for name in ("confidence", "accuracy", "rows"))
        and found["rows"] > 0
    )
