"""The charts of a diagnosis: plain Plotly figures (dicts, ready for JSON), drawn by the page's own script.

Backgrounds are transparent and fonts left to the page, so that one figure serves light and dark. What was not measured
is not drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common import plotting
from common.plotting import Figure
from gates.charts import accuracy, distributions
from gates.policy import BASELINE_POLICY

Document = Mapping[str, Any]
Side = tuple[Document, Document]
"""A measurement and the policy it was judged by."""

_CHARTS: Mapping[str, tuple[str, Callable[[Document, Document], Figure | None]]] = {
    "shares": ("Predicted class shares", distributions.draw_shares),
    "confidence": ("Confidence histogram", distributions.draw_confidence),
    "logits": ("Logit distribution", distributions.draw_logits),
    "confusion": ("Confusion matrix", accuracy.draw_confusion),
    "reliability": ("Calibration curve", accuracy.draw_calibration),
    "skill": ("Accuracy difference to other forecasters", accuracy.draw_skill),
    "stability": ("Accuracy over time", accuracy.draw_months),
    "volatility": ("Accuracy by volatility", accuracy.draw_volatility),
    "drift": ("Population stability index (PSI)", distributions.draw_drift),
}
TITLES = {name: title for name, (title, _) in _CHARTS.items()}
"""Every chart, in the order in which pages show them."""


def draw_charts(document: Document, policy: Document = BASELINE_POLICY) -> dict[str, Figure]:
    """The charts for which the measurement holds figures, by name, with the policy's thresholds drawn in."""
    gates = policy.get("gates", {})
    return plotting.add_titles({name: draw(document, gates) for name, (_, draw) in _CHARTS.items()}, TITLES)


def draw_charts_alike(sides: Sequence[Side]) -> list[dict[str, Figure]]:
    """The charts of several measurements, with equal axes for each kind."""
    charts = [draw_charts(document, policy) for document, policy in sides]
    reach = distributions.get_logit_reach([document for document, _ in sides])
    for figures, (document, policy) in zip(charts, sides, strict=True):
        logits = distributions.draw_logits(document, policy.get("gates", {}), reach)
        figures |= plotting.add_titles({"logits": logits}, TITLES)
    for name in TITLES:
        layouts = [figures[name]["layout"] for figures in charts if name in figures]
        for axis in ("xaxis", "yaxis"):
            plotting.align_axes(layouts, axis)
    return charts
