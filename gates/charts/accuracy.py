"""How often it was right, and how that was spread: by direction, by certainty, against rivals, over time."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from common import plotting
from common.plotting import BLUE, GREY, RED, Figure, is_figure
from gates.charts.distributions import NAMES

NORMAL_95 = 1.96

RIVALS = {
    "majority": "always the same",
    "last_move": "the last move again",
    "reversal": "the last move back",
    "baseline": "v5",
}


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
    layout = plotting.layout("said", "came")
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
    layout = plotting.layout("probability said", "share that was right")
    layout["xaxis"] |= {"tickformat": ".0%", "range": [0.3, 1.02]}
    layout["yaxis"] |= {"tickformat": ".0%", "range": [0, 1.02]}
    layout["annotations"] = _calibrated(document.get("calibration"))
    return {"data": [ideal, curve], "layout": layout}


def skill(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """How much more often it is right than who does not think, and than the fallback: above 0 it knows something.

    Red where the interval reaches below what the policy asks for: 0 of the naive, a little less of the fallback.
    """
    points = list(_rivals(document.get("skill"), document.get("bundle_digest")))
    if not points:
        return None
    asked = gates.get("skill", {})
    floors = {RIVALS["baseline"]: float(asked.get("above_v5", 0.0))}
    naive = float(asked.get("above_naive", 0.0))
    names = [name for name, _ in points]
    middle = [found["difference"] for _, found in points]
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": middle,
        "y": names,
        "marker": {
            "size": 10,
            "color": [BLUE if found["lower"] > floors.get(name, naive) else RED for name, found in points],
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [found["upper"] - found["difference"] for _, found in points],
            "arrayminus": [found["difference"] - found["lower"] for _, found in points],
            "color": GREY,
        },
        "customdata": [[found["lower"], found["upper"]] for _, found in points],
        "hovertemplate": "%{y}: %{x:+.1%} (%{customdata[0]:+.1%} … %{customdata[1]:+.1%})<extra></extra>",
    }
    ends = [0.0, *(found[end] for _, found in points for end in ("lower", "upper"))]
    layout = plotting.layout("difference, 95 % interval", "")
    layout["xaxis"] |= {"tickformat": "+.0%", "range": plotting.around(ends)}
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False}
    layout["shapes"] = [plotting.line(0.0)]
    return {"data": [dots], "layout": layout}


def stability(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """Whether it is as right in one month as in another, or has its accuracy from a few lucky weeks."""
    section = document.get("stability")
    months = section.get("months") if isinstance(section, Mapping) else None
    points = [m for m in months if _is_slice(m, "month")] if isinstance(months, Sequence) else []
    if not points:
        return None
    reach = [_half_interval(document, point) for point in points]
    curve = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [f"{str(point['month'])[:7]}-15" for point in points],
        "y": [point["accuracy"] for point in points],
        "line": {"color": BLUE},
        "marker": {"color": BLUE, "size": 7},
        "error_y": {"type": "data", "array": reach, "color": GREY, "thickness": 1},
        "customdata": [point["rows"] for point in points],
        "hovertemplate": "%{x|%b %Y}: %{y:.1%} of %{customdata:,} bars<extra></extra>",
    }
    layout = plotting.layout("month of the gate window", "share that was right")
    layout["xaxis"] |= {"type": "date", "tickformat": "%b %y"}
    layout["yaxis"] |= {"tickformat": ".0%", "range": _right_range(points, reach)}
    layout["shapes"] = _required(gates)
    return {"data": [curve], "layout": layout}


def volatility(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """Whether it is right in calm weather only."""
    section = document.get("stability")
    terciles = section.get("volatility") if isinstance(section, Mapping) else None
    points = [t for t in terciles if _is_slice(t, "tercile")] if isinstance(terciles, Sequence) else []
    if not points:
        return None
    reach = [_half_interval(document, point) for point in points]
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [str(point["tercile"]) for point in points],
        "y": [point["accuracy"] for point in points],
        "marker": {"color": BLUE, "size": 10},
        "error_y": {"type": "data", "array": reach, "color": GREY},
        "customdata": [point["rows"] for point in points],
        "hovertemplate": "%{x} bars: %{y:.1%} of %{customdata:,}<extra></extra>",
    }
    layout = plotting.layout("thirds of the bars", "")
    layout["yaxis"] |= {"tickformat": ".0%", "range": _right_range(points, reach)}
    layout["shapes"] = _required(gates)
    return {"data": [dots], "layout": layout}


def _required(gates: Mapping[str, Any]) -> list[Figure]:
    """The accuracy that is required, where the policy says one."""
    above = gates.get("accuracy", {}).get("above")
    return [plotting.level(float(above))] if is_figure(above) else []


def _calibrated(section: object) -> list[Figure]:
    """How far certainty and truth are apart on the whole, in a corner where no sound curve comes."""
    if not isinstance(section, Mapping) or not all(is_figure(section.get(name)) for name in ("ece", "brier")):
        return []
    text = f"{100 * section['ece']:.1f} points off on average<br>Brier score {section['brier']:.3f}"
    corner = {"xref": "paper", "yref": "paper", "x": 0.02, "y": 0.98, "xanchor": "left", "yanchor": "top"}
    return [{**corner, "text": text, "align": "left", "showarrow": False}]


def _right_range(points: Sequence[Mapping[str, Any]], reach: Sequence[float]) -> list[float]:
    """Of accuracies and their intervals; a third, which is chance, and the baseline's 65 % are always in sight."""
    ends = [end for p, r in zip(points, reach, strict=True) for end in (p["accuracy"] - r, p["accuracy"] + r)]
    low, high = plotting.around([0.3, 0.7, *ends])
    return [max(0.0, low), min(1.0, high)]


