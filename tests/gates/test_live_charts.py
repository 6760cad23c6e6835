"""What bots predict, drawn against what was measured before."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.plotting import BLUE, GREY, RED
from gates.catalogue.live import Tally
from gates.charts.live import LIVE_TITLES, Reach, draw_live_charts
from gates.policy import FULL_POLICY
from mlcore import confidence_bands
from tests import scenarios

START = datetime(2026, 11, 22, 8, tzinfo=UTC)


def tally(sure: float = 0.6, classes: tuple[int, int, int] = (30, 40, 30)) -> Tally:
    bands = [0] * confidence_bands.BANDS
    bands[confidence_bands.find_band(sure)] = 100
    return Tally(100, 0, classes, tuple(bands), -2.0, 2.0)


def reaches(*greatest: float) -> list[Reach]:
    return [Reach(START + timedelta(minutes=n), -2.0, each) for n, each in enumerate(greatest)]


def drawn(whole: Tally, windows: list[Reach], document: Any = None) -> dict[str, Any]:
    measured = scenarios.healthy("BTC") if document is None else document
    return draw_live_charts(whole, windows, measured, FULL_POLICY)


def test_every_picture_stands_beside_what_was_measured_and_can_be_sent() -> None:
    found = drawn(tally(), reaches(2.0, 2.1))
    assert list(found) == list(LIVE_TITLES)
    json.dumps(found, allow_nan=False)
    live, before = found["live_shares"]["data"]
    assert (live["y"], before["y"]) == ([0.3, 0.4, 0.3], [0.34, 0.31, 0.35])
    assert set(before["marker"]["color"]) == {GREY}
    assert [shape["y0"] for shape in found["live_logits"]["layout"]["shapes"][1:]] == [-2.9, 2.4]


def test_what_leaves_the_live_gates_is_red() -> None:
    found = drawn(tally(classes=(90, 5, 5)), reaches(2.0, 9301.0))
    assert found["live_shares"]["data"][0]["marker"]["color"] == [RED, RED, RED]
    least, greatest = found["live_logits"]["data"][:2]
    assert (least["marker"]["color"], greatest["marker"]["color"]) == ([BLUE, BLUE], [BLUE, RED])
    assert "logarithmic" in found["live_logits"]["layout"]["yaxis"]["title"]["text"]


def test_certainty_counts_from_the_level_on() -> None:
    bars = drawn(tally(), reaches(2.0))["live_confidence"]["data"][0]
    red = [
        edge
        for edge, colour in zip(confidence_bands.EDGES, bars["marker"]["color"], strict=False)
        if colour == RED
    ]
    assert red == [0.9, 0.92, 0.94, 0.96, 0.98]


def test_both_histograms_are_of_one_height_where_they_agree() -> None:
    counts = [10] * confidence_bands.BANDS
    document = {"confidence": {"histogram": {"edges": list(confidence_bands.EDGES), "counts": counts}}}
    whole = Tally(350, 0, (100, 150, 100), tuple(counts), -1.0, 1.0)
    live, before = drawn(whole, [], document)["live_confidence"]["data"]
    assert before["y"] == pytest.approx(live["y"])


def test_logits_stand_on_one_axis_with_how_they_lay_on_the_gate_window() -> None:
    histogram = {"edges": [-3.0, -1.0, 1.0, 2.0], "counts": [25, 50, 25]}
    document = {"logits": {"least": -3.0, "greatest": 2.0, "histogram": histogram}}
    *live, before = drawn(tally(), reaches(2.0, 30.0), document)["live_logits"]["data"]
    assert [each["name"] for each in live] == ["least", "greatest"]
    assert (before["orientation"], before["x"], before["y"]) == ("h", [0.25, 0.5, 0.25], [-2.0, 0.0, 1.5])
    exploded = {"logits": {**document["logits"], "histogram": {**histogram, "edges": [-9000, -1, 1, 2]}}}
    layout = drawn(tally(), reaches(2.0), exploded)["live_logits"]["layout"]
    assert "logarithmic" in layout["yaxis"]["title"]["text"], "an axis that holds both"
    assert layout["yaxis"]["range"][0] < -3.9


def test_without_a_measurement_the_live_side_is_drawn_alone() -> None:
    found = drawn(tally(), reaches(2.0), {})
    assert [len(found[name]["data"]) for name in ("live_shares", "live_confidence")] == [1, 1]


def test_what_nobody_predicted_is_not_drawn() -> None:
    assert drawn(Tally(), []) == {}
    assert drawn(Tally(5, 5), []) == {}
