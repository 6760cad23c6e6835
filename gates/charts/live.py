"""What bots predict for real, drawn against what was measured before the release: plain Plotly figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from common import plotting
from common.plotting import BLUE, GREY, RED, Figure, is_figure
from gates.catalogue.live import Tally, live_part
from gates.charts.distributions import EXPLODED, NAMES, histogram, measured_shares
from mlcore.confidence_bands import EDGES

LIVE_TITLES = {
    "live_shares": "Directions said live",
    "live_confidence": "Confidence live",
    "live_logits": "Logits live",
}
"""Every picture there is, in the order in which pages show them."""
BAND_WIDTH = 0.02
LIVE_WIDTH = 0.8
"""Of the picture of logits; the rest is the gate window's."""

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Reach:
    """How far the logits of one window went."""

    at: datetime
    least: float
    greatest: float


def live_charts(
    whole: Tally, reaches: Sequence[Reach], document: Mapping[str, Any], policy: Mapping[str, Any]
) -> dict[str, Figure]:
    """The pictures of these predictions. `document` is the measurement that let the bundle pass; empty without one."""
    thresholds = live_part(policy)
    drawn = {
        "live_shares": shares(whole, document, thresholds["class_balance"]),
        "live_confidence": confidence(whole, document, thresholds["confidence"]),
        "live_logits": logits(reaches, document, thresholds["logit_range"]),
    }
    return plotting.titled(drawn, LIVE_TITLES)


def shares(whole: Tally, document: Mapping[str, Any], band: Mapping[str, float]) -> Figure | None:
    """How often each direction is said live, beside how often it was on the gate window."""
    if not whole.finite:
        return None
    said = [count / whole.finite for count in whole.classes]
    least, most = band["least"], band["most"]
    colours = [BLUE if least <= share <= most else RED for share in said]
    bars = [_directions("live", said, colours)]
    if before := measured_shares(document):
        bars.append(_directions("gate window", before, [GREY] * len(before)))
    layout = plotting.layout("", "share of predictions")
    layout["barmode"], layout["bargap"] = "group", 0.3
    heights = [share for each in bars for share in each["y"]]
    layout["yaxis"] |= {"tickformat": ".0%", "range": [0, max(1.15 * max(heights), 1.5 * most)]}
    layout["shapes"] = [plotting.band("y", least, most)]
    return {"data": bars, "layout": layout}


def confidence(whole: Tally, document: Mapping[str, Any], asked: Mapping[str, float]) -> Figure | None:
    """How sure it is live, as bars, and was on the gate window, as a line."""
    if not whole.finite:
        return None
    level = asked["level"]
    heights = [count / whole.finite for count in whole.confidence]
    bars = plotting.bars(EDGES, heights, [RED if edge >= level - 1e-9 else BLUE for edge in EDGES[:-1]])
    bars["name"] = "live"
    data, tallest = [bars], list(heights)
    if before := histogram(document.get("confidence")):
        line = _outline(*before)
        tallest += line["y"]
        data.append(line)
    layout = plotting.layout("probability of the direction said", "share of predictions")
    layout["xaxis"] |= {"tickformat": ".0%", "range": [EDGES[0], 1]}
    layout["yaxis"] |= {"tickformat": ".0%", "range": plotting.upwards(tallest)}
    layout["shapes"] = [plotting.line(level)]
    return {"data": data, "layout": layout}


