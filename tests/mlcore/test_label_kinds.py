"""Other labels than the default: a fixed cut in percent and the triple barrier, over 1 to 96 bars."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlcore.data import simulate
from mlcore.errors import InvalidParameter, NotEnoughBars
from mlcore.features import labels
from mlcore.features.examples import build_examples
from mlcore.features.indicators import SCHEMAS
from mlcore.features.labels import Label, LabelKind

FRAME = simulate.simulate("BTC", 3_000, 1.0, seed=1)
HIGH, LOW, CLOSE = (FRAME[name].to_numpy() for name in ("high", "low", "close"))


def written_barrier(t: int, horizon: int, width: float) -> float:
    """The definition, bar by bar."""
    trailing = np.diff(np.log(CLOSE[t - labels.VOLATILITY_BARS : t + 1])).std(ddof=1) * np.sqrt(horizon)
    for bar in range(t + 1, t + horizon + 1):
        rise, fall = (np.log(extreme[bar] / CLOSE[t]) / trailing for extreme in (HIGH, LOW))
        if rise > width and fall < -width:
            return 0.0
        if rise > width or fall < -width:
            return float(rise if rise > width else fall)
    return float(np.log(CLOSE[t + horizon] / CLOSE[t]) / trailing)


@pytest.mark.parametrize("horizon", [1, 8, 96])
def test_a_percent_label_is_the_move_in_percent(horizon: int) -> None:
    outcomes = Label(LabelKind.PERCENT, horizon, 0.5).compute_outcomes(FRAME)
    assert outcomes[1_000] == pytest.approx(100 * (CLOSE[1_000 + horizon] / CLOSE[1_000] - 1), rel=1e-12)


@pytest.mark.parametrize(("horizon", "width"), [(1, 0.5), (8, 1.0), (12, 0.3), (96, 2.0)])
def test_a_barrier_label_is_the_first_barrier_that_a_bar_crosses(horizon: int, width: float) -> None:
    outcomes = Label(LabelKind.BARRIERS, horizon, width).compute_outcomes(FRAME)
    rows = range(100, 400)
    expected = [written_barrier(t, horizon, width) for t in rows]
    np.testing.assert_allclose(outcomes[100:400], expected, rtol=1e-9)
    classes = labels.assign_classes(outcomes[100:400], (-width, width))
    assert set(classes.tolist()) == {0, 1, 2}


def test_a_bar_that_crosses_both_barriers_is_neutral() -> None:
    high, low, close = HIGH.copy(), LOW.copy(), CLOSE.copy()
    high[501], low[501] = close[500] * 1.5, close[500] * 0.5
    outcomes = labels.compute_barrier_moves(high, low, close, 8, 1.0)
    assert outcomes[500] == 0.0


@pytest.mark.parametrize(
    "label", [Label(LabelKind.PERCENT, 24, 0.5), Label(LabelKind.BARRIERS, 24, 1.0), Label(horizon=24)]
)
def test_all_kinds_leave_out_the_same_bars(label: Label) -> None:
    usable = np.flatnonzero(np.isfinite(label.compute_outcomes(FRAME)))
    assert (usable[0], usable[-1], len(usable)) == (20, len(CLOSE) - 25, len(CLOSE) - 44)
    still = FRAME.with_columns(pl.lit(50.0).alias(name) for name in ("open", "high", "low", "close"))
    assert np.isnan(label.compute_outcomes(still)).all()


def test_the_default_label_is_the_plans_bit_for_bit() -> None:
    default = Label().compute_outcomes(FRAME)
    assert default.tobytes() == labels.compute_forward_returns(CLOSE).tobytes()
    assert Label() == Label(LabelKind.TERCILES, 8)


@pytest.mark.parametrize("kind", [LabelKind.TERCILES, LabelKind.PERCENT, LabelKind.BARRIERS])
def test_the_last_move_of_a_label_is_in_the_unit_of_its_outcomes(kind: LabelKind) -> None:
    cut = None if kind == LabelKind.TERCILES else 0.5
    label = Label(kind, 12, cut)
    last = label.compute_last_moves(CLOSE)[1_000]
    move = 100 * (CLOSE[1_000] / CLOSE[988] - 1)
    if kind != LabelKind.PERCENT:
        unit = np.diff(np.log(CLOSE[980:1_001])).std(ddof=1) * np.sqrt(12)
        move = np.log(CLOSE[1_000] / CLOSE[988]) / unit
    assert last == pytest.approx(move, rel=1e-9)


def test_a_declared_cut_is_taken_as_it_is_and_an_empty_class_is_refused() -> None:
    outcomes = np.array([-2.0, 0.1, 2.0, -0.2])
    assert Label(LabelKind.PERCENT, 8, 0.5).compute_cuts(outcomes) == (-0.5, 0.5)
    with pytest.raises(NotEnoughBars, match=r"no bar of the fit window is down or up .*choose another cut"):
        Label(LabelKind.PERCENT, 8, 20.0).compute_cuts(outcomes)


@pytest.mark.parametrize(
    ("claim", "name", "reason"),
    [
        ({"horizon": 0}, "horizon", "from 1 to 96"),
        ({"horizon": 97}, "horizon", "from 1 to 96"),
        ({"horizon": 8.0}, "horizon", "whole number"),
        ({"horizon": True}, "horizon", "whole number"),
        ({"horizon": 8, "cut": 1.0}, "cut", "leave the cut out"),
        ({"kind": "percent", "horizon": 8}, "cut", "needs a cut from 0.01 to 50 percent"),
        ({"kind": "percent", "horizon": 8, "cut": float("nan")}, "cut", "needs a cut"),
        ({"kind": "barriers", "horizon": 8, "cut": 11}, "cut", "from 0.1 to 10 units of volatility"),
        ({"kind": "barriers", "horizon": 8, "cut": "1"}, "cut", "needs a cut"),
    ],
)
def test_a_label_that_there_is_not_is_refused(claim: Mapping[str, Any], name: str, reason: str) -> None:
    with pytest.raises(InvalidParameter, match=reason) as refused:
        Label.parse(claim)
    assert refused.value.name == name


def test_a_label_comes_back_from_its_manifest() -> None:
    for label in (Label(), Label(LabelKind.PERCENT, 24, 0.8), Label(LabelKind.BARRIERS, 96, 1.5)):
        assert Label.parse(label.describe()) == label
    assert Label.parse({"horizon": 8, "volatility_bars": 20}) == Label(), "manifests without a kind"


def test_classes_of_every_kind_are_shared_out_by_their_cuts() -> None:
    for label in (Label(LabelKind.PERCENT, 24, 0.5), Label(LabelKind.BARRIERS, 12, 1.0)):
        examples = build_examples(FRAME, SCHEMAS["relative72"], label)
        cuts = label.compute_cuts(examples.scaled_returns[examples.split.fit])
        assert set(labels.assign_classes(examples.scaled_returns, cuts).tolist()) == {0, 1, 2}
