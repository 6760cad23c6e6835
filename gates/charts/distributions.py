"""Distributions of predictions and features: class shares, confidence, logits, drift."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from common import plotting
from common.plotting import BLUE, RED, Figure, is_finite_number
from mlcore.constants import CLASSES, PSI_DRIFTED

CLASS_NAMES = [name.capitalize() for name in CLASSES]

EXPLODED = 100.0
"""Logits beyond this are drawn on a logarithmic axis: on a linear one the allowed band would be a hair."""
MOST_DRIFTING = 10

Histogram = tuple[list[float], list[float]]
Scale = Callable[[float], float]


def draw_shares(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """How often each class is predicted, against the allowed band."""
    shares = get_shares(document)
    if shares is None:
        return None
    band = gates.get("class_balance", {})
    return build_share_chart([build_share_bars("", shares, band)], band)


def draw_confidence(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """The histogram of confidence; red where the confidence gate counts."""
    histogram = get_histogram(document.get("confidence"))
    if histogram is None:
        return None
    edges, counts = histogram
    return build_confidence_chart(edges, normalize(counts), gates.get("confidence", {}))


def draw_logits(
    document: Mapping[str, Any], gates: Mapping[str, Any], reach: tuple[float, float] | None = None
) -> Figure | None:
    """The histogram of logits against the allowed range, on a logarithmic axis where they explode.

    `reach` is the least and greatest logit of the charts beside this one, which the axis must hold too.
    """
    histogram = get_histogram(document.get("logits"))
    if histogram is None:
        return None
    edges, counts = histogram
    low, high = get_logit_band(gates.get("logit_range", {}))
    least, greatest = min(edges[0], low, *(reach or ())), max(edges[-1], high, *(reach or ()))
    scale, title, ticks = choose_logit_scale([least, greatest])
    colours = [BLUE if low <= left and right <= high else RED for left, right in pairwise(edges)]
    bars = plotting.build_bars([scale(edge) for edge in edges], normalize(counts), colours)
    bars["customdata"] = plotting.format_bins(edges)
    bars["hovertemplate"] = "%{customdata}: %{y:.2%}<extra></extra>"
    layout = plotting.build_layout(title, "share of logits")
    layout["yaxis"] |= {"tickformat": ".0%", "range": plotting.compute_range_from_zero(bars["y"])}
    layout["shapes"] = [plotting.build_band("x", scale(low), scale(high))]
    layout["xaxis"] |= {"range": [1.05 * scale(least), 1.05 * scale(greatest)], **ticks}
    return {"data": [bars], "layout": layout}


def draw_drift(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """The features whose recent distribution differs most from that of training."""
    section = document.get("drift")
    psi = section.get("psi") if isinstance(section, Mapping) else None
    psi = {str(k): v for k, v in psi.items() if is_finite_number(v)} if isinstance(psi, Mapping) else {}
    largest = sorted(psi.items(), key=lambda entry: -entry[1])[:MOST_DRIFTING]
    if not largest:
        return None
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [value for _, value in largest],
        "y": [name for name, _ in largest],
        "marker": {"color": [RED if value > PSI_DRIFTED else BLUE for _, value in largest]},
        "hovertemplate": "%{y}: PSI %{x:.3f}<extra></extra>",
    }
    layout = plotting.build_layout("PSI of recent bars against the fit window", "")
    layout["bargap"] = 0.35
    layout["xaxis"] |= {
        "range": plotting.compute_range_from_zero([PSI_DRIFTED, *(value for _, value in largest)])
    }
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False}
    layout["shapes"] = [plotting.build_line("x", PSI_DRIFTED)]
    return {"data": [bars], "layout": layout}


def build_share_bars(
    name: str, shares: Sequence[float], band: Mapping[str, Any], colour: str | None = None
) -> Figure:
    """A bar for each class, red outside the band unless a colour is given."""
    low, high = _get_share_band(band)
    return {
        "type": "bar",
        "name": name,
        "x": CLASS_NAMES,
        "y": list(shares),
        "marker": {"color": [colour or (BLUE if low <= share <= high else RED) for share in shares]},
        "text": [f"{share:.1%}" for share in shares],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": f"%{{x}}{name and f', {name}'}: %{{y:.2%}}<extra></extra>",
    }


def build_share_chart(bars: list[Figure], band: Mapping[str, Any]) -> Figure:
    low, high = _get_share_band(band)
    layout = plotting.build_layout("", "share of predictions")
    layout["barmode"], layout["bargap"] = "group", 0.4 if len(bars) == 1 else 0.3
    heights = [share for each in bars for share in each["y"]]
    layout["yaxis"] |= {"tickformat": ".0%", "range": [0, max(1.15 * max(heights), 1.5 * high)]}
    layout["shapes"] = [plotting.build_band("y", low, high)]
    return {"data": bars, "layout": layout}


def build_confidence_chart(
    edges: Sequence[float], heights: list[float], thresholds: Mapping[str, Any], *lines: Figure
) -> Figure:
    """A histogram with its threshold; `lines` are drawn over it."""
    level = float(thresholds.get("level", 0.9))
    colours = [RED if edge >= level - 1e-9 else BLUE for edge in edges[:-1]]
    tallest = [*heights, *(height for line in lines for height in line["y"])]
    layout = plotting.build_layout("confidence", "share of predictions")
    layout["xaxis"] |= {"tickformat": ".0%", "range": [min(edges), 1]}
    layout["yaxis"] |= {"tickformat": ".0%", "range": plotting.compute_range_from_zero(tallest)}
    layout["shapes"] = [plotting.build_line("x", level)]
    return {"data": [plotting.build_bars(edges, heights, colours), *lines], "layout": layout}


def choose_logit_scale(ends: Sequence[float]) -> tuple[Scale, str, Figure]:
    """Scale, axis title and ticks for logits that reach so far."""
    reach = max(map(abs, ends))
    if reach > EXPLODED:
        return plotting.compute_signed_log, "logit (logarithmic)", plotting.build_log_ticks(reach)
    return float, "logit", {}


def get_logit_band(thresholds: Mapping[str, Any]) -> tuple[float, float]:
    return float(thresholds.get("least", -10)), float(thresholds.get("greatest", 10))


def get_shares(document: Mapping[str, Any]) -> list[float] | None:
    """The predicted share of each class; None unless all were measured."""
    section = document.get("shares")
    values = [section.get(name) for name in CLASSES] if isinstance(section, Mapping) else []
    shares = [value for value in values if is_finite_number(value)]
    return shares if len(shares) == len(CLASSES) else None


def get_logit_reach(documents: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """The least and greatest logit of all documents; None where none was measured."""
    histograms = map(get_histogram, (document.get("logits") for document in documents))
    ends = [histogram[0] for histogram in histograms if histogram]
    return (min(e[0] for e in ends), max(e[-1] for e in ends)) if ends else None


def get_histogram(section: object) -> Histogram | None:
    """Edges and counts of a measured section; None where it holds no sound ones."""
    histogram = section.get("histogram") if isinstance(section, Mapping) else None
    if not isinstance(histogram, Mapping):
        return None
    edges, counts = histogram.get("edges"), histogram.get("counts")
    if not isinstance(edges, list) or not isinstance(counts, list) or len(edges) != len(counts) + 1:
        return None
    if not counts or not all(is_finite_number(value) for value in [*edges, *counts]):
        return None
    return edges, counts


def normalize(counts: Sequence[float]) -> list[float]:
    """Counts as shares of their sum."""
    whole = sum(counts) or 1
    return [count / whole for count in counts]


def _get_share_band(thresholds: Mapping[str, Any]) -> tuple[float, float]:
    return float(thresholds.get("least", 0.2)), float(thresholds.get("most", 0.4))
