"""A diagnosis as pictures: drawn from stored figures alone, readable in light and dark."""

import json
from copy import deepcopy
from typing import Any

import plotly.graph_objects as plotly
import pytest

from gates.charts import BLUE, RED, charts
from gates.rules import SEED_POLICY
from tests.scenarios import collapsed, healthy

ALL = {"confidence", "logits", "shares", "confusion", "reliability"}


def exploded() -> dict[str, Any]:
    document = collapsed("BTC")
    document["logits"]["histogram"] = {"edges": [-12527.0, -10.0, 10.0, 9301.0], "counts": [30, 10, 60]}
    return document


@pytest.mark.parametrize("document", [healthy("BTC"), exploded()], ids=["a healthy bundle", "V6"])
def test_plotly_takes_every_picture_and_the_page_can_send_it(document: dict[str, Any]) -> None:
    drawn = charts(document)
    assert set(drawn) == ALL
    for figure in drawn.values():
        plotly.Figure(json.loads(json.dumps(figure, allow_nan=False)))
        assert figure["layout"]["paper_bgcolor"] == figure["layout"]["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert "font" not in figure["layout"]


@pytest.mark.parametrize("gone", sorted(ALL))
def test_what_was_not_measured_is_not_drawn(gone: str) -> None:
    document = healthy("BTC")
    del document[gone]
    assert set(charts(document)) == ALL - {gone}


@pytest.mark.parametrize(
    "document", [{}, {"failure": "killed"}, dict.fromkeys(ALL), {key: {} for key in ALL}]
)
def test_a_measuring_that_failed_has_no_pictures(document: dict[str, Any]) -> None:
    assert charts(document) == {}


def test_a_histogram_with_a_hole_is_not_drawn() -> None:
    document = healthy("BTC")
    document["logits"]["histogram"]["edges"][0] = None
    assert "logits" not in charts(document)


def test_small_logits_stand_on_a_plain_axis_and_exploded_ones_on_a_logarithmic() -> None:
    plain = charts(healthy("BTC"))["logits"]
    assert plain["data"][0]["x"] == [-2.0, 0.0, 2.0]
    logarithmic = charts(exploded())["logits"]
    assert "−1k" in logarithmic["layout"]["xaxis"]["ticktext"]
    assert max(map(abs, logarithmic["layout"]["xaxis"]["range"])) < 6
    assert logarithmic["data"][0]["marker"]["color"] == [RED, BLUE, RED]
    assert logarithmic["data"][0]["y"] == [0.3, 0.1, 0.6]


def test_shares_outside_the_band_of_the_policy_are_red() -> None:
    document = healthy("BTC")
    document["shares"] = {"down": 0.45, "neutral": 0.3, "up": 0.25}
    assert charts(document)["shares"]["data"][0]["marker"]["color"] == [RED, BLUE, BLUE]
    looser = deepcopy(dict(SEED_POLICY))
    looser["gates"]["class_balance"]["most"] = 0.5
    assert charts(document, looser)["shares"]["data"][0]["marker"]["color"] == [BLUE, BLUE, BLUE]


def test_each_row_of_the_confusion_adds_up_to_one() -> None:
    for row in charts(healthy("BTC"))["confusion"]["data"][0]["z"]:
        assert sum(row) == pytest.approx(1)


def test_empty_bins_are_left_out_of_the_reliability_curve() -> None:
    document = healthy("BTC")
    document["reliability"].append({"confidence": None, "accuracy": None, "rows": 0})
    assert charts(document)["reliability"]["data"][1]["x"] == [0.6]
