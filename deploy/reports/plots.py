"""The charts of a report: each coin's pictures twice, before and after, on axes of one length."""

from typing import Any

from deploy.reports.comparison import Comparison
from gates.charts.diagnosis import TITLES, Figure, draw_charts_alike

BEFORE, AFTER = "before", "after"


def draw_charts(found: Comparison, coin: str) -> dict[str, Figure]:
    """By name, as in `before-logits`; none for a coin that neither release measured."""
    sides = {BEFORE: found.before, AFTER: found.after}
    judged = {name: side.coins[coin] for name, side in sides.items() if side and coin in side.coins}
    drawn = draw_charts_alike([(one.document, one.policy) for one in judged.values()])
    return {
        f"{name}-{kind}": figure
        for name, figures in zip(judged, drawn, strict=True)
        for kind, figure in figures.items()
    }


def list_chart_groups(found: Comparison) -> list[dict[str, Any]]:
    """Where a page puts them: for each coin the kinds that either release has a picture of."""
    return [{"coin": coin, "kinds": _kinds(found, coin)} for coin in found.coins]


def _kinds(found: Comparison, coin: str) -> list[dict[str, str]]:
    drawn = {name.partition("-")[2] for name in draw_charts(found, coin)}
    return [{"name": kind, "title": title} for kind, title in TITLES.items() if kind in drawn]
