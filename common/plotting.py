"""Parts of Plotly figures: axes, bars, bands, lines, and a symmetric logarithmic scale."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

Figure = dict[str, Any]

BLUE, RED, GREEN, GREY = "#4c8bf5", "#e5534b", "#3fa66b", "#8b949e"
SERIES = (BLUE, RED, GREEN, "#d29a2a", "#a371f7", "#2aa7b3", "#db61a2", GREY)
"""Eight colours that are told apart on a light and on a dark page."""
GRID = "rgba(128,128,128,0.25)"
BAND = "rgba(63,166,107,0.16)"
CLEAR = "rgba(0,0,0,0)"


def add_titles(drawn: Mapping[str, Figure | None], titles: Mapping[str, str]) -> dict[str, Figure]:
    """The figures that could be drawn, each with its title."""
    figures = {name: figure for name, figure in drawn.items() if figure is not None}
    for name, figure in figures.items():
        figure["layout"]["title"] = {"text": titles[name]}
    return figures


def build_layout(x: str, y: str) -> Figure:
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "automargin": True}
    return {
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": y}},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "showlegend": False,
        "bargap": 0.02,
        "margin": {"l": 48, "r": 16, "t": 40, "b": 44},
    }


def build_trace(x: Sequence[Any], y: Sequence[Any], hover: str = "", **style: Any) -> Figure:
    """A trace of points; without a text to show beside the pointer it is not hovered over."""
    label = {"hovertemplate": f"{hover}<extra></extra>"} if hover else {"hoverinfo": "skip"}
    return {"type": "scatter", "x": x, "y": y, **label, **style}


def build_bars(
    edges: Sequence[float], heights: Sequence[float], colours: Sequence[str] | str, **options: Any
) -> Figure:
    return {
        "type": "bar",
        "x": compute_middles(edges),
        "y": heights,
        "width": [right - left for left, right in pairwise(edges)],
        "marker": {"color": colours},
        "hovertemplate": "%{x:.3f}: %{y:.2%}<extra></extra>",
        **options,
    }


def compute_middles(edges: Sequence[float]) -> list[float]:
    return [(left + right) / 2 for left, right in pairwise(edges)]


def format_bins(edges: Sequence[float]) -> list[str]:
    """ "−2.5 … 0" for each bin of a histogram."""
    return [f"{left:,.4g} … {right:,.4g}" for left, right in pairwise(edges)]


def build_line(axis: str, at: float, *, is_threshold: bool = False) -> Figure:
    """A line across the whole chart, at one value of an axis."""
    line = {"color": GREEN if is_threshold else GREY, "dash": "dot" if is_threshold else "dash", "width": 1.5}
    return {"type": "line", **_span(axis, at, at), "line": line}


def build_band(axis: str, low: float, high: float) -> Figure:
    """The allowed range, drawn behind the bars."""
    line = {"color": GREEN, "width": 1, "dash": "dot"}
    return {"type": "rect", **_span(axis, low, high), "fillcolor": BAND, "line": line, "layer": "below"}


def _span(axis: str, low: float, high: float) -> Figure:
    """From one value of an axis to another, across the whole chart."""
    across = "y" if axis == "x" else "x"
    return {f"{axis}0": low, f"{axis}1": high, f"{across}ref": "paper", f"{across}0": 0, f"{across}1": 1}


def compute_range_from_zero(heights: Sequence[float]) -> list[float]:
    return [0.0, 1.08 * max(heights, default=1.0) or 1.0]


def compute_range(values: Sequence[float]) -> list[float]:
    """The axis range from minimum to maximum, with a margin."""
    margin = 0.08 * (max(values) - min(values)) or 0.01
    return [min(values) - margin, max(values) + margin]


def compute_signed_log(value: float) -> float:
    """sign(x) · log10(1 + |x|): unlike Plotly's logarithmic axis, it also shows negative logits."""
    return math.copysign(math.log10(1 + abs(value)), value)


def build_log_ticks(reach: float) -> Figure:
    """Ticks at 10, 100, 1k … with both signs; every second one when they would overlap."""
    powers = range(1, math.ceil(math.log10(1 + reach)) + 1)
    sizes = [10.0**power for power in (powers if len(powers) <= 3 else powers[::2])]
    values = [-size for size in reversed(sizes)] + [0.0] + sizes
    texts = [format_tick(value) for value in values]
    return {"tickvals": [compute_signed_log(value) for value in values], "ticktext": texts, "tickangle": 0}


def format_tick(value: float) -> str:
    sign, size = "−" if value < 0 else "", abs(value)
    for unit, letter in ((1.0, ""), (1e3, "k"), (1e6, "M")):
        if size < 1e3 * unit:
            return f"{sign}{size / unit:.0f}{letter}"
    return f"{sign}{size:.0e}"


def align_axes(layouts: Sequence[Figure], axis: str) -> None:
    """Give all axes the widest range; axes without a numeric range stay unchanged."""
    ranges = [layout[axis].get("range") for layout in layouts]
    if len(ranges) > 1 and all(ranges):
        widest = [min(low for low, _ in ranges), max(high for _, high in ranges)]
        for layout in layouts:
            layout[axis]["range"] = widest


def is_finite_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