def _half_interval(document: Mapping[str, Any], point: Mapping[str, Any]) -> float:
    """Half the 95 % interval of the accuracy of a slice of the window; 0 where nothing tells how wide it is.

    Hits come in runs, so that a slice of n bars tells less than n throws of a coin. How much less, the bootstrap of the
    whole window says: its variance over that of independent bars is the design effect (Kish 1965), taken for each slice.
    """
    section = document.get("accuracy")
    whole = section if isinstance(section, Mapping) else {}
    if not all(is_figure(whole.get(name)) for name in ("rows", "point", "lower", "upper")):
        return 0.0
    independent = whole["point"] * (1 - whole["point"]) / max(1, whole["rows"])
    bootstrap = ((whole["upper"] - whole["lower"]) / (2 * NORMAL_95)) ** 2
    effect = bootstrap / independent if independent else 1.0
    share = float(point["accuracy"])
    return NORMAL_95 * math.sqrt(share * (1 - share) / max(1, point["rows"]) * effect)


def _rivals(section: object, own_digest: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Whom its hits are compared with, bar by bar, where that could be measured. The fallback is no rival of its own."""
    if not isinstance(section, Mapping):
        return
    naive = section.get("naive")
    for name, found in naive.items() if isinstance(naive, Mapping) else ():
        if _is_difference(found):
            yield RIVALS.get(str(name), str(name)), found
    baseline = section.get("baseline")
    if _is_difference(baseline) and (own_digest is None or baseline.get("digest") != own_digest):
        yield RIVALS["baseline"], baseline


def _is_row(row: object) -> bool:
    return isinstance(row, Sequence) and len(row) == 3 and all(is_figure(count) for count in row)


def _is_bin(found: object) -> bool:
    return (
        isinstance(found, Mapping)
        and all(is_figure(found.get(name)) for name in ("confidence", "accuracy", "rows"))
        and found["rows"] > 0
    )


def _is_slice(found: object, name: str) -> bool:
    return (
        isinstance(found, Mapping)
        and bool(found.get(name))
        and all(is_figure(found.get(figure)) for figure in ("rows", "accuracy"))
    )


def _is_difference(found: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(found, Mapping) and all(
        is_figure(found.get(name)) for name in ("difference", "lower", "upper")
    )
