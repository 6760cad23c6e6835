"""A diagnosis as pictures: plain Plotly figures (dicts, ready for JSON), drawn by the page's own script.

Backgrounds are transparent and fonts left to the page, so that one figure serves light and dark. What was not measured
is not drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common import plotting
from common.plotting import Figure
from gates.charts import accuracy, distributions
from gates.policy import BASELINE_POLICY

Side = tuple[Mapping[str, Any], Mapping[str, Any]]
"""A measurement document and the policy it was judged by."""

TITLES = {
    "shares": "Predicted directions",
    "confidence": "Confidence of predictions",
    "logits": "Logits",
    "confusion": "What came, what was said",
    "reliability": "How sure, how often right",
    "skill": "Right more often than",
    "stability": "Accuracy over time",
    "volatility": "Accuracy by volatility",
    "drift": "Features that moved most",
}
"""Every picture there is, in the order in which pages show them."""


def charts(document: Mapping[str, Any], policy: Mapping[str, Any] = BASELINE_POLICY) -> dict[str, Figure]:
    """Every picture that a measurement document holds figures for, by name, with the policy's thresholds drawn in."""
    gates = policy.get("gates", {})
    return plotting.titled({name: draw(document, gates) for name, draw in _CHARTS.items()}, TITLES)


def side_by_side(sides: Sequence[Side]) -> list[dict[str, Figure]]:
    """The pictures of several documents, each kind on axes of one length, so that the eye may compare them."""
    drawn = [charts(document, policy) for document, policy in sides]
    reach = distributions.logit_reach([document for document, _ in sides])
    for figures, (document, policy) in zip(drawn, sides, strict=True):
        logits = distributions.logits(document, policy.get("gates", {}), reach)
        figures |= plotting.titled({"logits": logits}, TITLES)
    for name in TITLES:
        alike = [figures[name]["layout"] for figures in drawn if name in figures]
        for axis in ("xaxis", "yaxis"):
            plotting.share_axis(alike, axis)
    return drawn


_CHARTS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Figure | None]] = {
    "shares": distributions.shares,
    "confidence": distributions.confidence,
    "logits": distributions.logits,
    "confusion": accuracy.confusion,
    "reliability": accuracy.reliability,
    "skill": accuracy.skill,
    "stability": accuracy.stability,
    "volatility": accuracy.volatility,
    "drift": distributions.drift,
}
