"""Charts of a study: plain Plotly figures, drawn by the script of the page."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from common.plotting import BLUE, GREEN, GREY, Figure, build_trace
from studies.models import Study, Trial
from studies.rules import Objective, TrialState


def draw_study(study: Study, trials: Sequence[Trial]) -> dict[str, Figure]:
    """The figure of each trial with the best so far, and the figures over each searched setting. Empty without a figure."""
    objective = Objective(study.objective)
    shown = [trial for trial in trials if getattr(trial.run, objective.column) is not None]
    if not shown:
        return {}
    charts = {"progress": _draw_progress(objective, shown)}
    for name, chosen in study.ranges.items():
        charts[name] = _draw_setting(objective, shown, name, chosen)
    return charts


def _read(objective: Objective, trials: Sequence[Trial]) -> list[float]:
    return [getattr(trial.run, objective.column) for trial in trials]


def _split(trials: Sequence[Trial]) -> list[tuple[str, str, list[Trial]]]:
    """(name, colour, trials) of those that are complete, and of all others that have a figure."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    others = [trial for trial in trials if trial.state != TrialState.COMPLETE]
    return [("complete", BLUE, complete), ("pruned or unfinished", GREY, others)]


def _draw_points(objective: Objective, trials: Sequence[Trial], x: str) -> list[Figure]:
    return [
        build_trace(
            [trial.number if x == "number" else trial.parameters[x] for trial in some],
            _read(objective, some),
            "%{text}: %{y:.4f}",
            name=name,
            mode="markers",
            text=[f"trial {trial.number}, {trial.parameters.get(x, trial.run_id)}" for trial in some],
            marker={"size": 7, "color": colour, "symbol": "circle" if name == "complete" else "circle-open"},
        )
        for name, colour, some in _split(trials)
        if some
    ]


def _draw_progress(objective: Objective, trials: Sequence[Trial]) -> Figure:
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = list(accumulate(_read(objective, complete), min if objective.is_minimized else max))
    step: Figure = {"mode": "lines", "line": {"width": 2, "color": GREEN, "shape": "hv"}}
    numbers = [trial.number for trial in complete]
    curve = build_trace(numbers, best, "best so far: %{y:.4f}", name="best so far", **step)
    xaxis = {"title": {"text": "trial"}, "tickformat": "d"}
    return _build_figure(objective, [*_draw_points(objective, trials, "number"), curve], xaxis)


def _draw_setting(objective: Objective, trials: Sequence[Trial], name: str, chosen: dict[str, Any]) -> Figure:
    xaxis: Figure = {"title": {"text": name.replace("_", " ")}}
    if chosen["kind"] == "log":
        xaxis |= {"type": "log", "dtick": 1, "tickformat": ".0e"}
    elif chosen["kind"] == "choice":
        xaxis |= {"type": "category", "categoryorder": "array", "categoryarray": chosen["choices"]}
    return _build_figure(objective, _draw_points(objective, trials, name), xaxis, has_legend=False)


def _build_figure(
    objective: Objective, data: list[Figure], xaxis: Figure, *, has_legend: bool = True
) -> Figure:
    form = {"tickformat": ".1%"} if objective == Objective.ACCURACY else {}
    layout: Figure = {
        "xaxis": xaxis,
        "yaxis": {"title": {"text": f"{objective} on the stop window"}, **form},
        "hovermode": "closest",
        "showlegend": has_legend,
        "uirevision": "study",
    }
    if has_legend:
        layout["legend"] = {"orientation": "h", "x": 0, "y": 1.12}
    return {"data": data, "layout": layout}
