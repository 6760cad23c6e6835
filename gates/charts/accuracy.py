"""Accuracy, and how it is spread: by class, by confidence, against other forecasters, over time, by volatility."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from common import plotting
from common.plotting import BLUE, GREY, RED, Figure, is_finite_number
from gates.catalogue.skill import NAIVE
from gates.charts.distributions import CLASS_NAMES

NORMAL_95 = 1.96
V5 = "V5"


def draw_confusion(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """Rows are actual classes, columns predicted ones; each row adds up to one."""
    rows = document.get("confusion")
    if not isinstance(rows, Sequence) or len(rows) != 3 or not all(_is_row(row) for row in rows):
        return None
    table = [[count / max(1, sum(row)) for count in row] for row in rows]
    heat = {
        "type": "heatmap",
        "x": CLASS_NAMES,
        "y": CLASS_NAMES,
        "z": table,
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "rgba(76,139,245,0.04)"], [1, "rgba(76,139,245,0.9)"]],
        "showscale": False,
        "hovertemplate": "actual %{y}, predicted %{x}: %{z:.1%}<extra></extra>",
    }
    layout = plotting.build_layout("predicted", "actual")
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False}
    layout["xaxis"] |= {"showgrid": False}
    # As annotations, for these take the page's font colour: Plotly's own cell texts assume a white page.
    layout["annotations"] = [
        {
            "x": predicted,
            "y": actual,
            "text": f"{table[row][column]:.0%}<br>{rows[row][column]:,}",
            "showarrow": False,
        }
        for row, actual in enumerate(CLASS_NAMES)
        for column, predicted in enumerate(CLASS_NAMES)
    ]
    return {"data": [heat], "layout": layout}


def draw_calibration(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """Accuracy by confidence; on the diagonal the two are equal."""
    points = _list_points(document.get("reliability"), "confidence", "accuracy", "rows")
    if not points:
        return None
    most = max(point["rows"] for point in points)
    curve = plotting.build_trace(
        [point["confidence"] for point in points],
        [point["accuracy"] for point in points],
        "confidence %{x:.1%}, accuracy %{y:.1%}, %{customdata:,} bars",
        mode="lines+markers",
        marker={"color": BLUE, "size": [6 + 14 * math.sqrt(point["rows"] / most) for point in points]},
        line={"color": BLUE},
        customdata=[point["rows"] for point in points],
    )
    diagonal = [1 / 3, 1]
    ideal = plotting.build_trace(diagonal, diagonal, mode="lines", line={"color": GREY, "dash": "dash"})
    layout = plotting.build_layout("confidence", "accuracy")
    layout["xaxis"] |= {"tickformat": ".0%", "range": [0.3, 1.02]}
    layout["yaxis"] |= {"tickformat": ".0%", "range": [0, 1.02]}
    layout["annotations"] = _annotate_calibration(document.get("calibration"))
    return {"data": [ideal, curve], "layout": layout}


def draw_skill(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """The difference in accuracy to naive forecasters and to V5.

    Red where the interval reaches below what the policy requires: 0 over the naive, a little less over V5.
    """
    differences = list(_list_differences(document.get("skill")))
    if not differences:
        return None
    thresholds = gates.get("skill", {})
    v5, naive = float(thresholds.get("above_v5", 0.0)), float(thresholds.get("above_naive", 0.0))
    found = [difference for _, difference in differences]
    colours = [BLUE if each["lower"] > (v5 if name == V5 else naive) else RED for name, each in differences]
    interval = {
        "type": "data",
        "symmetric": False,
        "array": [each["upper"] - each["difference"] for each in found],
        "arrayminus": [each["difference"] - each["lower"] for each in found],
        "color": GREY,
    }
    dots = plotting.build_trace(
        [each["difference"] for each in found],
        [name for name, _ in differences],
        "%{y}: %{x:+.1%} (%{customdata[0]:+.1%} … %{customdata[1]:+.1%})",
        mode="markers",
        marker={"size": 10, "color": colours},
        error_x=interval,
        customdata=[[each["lower"], each["upper"]] for each in found],
    )
    ends = [0.0, *(each[end] for each in found for end in ("lower", "upper"))]
    layout = plotting.build_layout("difference (95 % interval)", "")
    layout["xaxis"] |= {"tickformat": "+.0%", "range": plotting.compute_range(ends)}
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False}
    layout["shapes"] = [plotting.build_line("x", 0.0)]
    return {"data": [dots], "layout": layout}


def draw_months(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """Accuracy by month, which shows an accuracy that comes from a few lucky weeks."""
    figure = _draw_slices(document, gates, "months", "month", "month of the gate window")
    if figure is not None:
        (dots,) = figure["data"]
        dots |= {"mode": "lines+markers", "line": {"color": BLUE}}
        dots |= {"x": [f"{month[:7]}-15" for month in dots["x"]]}
        dots |= {"hovertemplate": "%{x|%b %Y}: %{y:.1%} of %{customdata:,} bars<extra></extra>"}
        figure["layout"]["xaxis"] |= {"type": "date", "tickformat": "%b %y"}
    return figure


def draw_volatility(document: Mapping[str, Any], gates: Mapping[str, Any]) -> Figure | None:
    """Accuracy by tercile of volatility, which shows an accuracy that holds in calm markets only."""
    return _draw_slices(document, gates, "volatility", "tercile", "tercile of volatility")


def _draw_slices(
    document: Mapping[str, Any], gates: Mapping[str, Any], part: str, key: str, title: str
) -> Figure | None:
    """Accuracies of slices with their intervals, and the required accuracy where the policy sets one."""
    section = document.get("stability")
    slices = section.get(part) if isinstance(section, Mapping) else None
    points = [each for each in _list_points(slices, "accuracy", "rows") if each.get(key)]
    if not points:
        return None
    reach = [_get_half_interval(document, point) for point in points]
    dots = plotting.build_trace(
        [str(point[key]) for point in points],
        [point["accuracy"] for point in points],
        "%{x} bars: %{y:.1%} of %{customdata:,}",
        mode="markers",
        marker={"color": BLUE, "size": 8},
        error_y={"type": "data", "array": reach, "color": GREY, "thickness": 1},
        customdata=[point["rows"] for point in points],
    )
    layout = plotting.build_layout(title, "accuracy")
    layout["yaxis"] |= {"tickformat": ".0%", "range": _get_range(points, reach)}
    above = gates.get("accuracy", {}).get("above")
    layout["shapes"] = (
        [plotting.build_line("y", float(above), is_threshold=True)] if is_finite_number(above) else []
    )
    return {"data": [dots], "layout": layout}


def _annotate_calibration(section: object) -> list[Figure]:
    """Calibration error and Brier score, in a corner that no sound curve reaches."""
    if not _has_figures(section, "ece", "brier"):
        return []
    text = f"{100 * section['ece']:.1f} points off on average<br>Brier score {section['brier']:.3f}"
    corner = {"xref": "paper", "yref": "paper", "x": 0.02, "y": 0.98, "xanchor": "left", "yanchor": "top"}
    return [{**corner, "text": text, "align": "left", "showarrow": False}]


def _get_range(points: Sequence[Mapping[str, Any]], reach: Sequence[float]) -> list[float]:
    """An axis for accuracies and intervals; a third, which is chance, and the baseline's 65 % are always in sight."""
    ends = [end for p, r in zip(points, reach, strict=True) for end in (p["accuracy"] - r, p["accuracy"] + r)]
    low, high = plotting.compute_range([0.3, 0.7, *ends])
    return [max(0.0, low), min(1.0, high)]