def logits(reaches: Sequence[Reach], document: Mapping[str, Any], band: Mapping[str, float]) -> Figure | None:
    """The least and greatest logit of each window, against the allowed range, and beside how all of them lay on the gate
    window.
    """
    if not reaches:
        return None
    low, high = band["least"], band["greatest"]
    before = histogram(document.get("logits"))
    ends = [low, high, *(reach.least for reach in reaches), *(reach.greatest for reach in reaches)]
    ends += [before[0][0], before[0][-1]] if before else []
    has_exploded = max(map(abs, ends)) > EXPLODED
    scale: Scale = plotting.signed_log if has_exploded else float
    data = [
        _reached("least", reaches, [reach.least for reach in reaches], low, high, scale),
        _reached("greatest", reaches, [reach.greatest for reach in reaches], low, high, scale),
    ]
    layout = plotting.layout("", "logit (logarithmic)" if has_exploded else "logit")
    layout["xaxis"] |= {"type": "date", "nticks": 4, "tickangle": 0}
    layout["yaxis"] |= {"range": [1.08 * scale(min(ends)), 1.08 * scale(max(ends))]}
    if has_exploded:
        layout["yaxis"] |= plotting.log_ticks(max(map(abs, ends)))
    layout["shapes"] = [plotting.band("y", scale(low), scale(high)), *_measured_reach(document, scale)]
    if before:
        data.append(_beside(*before, scale))
        layout["xaxis"]["domain"] = [0, LIVE_WIDTH]
        layout["xaxis2"] = {"domain": [LIVE_WIDTH + 0.02, 1], "visible": False, "anchor": "y"}
    return {"data": data, "layout": layout}


def _reached(
    name: str, reaches: Sequence[Reach], values: Sequence[float], low: float, high: float, scale: Scale
) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [reach.at.isoformat() for reach in reaches],
        "y": [scale(value) for value in values],
        "marker": {"size": 5, "color": [BLUE if low <= value <= high else RED for value in values]},
        "customdata": [f"{value:,.4g}" for value in values],
        "hovertemplate": f"%{{x|%d %b %H:%M}}: {name} %{{customdata}}<extra></extra>",
    }


def _beside(edges: Sequence[float], counts: Sequence[float], scale: Scale) -> Figure:
    """The gate window's logits as bars that lie down, on the same axis as the live ones."""
    all_logits = sum(counts) or 1
    ends = [scale(edge) for edge in edges]
    return {
        "type": "bar",
        "orientation": "h",
        "name": "gate window",
        "xaxis": "x2",
        "x": [count / all_logits for count in counts],
        "y": [(left + right) / 2 for left, right in pairwise(ends)],
        "width": [right - left for left, right in pairwise(ends)],
        "marker": {"color": GREY},
        "customdata": [f"{left:,.4g} … {right:,.4g}" for left, right in pairwise(edges)],
        "hovertemplate": "gate window, %{customdata}: %{x:.2%}<extra></extra>",
    }


def _directions(name: str, said: Sequence[float], colours: Sequence[str]) -> Figure:
    return {
        "type": "bar",
        "name": name,
        "x": NAMES,
        "y": list(said),
        "marker": {"color": list(colours)},
        "text": [f"{share:.0%}" for share in said],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": f"%{{x}}, {name}: %{{y:.2%}}<extra></extra>",
    }


def _outline(edges: Sequence[float], counts: Sequence[float]) -> Figure:
    """A histogram as a line, per band of the live one's width, so that both are of one height where they agree."""
    all_rows = sum(counts) or 1
    pairs = list(pairwise(edges))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "gate window",
        "x": [(left + right) / 2 for left, right in pairs],
        "y": [
            count / all_rows * BAND_WIDTH / (right - left)
            for count, (left, right) in zip(counts, pairs, strict=True)
        ],
        "line": {"color": GREY, "width": 2, "shape": "hvh"},
        "hovertemplate": "gate window, %{x:.2f}: %{y:.2%}<extra></extra>",
    }


def _measured_reach(document: Mapping[str, Any], scale: Scale) -> list[Figure]:
    found = document.get("logits")
    ends = [found.get(end) for end in ("least", "greatest")] if isinstance(found, Mapping) else []
    return [
        plotting.level(scale(end)) | {"line": {"color": GREY, "dash": "dash", "width": 1.5}}
        for end in ends
        if is_figure(end)
    ]
