"""Charts of live predictions, against what was measured before the release: plain Plotly figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from common import plotting
from common.plotting import BLUE, GREY, RED, Figure, is_finite_number
from gates.catalogue.live import Tally, get_live_thresholds
from gates.charts import distributions
from gates.charts.distributions import Scale, get_histogram, get_shares, normalize
from mlcore.confidence_bands import EDGES

LIVE_TITLES = {
    "live_shares": "Predicted class shares (live)",
    "live_confidence": "Confidence histogram (live)",
    "live_logits": "Logit range over time (live)",
}
"""Every chart, in the order in which pages show them."""
BAND_WIDTH = 0.02
LIVE_WIDTH = 0.8
"""The part of the logit chart that is live; the rest is the gate window's."""


@dataclass(frozen=True)
class Reach:
    """The least and greatest logit of one window."""

    at: datetime
    least: float
    greatest: float


def draw_live_charts(
    whole: Tally, reaches: Sequence[Reach], document: Mapping[str, Any], policy: Mapping[str, Any]
) -> dict[str, Figure]:
    """The charts of these predictions. `document` is the measurement behind the release; empty without one."""
    thresholds = get_live_thresholds(policy)
    charts = {
        "live_shares": draw_shares(whole, document, thresholds["class_balance"]),
        "live_confidence": draw_confidence(whole, document, thresholds["confidence"]),
        "live_logits": draw_logits(reaches, document, thresholds["logit_range"]),
    }
    return plotting.add_titles(charts, LIVE_TITLES)


def draw_shares(whole: Tally, document: Mapping[str, Any], band: Mapping[str, float]) -> Figure | None:
    """How often each class is predicted live, beside its share on the gate window."""
    if not whole.finite:
        return None
    shares = [count / whole.finite for count in whole.classes]
    bars = [distributions.build_share_bars("live", shares, band)]
    if measured := get_shares(document):
        bars.append(distributions.build_share_bars("gate window", measured, band, GREY))
    return distributions.build_share_chart(bars, band)


def draw_confidence(
    whole: Tally, document: Mapping[str, Any], thresholds: Mapping[str, float]
) -> Figure | None:
    """Live confidence as bars, and that on the gate window as a line."""
    if not whole.finite:
        return None
    heights = [count / whole.finite for count in whole.confidence]
    measured = get_histogram(document.get("confidence"))
    lines = [_draw_outline(*measured)] if measured else []
    chart = distributions.build_confidence_chart(EDGES, heights, thresholds, *lines)
    chart["data"][0]["name"] = "live"
    return chart


def draw_logits(
    reaches: Sequence[Reach], document: Mapping[str, Any], band: Mapping[str, float]
) -> Figure | None:
    """The least and greatest logit of each window against the allowed range, beside the logits on the gate window."""
    if not reaches:
        return None
    low, high = distributions.get_logit_band(band)
    measured = get_histogram(document.get("logits"))
    ends = [low, high, *(reach.least for reach in reaches), *(reach.greatest for reach in reaches)]
    ends += [measured[0][0], measured[0][-1]] if measured else []
    scale, title, ticks = distributions.choose_logit_scale(ends)
    data = [_draw_points(name, reaches, low, high, scale) for name in ("least", "greatest")]
    layout = plotting.build_layout("", title)
    layout["xaxis"] |= {"type": "date", "nticks": 4, "tickangle": 0}
    layout["yaxis"] |= {"range": [1.08 * scale(min(ends)), 1.08 * scale(max(ends))], **ticks}
    layout["shapes"] = [
        plotting.build_band("y", scale(low), scale(high)),
        *_draw_measured_reach(document, scale),
    ]
    if measured:
        data.append(_draw_measured(*measured, scale))
        layout["xaxis"]["domain"] = [0, LIVE_WIDTH]
        layout["xaxis2"] = {"domain": [LIVE_WIDTH + 0.02, 1], "visible": False, "anchor": "y"}
    return {"data": data, "layout": layout}


def _draw_points(name: str, reaches: Sequence[Reach], low: float, high: float, scale: Scale) -> Figure:
    values = [getattr(reach, name) for reach in reaches]
    return plotting.build_trace(
        [reach.at.isoformat() for reach in reaches],
        [scale(value) for value in values],
        f"%{{x|%d %b %H:%M}}: {name} %{{customdata}}",
        name=name,
        mode="markers",
        marker={"size": 5, "color": [BLUE if low <= value <= high else RED for value in values]},
        customdata=[f"{value:,.4g}" for value in values],
    )


def _draw_measured(edges: Sequence[float], counts: Sequence[float], scale: Scale) -> Figure:
    """The gate window's logits as horizontal bars, on the same axis as the live ones."""
    bars = plotting.build_bars([scale(edge) for edge in edges], normalize(counts), GREY)
    return bars | {
        "orientation": "h",
        "name": "gate window",
        "xaxis": "x2",
        "x": bars["y"],
        "y": bars["x"],
        "customdata": plotting.format_bins(edges),
        "hovertemplate": "gate window, %{customdata}: %{x:.2%}<extra></extra>",
    }


def _draw_outline(edges: Sequence[float], counts: Sequence[float]) -> Figure:
    """A histogram as a line, scaled to the width of the live bands so that equal distributions have equal heights."""
    pairs = zip(normalize(counts), pairwise(edges), strict=True)
    return plotting.build_trace(
        plotting.compute_middles(edges),
        [share * BAND_WIDTH / (right - left) for share, (left, right) in pairs],
        "gate window, %{x:.2f}: %{y:.2%}",
        mode="lines",
        name="gate window",
        line={"color": GREY, "width": 2, "shape": "hvh"},
    )


def _draw_measured_reach(document: Mapping[str, Any], scale: Scale) -> list[Figure]:
    section = document.get("logits")
    ends = [section.get(end) for end in ("least", "greatest")] if isinstance(section, Mapping) else []
    return [plotting.build_line("y", scale(end)) for end in ends if is_finite_number(end)]
