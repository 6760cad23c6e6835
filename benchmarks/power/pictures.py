"""The curves as pictures: drawn by Plotly in the Chromium that the browser tests use."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
from playwright.sync_api import sync_playwright
from plotly.offline import get_plotlyjs

from benchmarks.power.border import ALLOWED
from benchmarks.power.markets import FULL
from benchmarks.power.results import LEAST_RELEASED, Results
from benchmarks.power.shares import Share

WIDTH, HEIGHT = 900, 480
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COLOURS = ("#1f5fbf", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0e7490", "#854d0e", "#4b5563")

DASHES = ("solid", "dash", "dot", "dashdot")
"""Gates that refuse the same coins lie on one another; dashes show both."""


class NoBrowser(Exception):
    """Nothing here can draw."""


def draw(results: Results, folder: Path) -> dict[str, Path]:
    """Writes the PNGs and names them. Raises NoBrowser, saying what to do."""
    path = os.environ.get("CRPBOT_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise NoBrowser("no Chromium here: install one, or set CRPBOT_CHROMIUM")
    figures = {"released": released(results.asked), "gates": gates(results.asked)}
    if results.borders:
        figures["border"] = border(results)
    prefix = "power" if results.policy == FULL else f"power-{results.policy}"
    found = {name: folder / f"{prefix}-{name}.png" for name in figures}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2)
        page.set_content(
            f"<body style='margin:0'><script>{get_plotlyjs()}</script><div id='chart'></div></body>"
        )
        for name, figure in figures.items():
            page.set_viewport_size({"width": WIDTH, "height": int(figure.layout.height)})
            page.evaluate(
                "([data, layout]) => Plotly.newPlot('chart', data, layout, {staticPlot: true})",
                [figure.to_plotly_json()["data"], figure.to_plotly_json()["layout"]],
            )
            page.screenshot(path=found[name])
        browser.close()
    return found


def released(results: Results) -> go.Figure:
    drifts = results.drifts()
    shares = [results.released(drift) for drift in drifts]
    figure = _figure("Markets released, of those with this drift", "planted drift, in volatilities a bar")
    figure.add_scatter(
        x=drifts,
        y=[share.share for share in shares],
        error_y=_errors(shares),
        mode="lines+markers",
        line={"color": COLOURS[0], "width": 3},
        marker={"size": 9},
    )
    if results.policy != FULL:
        return figure
    return _lined(figure, LEAST_RELEASED, "asked at drift 1.5: above 95 %")


def gates(results: Results) -> go.Figure:
    figure = _figure("Coins refused, by the gate that did", "planted drift, in volatilities a bar")
    for place, (gate, colour) in enumerate(zip(results.gates(), COLOURS * 3, strict=False)):
        figure.add_scatter(
            x=results.drifts(),
            y=[results.refused(drift)[gate].share for drift in results.drifts()],
            name=gate,
            mode="lines+markers",
            line={"color": colour, "width": 3, "dash": DASHES[place % len(DASHES)]},
        )
    return figure.update_layout(showlegend=True)


def border(results: Results) -> go.Figure:
    found = results.border()
    names = list(reversed(found))
    figure = _figure("Gate windows passed by forecasters that are right in exactly 0.65", "")
    for window, colour in zip(_windows(found), COLOURS, strict=False):
        shares = [found[name][window] for name in names]
        figure.add_bar(
            y=names,
            x=[share.share for share in shares],
            error_x=_errors(shares),
            name=window,
            orientation="h",
            marker={"color": colour},
        )
    figure.add_vline(x=ALLOWED, line={"color": "#b91c1c", "dash": "dash"})
    figure.update_xaxes(tickformat=".0%", range=[0, 0.1])
    figure.update_yaxes(tickformat=None, range=None, automargin=True)
    return figure.update_layout(showlegend=True, barmode="group", legend={"traceorder": "reversed"})


def _windows(found: Mapping[str, Mapping[str, Share]]) -> list[str]:
    return list(next(iter(found.values()), {}))[::-1]


def _figure(title: str, below: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        title=title,
        template="plotly_white",
        width=WIDTH,
        height=HEIGHT,
        showlegend=False,
        font={"size": 14, "family": "sans-serif"},
        margin={"l": 60, "r": 30, "t": 60, "b": 60},
    )
    figure.update_xaxes(title=below)
    return figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.03])


def _lined(figure: go.Figure, at: float, says: str) -> go.Figure:
    line = {"color": "#b91c1c", "dash": "dash"}
    return figure.add_hline(y=at, line=line, annotation={"text": says, "xanchor": "left", "x": 0.02})


def _errors(shares: Sequence[Share]) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [share.interval[1] - share.share for share in shares],
        "arrayminus": [share.share - share.interval[0] for share in shares],
        "color": "#6b7280",
    }