def _get_half_interval(document: Mapping[str, Any], point: Mapping[str, Any]) -> float:
    """Half the 95 % interval of the accuracy of a slice of the window; 0 where its width is unknown.

    Hits come in runs, so a slice of n bars tells less than n independent ones. How much less, the bootstrap of the whole
    window shows: its variance over that of independent bars is the design effect (Kish 1965), applied to each slice.
    """
    section = document.get("accuracy")
    whole = section if isinstance(section, Mapping) else {}
    if not _has_figures(whole, "rows", "point", "lower", "upper"):
        return 0.0
    independent = whole["point"] * (1 - whole["point"]) / max(1, whole["rows"])
    bootstrap = ((whole["upper"] - whole["lower"]) / (2 * NORMAL_95)) ** 2
    effect = bootstrap / independent if independent else 1.0
    share = float(point["accuracy"])
    return NORMAL_95 * math.sqrt(share * (1 - share) / max(1, point["rows"]) * effect)


def _list_differences(section: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The forecasters with a measured difference in accuracy, by name. A V5 is not compared with itself."""
    if not isinstance(section, Mapping):
        return
    naive = section.get("naive")
    for name, difference in naive.items() if isinstance(naive, Mapping) else ():
        if _has_figures(difference, "difference", "lower", "upper"):
            yield NAIVE.get(str(name), str(name)), difference
    v5 = section.get("baseline")
    if _has_figures(v5, "difference", "lower", "upper") and v5.get("is_itself") is not True:
        yield V5, v5


def _list_points(entries: object, *names: str) -> list[Mapping[str, Any]]:
    """The entries that hold these figures, and rows at all."""
    if not isinstance(entries, Sequence):
        return []
    return [entry for entry in entries if _has_figures(entry, *names) and entry["rows"] > 0]


def _is_row(row: object) -> bool:
    return isinstance(row, Sequence) and len(row) == 3 and all(is_finite_number(count) for count in row)


def _has_figures(entry: object, *names: str) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(entry, Mapping) and all(is_finite_number(entry.get(name)) for name in names)
