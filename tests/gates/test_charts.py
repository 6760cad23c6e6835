"""A diagnosis as pictures: drawn from stored figures alone, readable in light and dark."""

import json
from copy import deepcopy
from typing import Any

import plotly.graph_objects as plotly
import pytest

from common.plotting import BLUE, RED
from gates.charts.diagnosis import TITLES, draw_charts, draw_charts_alike
from gates.policy import BASELINE_POLICY, FULL_POLICY
from tests.scenarios import collapsed, healthy

SECTIONS = {
    "confidence": {"confidence"},
    "logits": {"logits"},
    "shares": {"shares"},
    "confusion": {"confusion"},
    "reliability": {"reliability"},
    "skill": {"skill"},
    "stability": {"stability", "volatility"},
    "drift": {"drift"},
}
"""Which pictures are drawn of which section."""
ALL = set().union(*SECTIONS.values())


def exploded() -> dict[str, Any]:
    document = collapsed("BTC")
    document["logits"]["histogram"] = {"edges": [-12527.0, -10.0, 10.0, 9301.0], "counts": [30, 10, 60]}
    return document


@pytest.mark.parametrize("document", [healthy("BTC"), exploded()], ids=["a healthy bundle", "V6"])
def test_plotly_takes_every_picture_and_the_page_can_send_it(document: dict[str, Any]) -> None:
    drawn = draw_charts(document)
    assert set(drawn) == ALL
    for figure in drawn.values():
        plotly.Figure(json.loads(json.dumps(figure, allow_nan=False)))
        assert figure["layout"]["paper_bgcolor"] == figure["layout"]["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert "font" not in figure["layout"]


def test_every_picture_has_its_title() -> None:
    assert set(TITLES) == ALL
    for drawn in (draw_charts(healthy("BTC")), *draw_charts_alike([(healthy("BTC"), BASELINE_POLICY)] * 2)):
        assert {name: figure["layout"]["title"]["text"] for name, figure in drawn.items()} == TITLES


@pytest.mark.parametrize("gone", sorted(SECTIONS))
def test_what_was_not_measured_is_not_drawn(gone: str) -> None:
    document = healthy("BTC")
    del document[gone]
    assert set(draw_charts(document)) == ALL - SECTIONS[gone]


@pytest.mark.parametrize("gone", ["skill", "stability", "drift"])
def test_a_section_that_could_not_be_measured_is_not_drawn(gone: str) -> None:
    document = healthy("BTC")
    document[gone] = {**dict.fromkeys(document[gone]), "problem": "killed"}
    assert set(draw_charts(document)) == ALL - SECTIONS[gone]


def test_skill_has_an_interval_per_forecaster_red_if_it_contains_0() -> None:
    document = healthy("BTC")
    document["skill"]["naive"]["reversal"] |= {"difference": 0.01, "lower": -0.02, "upper": 0.04}
    drawn = draw_charts(document)["skill"]["data"][0]
    shown = dict(zip(drawn["y"], drawn["marker"]["color"], strict=True))
    assert shown == {
        "the majority class": BLUE,
        "persistence": BLUE,
        "reversal": RED,
        "V5": RED,  # 0.8 points ahead, from −0.7 to 2.3
    }
    asked = draw_charts(document, FULL_POLICY)["skill"]["data"][0]  # which lets it lose two points to v5
    assert asked["marker"]["color"] == [BLUE, BLUE, RED, BLUE]
    reach = dict(zip(drawn["y"], drawn["error_x"]["arrayminus"], strict=True))
    assert reach["reversal"] == pytest.approx(0.03)


def test_v5_is_no_rival_of_its_own() -> None:
    document = healthy("BTC")
    assert "V5" in draw_charts(document)["skill"]["data"][0]["y"]
    document["skill"]["baseline"]["is_itself"] = True
    assert "V5" not in draw_charts(document)["skill"]["data"][0]["y"]


def test_the_reliability_says_how_far_certainty_and_truth_are_apart() -> None:
    (said,) = draw_charts(healthy("BTC"))["reliability"]["layout"]["annotations"]
    assert said["text"] == "12.0 points off on average<br>Brier score 0.410"


def test_a_month_has_an_interval_widened_like_the_bootstrap() -> None:
    document = healthy("BTC")
    whole = document["accuracy"]
    independent = 1.96 * (whole["point"] * (1 - whole["point"]) / whole["rows"]) ** 0.5
    effect = ((whole["upper"] - whole["lower"]) / 2 / independent) ** 2
    month = document["stability"]["months"][0]
    share, rows = month["accuracy"], month["rows"]
    drawn = draw_charts(document)["stability"]["data"][0]
    assert drawn["x"] == ["2025-01-15", "2025-02-15"]
    assert drawn["error_y"]["array"][0] == pytest.approx(1.96 * (share * (1 - share) / rows * effect) ** 0.5)
    del whole["lower"]
    assert draw_charts(document)["stability"]["data"][0]["error_y"]["array"] == [0.0, 0.0]


def test_the_most_drifted_features_are_drawn_red_beyond_a_quarter() -> None:
    document = healthy("BTC")
    document["drift"]["psi"] = {f"feature_{n}": n / 40 for n in range(20)}
    drawn = draw_charts(document)["drift"]["data"][0]
    assert (drawn["y"][0], len(drawn["y"])) == ("feature_19", 10)
    assert drawn["marker"]["color"] == [RED] * 9 + [BLUE]


def test_two_documents_stand_on_axes_of_one_length() -> None:
    calm, wild = draw_charts_alike([(healthy("BTC"), BASELINE_POLICY), (exploded(), BASELINE_POLICY)])
    for name in ("logits", "confidence", "shares", "skill", "stability"):
        for axis in ("xaxis", "yaxis"):
            assert calm[name]["layout"][axis].get("range") == wild[name]["layout"][axis].get("range"), name
    assert "−1k" in calm["logits"]["layout"]["xaxis"]["ticktext"]
    assert max(calm["logits"]["data"][0]["x"]) < 1, "small logits keep their place on the long axis"


def test_one_that_was_not_measured_leaves_the_other_its_pictures() -> None:
    calm, nothing = draw_charts_alike([(healthy("BTC"), BASELINE_POLICY), ({}, {})])
    assert set(calm) == ALL and nothing == {}


@pytest.mark.parametrize(
    "document", [{}, {"failure": "killed"}, dict.fromkeys(ALL), {key: {} for key in ALL}]
)
def test_a_measuring_that_failed_has_no_pictures(document: dict[str, Any]) -> None:
    assert draw_charts(document) == {}


def test_a_histogram_with_a_hole_is_not_drawn() -> None:
    document = healthy("BTC")
    document["logits"]["histogram"]["edges"][0] = None
    assert "logits" not in draw_charts(document)


def test_small_logits_have_a_linear_axis_and_exploded_ones_a_log_axis() -> None:
    plain = draw_charts(healthy("BTC"))["logits"]
    assert plain["data"][0]["x"] == [-2.0, 0.0, 2.0]
    logarithmic = draw_charts(exploded())["logits"]
    assert "−1k" in logarithmic["layout"]["xaxis"]["ticktext"]
    assert max(map(abs, logarithmic["layout"]["xaxis"]["range"])) < 6
    assert logarithmic["data"][0]["marker"]["color"] == [RED, BLUE, RED]
    assert logarithmic["data"][0]["y"] == [0.3, 0.1, 0.6]


def test_shares_outside_the_band_of_the_policy_are_red() -> None:
    document = healthy("BTC")
    document["shares"] = {"down": 0.45, "neutral": 0.3, "up": 0.25}
    assert draw_charts(document)["shares"]["data"][0]["marker"]["color"] == [RED, BLUE, BLUE]
    looser = deepcopy(dict(BASELINE_POLICY))
    looser["gates"]["class_balance"]["most"] = 0.5
    assert draw_charts(document, looser)["shares"]["data"][0]["marker"]["color"] == [BLUE, BLUE, BLUE]


def test_each_row_of_the_confusion_adds_up_to_one() -> None:
    for row in draw_charts(healthy("BTC"))["confusion"]["data"][0]["z"]:
        assert sum(row) == pytest.approx(1)


def test_empty_bins_are_left_out_of_the_reliability_curve() -> None:
    document = healthy("BTC")
    document["reliability"].append({"confidence": None, "accuracy": None, "rows": 0})
    assert draw_charts(document)["reliability"]["data"][1]["x"] == [0.6]
