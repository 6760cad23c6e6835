"""How what was predicted, and what it was predicted from, is distributed: directions, certainty, logits, features."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from common import plotting
from common.plotting import BLUE, RED, Figure, is_figure
from gates.catalogue.baseline import DIRECTIONS
from mlcore.constants import PSI_DRIFTED

NAMES = [direction.capitalize() for direction in DIRECTIONS]

EXPLODED = 100.0
"""Logits beyond this are drawn on a logarithmic axis: on a linear one the allowed band would be a hair."""
MOST_DRIFTING = 10


def shares(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """How often each direction is said, against the band it must lie in."""
    said = measured_shares(document)
    if said is None:
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
    layout = plotting.layout("", "share of predictions")
    layout["bargap"] = 0.4
    layout["yaxis"] |= {"tickformat": ".0%", "range": [0, max(1.15 * max(said), 1.5 * high)]}
    layout["shapes"] = [plotting.band("y", low, high)]
    return {"data": [bars], "layout": layout}


def confidence(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """How sure the network is, how often; red where the confidence gate counts."""
    found = histogram(document.get("confidence"))
    if found is None:
        return None
    edges, counts = found
    level = float(gates.get("confidence", {}).get("level", 0.9))
    bars = plotting.bars(
        edges, _shares(counts), [RED if edge >= level - 1e-9 else BLUE for edge in edges[:-1]]
    )
    layout = plotting.layout("probability of the direction said", "share of predictions")
    layout["xaxis"] |= {"tickformat": ".0%", "range": [min(edges), 1]}
    layout["yaxis"] |= {"tickformat": ".0%", "range": plotting.upwards(bars["y"])}
    layout["shapes"] = [plotting.line(level)]
    return {"data": [bars], "layout": layout}


def logits(
    document: Mapping[str, Any], gates: Mapping[str, Any], reach: tuple[float, float] | None = None
) -> Figure | None:
    """The network's raw answers against the allowed range, on a logarithmic axis where they explode.

    `reach` is what the axis must hold besides: the least and greatest logit of what it is compared with.
    """
    found = histogram(document.get("logits"))
    if found is None:
        return None
    edges, counts = found
    band = gates.get("logit_range", {})
    low, high = float(band.get("least", -10)), float(band.get("greatest", 10))
    least, greatest = min(edges[0], low, *(reach or ())), max(edges[-1], high, *(reach or ()))
    has_exploded = max(abs(least), abs(greatest)) > EXPLODED
    scale: Callable[[float], float] = plotting.signed_log if has_exploded else float
    colours = [BLUE if low <= left and right <= high else RED for left, right in pairwise(edges)]
    bars = plotting.bars([scale(edge) for edge in edges], _shares(counts), colours)
    bars["customdata"] = [f"{left:,.4g} … {right:,.4g}" for left, right in pairwise(edges)]
    bars["hovertemplate"] = "%{customdata}: %{y:.2%}<extra></extra>"
    layout = plotting.layout("logit (logarithmic)" if has_exploded else "logit", "share of logits")
    layout["yaxis"] |= {"tickformat": ".0%", "range": plotting.upwards(bars["y"])}
    layout["shapes"] = [plotting.band("x", scale(low), scale(high))]
    layout["xaxis"] |= {"range": [1.05 * scale(least), 1.05 * scale(greatest)]}
    if has_exploded:
        layout["xaxis"] |= plotting.log_ticks(max(abs(least), abs(greatest)))
    return {"data": [bars], "layout": layout}


def drift(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """The features whose recent values are distributed least like those it learnt from."""
    section = document.get("drift")
    psi = section.get("psi") if isinstance(section, Mapping) else None
    found = {str(k): v for k, v in psi.items() if is_figure(v)} if isinstance(psi, Mapping) else {}
    largest = sorted(found.items(), key=lambda entry: -entry[1])[:MOST_DRIFTING]
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
    layout = plotting.layout("PSI, recent against fit", "")
    layout["bargap"] = 0.35
    layout["xaxis"] |= {"range": plotting.upwards([PSI_DRIFTED, *(value for _, value in largest)])}
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False}
    layout["shapes"] = [plotting.line(PSI_DRIFTED)]
    return {"data": [bars], "layout": layout}


def measured_shares(document: Mapping[str, Any]) -> list[float] | None:
    """How often down, neutral and up were said; None where not all three were measured."""
    found = document.get("shares")
    said = [found[d] for d in DIRECTIONS if is_figure(found.get(d))] if isinstance(found, Mapping) else []
    return said if len(said) == len(DIRECTIONS) else None


def logit_reach(documents: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """The least and greatest logit of all of them; None where none was measured."""
    ends = [found[0] for found in map(histogram, (d.get("logits") for d in documents)) if found]
    return (min(e[0] for e in ends), max(e[-1] for e in ends)) if ends else None


def histogram(section: object) -> tuple[list[float], list[float]] | None:
    """Edges and counts of a measured section; None where it holds no sound ones."""
    histogram = section.get("histogram") if isinstance(section, Mapping) else None
    if not isinstance(histogram, Mapping):
        return None
    edges, counts = histogram.get("edges"), histogram.get("counts")
    if not isinstance(edges, list) or not isinstance(counts, list) or len(edges) != len(counts) + 1:
        return None
    if not counts or not all(is_figure(value) for value in [*edges, *counts]):
        return None
    return edges, counts


def _shares(counts: Sequence[float]) -> list[float]:
    whole = sum(counts) or 1
    return [count / whole for count in counts]
