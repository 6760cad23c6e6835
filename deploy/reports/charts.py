"""The charts of a report: each coin twice, before and after, on the same axes."""

from typing import Any

from common.plotting import Figure
from deploy.reports.comparison import Comparison
from gates.charts.diagnosis import TITLES, draw_charts_alike

BEFORE, AFTER = "before", "after"


def draw_charts(comparison: Comparison, coin: str) -> dict[str, Figure]:
    """By name, as in `before-logits`; none for a coin that was measured in neither release."""
    sides = {BEFORE: comparison.before, AFTER: comparison.after}
    judged = {name: side.coins[coin] for name, side in sides.items() if side and coin in side.coins}
    drawn = draw_charts_alike([(one.document, one.policy) for one in judged.values()])
    return {
        f"{name}-{kind}": figure
        for name, figures in zip(judged, drawn, strict=True)
        for kind, figure in figures.items()
    }


def list_chart_groups(comparison: Comparison) -> list[dict[str, Any]]:
    """The charts of each coin that either release has, in the order of the page."""
    return [{"coin": coin, "kinds": _list_kinds(comparison, coin)} for coin in comparison.coins]


def _list_kinds(comparison: Comparison, coin: str) -> list[dict[str, str]]:
    drawn = {name.partition("-")[2] for name in draw_charts(comparison, coin)}
    return [{"name": kind, "title": title} for kind, title in TITLES.items() if kind in drawn]
