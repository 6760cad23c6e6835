"""The settings of a launch: what a model sees, predicts and is judged on, checked in one place."""

import numpy as np
import polars as pl
import pytest

from mlcore.bundle.format import Bundle
from mlcore.bundle.predictor import Predictor
from mlcore.bundle.writer import write_bundle
from mlcore.data import candles, simulate
from mlcore.errors import InvalidParameter, NotEnoughBars
from mlcore.evaluation import v5
from mlcore.evaluation.bootstrap import Blocks, get_block_bars, get_cautious_block_bars
from mlcore.evaluation.measure import measure
from mlcore.features import indicators
from mlcore.features.indicators import find_schema
from mlcore.features.labels import Label, LabelKind
from mlcore.features.splits import Shares
from mlcore.features.terms import DEFAULT_TERMS, Terms
from mlcore.fitting.fit import fit, prepare
from mlcore.fitting.recipes import RECIPES, build_baseline_recipe

V7 = RECIPES["v7_fixed"]


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({"horizon": 97}, "horizon", "from 1 to 96"),
        ({"horizon": 0}, "horizon", "from 1 to 96"),
        ({"label": "quartiles"}, "label", "none of terciles, percent, barriers"),
        ({"label": "percent"}, "cut", "needs a cut from 0.01 to 50 percent"),
        ({"label": "barriers", "cut": 20.0}, "cut", "from 0.1 to 10"),
        ({"cut": 1.0}, "cut", "leave the cut out"),
        ({"input": "window8"}, "input", "window16 to window2048"),
        ({"input": "window2049"}, "input", "window16 to window2048"),
        ({"input": "window٣٢"}, "input", "there is no input"),
        ({"input": "relative73"}, "input", "choose raw72, relative72"),
        ({"input": 64}, "input", "there is no input"),
        ({"class_weights": "none"}, "class_weights", "none of balanced, equal"),
        ({"hidden_widths": "256-128"}, "hidden_widths", "three widths from 8 to 1,024"),
        ({"hidden_widths": "256-128-4"}, "hidden_widths", "three widths from 8 to 1,024"),
        ({"hidden_widths": [256, 128, 64]}, "hidden_widths", "three widths"),
        ({"fit_percent": 81}, "fit_percent", "from 50 to 80"),
        ({"fit_percent": 80}, "stop_percent", "gate window would be 5 %.*10 to 40 %"),
        ({"fit_percent": 50, "stop_percent": 5}, "stop_percent", "gate window would be 45 %"),
        ({"stop_percent": 7.5}, "stop_percent", "not a whole number"),
    ],
)
def test_a_setting_out_of_its_bounds_is_refused_by_name(
    changes: dict[str, object], name: str, reason: str
) -> None:
    with pytest.raises(InvalidParameter, match=reason) as refused:
        V7.with_parameters(**changes)  # type: ignore[arg-type]
    assert refused.value.name == name


def test_settings_change_what_is_seen_predicted_and_judged() -> None:
    changed = V7.with_parameters(
        input="window64", horizon=24, label="barriers", cut=1.5, class_weights="equal",
        hidden_widths="64-32-16", fit_percent=60, stop_percent=20,
    )  # fmt: skip
    assert changed.label == Label(LabelKind.BARRIERS, 24, 1.5)
    assert changed.shares == Shares(60, 20) and changed.shares.gate_percent == 20
    assert changed.input == find_schema("window64")
    assert (changed.weighs_classes, changed.hidden_widths) == (False, (64, 32, 16))
    assert (changed.epochs, changed.batch_size) == (V7.epochs, V7.batch_size)


def test_the_default_of_every_setting_is_the_recipe_itself() -> None:
    defaults = {name: V7.get_default(name) for name in V7.settings}
    assert V7.with_parameters(**defaults) == V7


@pytest.mark.parametrize("line", ["v5", "v6_enhanced"])
def test_other_lines_take_none_of_these_settings(line: str) -> None:
    with pytest.raises(InvalidParameter, match="no such setting"):
        RECIPES[line].with_parameters(horizon=24)


def test_the_baseline_takes_over_the_terms_of_the_candidate() -> None:
    terms = Terms(Label(LabelKind.PERCENT, 24, 0.5), Shares(60, 20), warm_up=299)
    recipe = build_baseline_recipe(terms)
    assert (recipe.label, recipe.shares, recipe.schema) == (terms.label, terms.shares, "relative72")
    assert build_baseline_recipe(DEFAULT_TERMS) == RECIPES["v5"]
    assert Terms.parse(terms.describe()) == terms


@pytest.mark.parametrize("horizon", [1, 8, 24, 96])
def test_blocks_hold_nine_horizons_and_never_fewer_bars_than_the_default(horizon: int) -> None:
    assert get_block_bars(horizon) == max(72, 9 * horizon)
    assert get_cautious_block_bars(horizon) >= max(216, 9 * horizon)
    assert (get_block_bars(8), get_cautious_block_bars(8)) == (72, 216)


@pytest.mark.parametrize("horizon", [8, 24, 96])
def test_blocks_of_nine_horizons_see_how_overlapping_labels_vary(horizon: int) -> None:
    """Hits that overlap as labels do, over 40 horizons or more: the interval's width is that of the truth within a tenth."""
    rows, rng = max(6_000, 120 * horizon), np.random.default_rng(horizon)

    def draw_hits() -> np.ndarray:
        steps = rng.normal(size=rows + horizon)
        return (np.convolve(steps, np.ones(horizon), "valid")[:rows] > 0).astype(np.int64)

    means = np.array([draw_hits().mean() for _ in range(300)])
    errors = [
        Blocks(rows, seed, get_block_bars(horizon)).estimate(draw_hits()).standard_error for seed in range(30)
    ]
    ratio = np.mean(errors) / means.std(ddof=1)
    assert 0.85 < ratio < 1.15
    short = [Blocks(rows, seed, horizon // 2).estimate(draw_hits()).standard_error for seed in range(10)]
    assert np.mean(short) / means.std(ddof=1) < 0.75, "blocks shorter than the overlap would be too sure"


def test_a_horizon_that_leaves_no_stop_window_is_refused() -> None:
    recipe = V7.with_parameters(horizon=96, fit_percent=70, stop_percent=10)
    with pytest.raises(NotEnoughBars, match="choose a shorter horizon"):
        prepare(simulate.simulate("BTC", 1_500, 1.0, seed=1), recipe)


def test_a_window_over_too_long_a_history_is_refused_with_one_that_fits() -> None:
    frame = simulate.simulate("BTC", 60_000, 1.0, seed=1)
    with pytest.raises(NotEnoughBars, match="choose a window of at most 661 bars"):
        prepare(frame, V7.with_parameters(input="window2048"))


SETTINGS: dict[str, dict[str, object]] = {
    "another horizon": {"horizon": 24},
    "percent": {"label": "percent", "cut": 0.5, "horizon": 12},
    "barriers": {"label": "barriers", "cut": 1.0, "horizon": 12},
    "windows": {"input": "window32", "hidden_widths": "64-32-16"},
    "long windows": {"input": "window300", "hidden_widths": "32-16-8"},
    "another split": {"fit_percent": 60, "stop_percent": 20, "class_weights": "equal"},
}
MARKET = simulate.simulate("BTC", 6_000, 1.2, seed=1)


@pytest.fixture(scope="module", params=list(SETTINGS.values()), ids=list(SETTINGS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    recipe = V7.with_parameters(epochs=2, batch_size=512, **request.param)
    trained = fit(prepare(MARKET, recipe), recipe, seed=0, device="cpu")
    return write_bundle(
        tmp_path_factory.mktemp("bundle") / "made",
        trained,
        coin="BTC",
        dataset_digest=candles.compute_digest(MARKET),
        simulated=True,
        code_version="test",
    )


@pytest.mark.slow
def test_a_bundle_with_other_settings_is_measured_by_them(
    made: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> None:
    manifest = made.manifest
    terms = Terms.parse(manifest.document)
    baseline = v5.fit_baseline(
        tmp_path_factory.mktemp("v5") / "v5",
        MARKET,
        coin="BTC",
        simulated=True,
        code_version="t",
        terms=terms,
    )
    found = measure(made.folder, MARKET, expected_digest=made.digest, baseline=baseline.folder)
    problems = {
        name: part["problem"]
        for name, part in found.items()
        if isinstance(part, dict) and part.get("problem")
    }
    assert problems == {}
    assert found["label"]["horizon_bars"] == found["windows"]["horizon_bars"] == manifest.label.horizon
    assert found["bundle"] == {"digest_matches": True, "loads": True, "shapes_match": True, "problem": None}
    assert found["windows"]["recomputed"] and found["windows"]["rows_shared"] == 0
    assert found["reload"]["cuts_match"] and found["reload"]["weights_equal_in_graph"]
    assert found["reload"]["largest_difference"] < 1e-4
    assert found["schema"]["statistics_match"] and found["lookahead"]["columns_differing"] == []
    assert found["scaler"]["count"] == found["scaler"]["columns"] == len(manifest.schema.columns)
    assert found["single_sample"]["largest_excess"] <= 0 and found["single_sample"]["rows"] == 512
    assert found["skill"]["baseline"]["problem"] is None
    assert found["skill"]["block_bars"] == get_block_bars(manifest.label.horizon)
    assert sum(found["label"]["shares"]) == 100
    assert found["window"]["rows"] == found["accuracy"]["rows"]


@pytest.mark.slow
def test_a_baseline_of_another_label_is_not_compared_with(
    made: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if made.manifest.label == Label():
        return
    other = v5.fit_baseline(
        tmp_path_factory.mktemp("v5") / "v5", MARKET, coin="BTC", simulated=True, code_version="t"
    )
    skill = measure(made.folder, MARKET, expected_digest=made.digest, baseline=other.folder)["skill"]
    assert "it predicts terciles over 8 bars, the candidate" in skill["baseline"]["problem"]


def test_a_bot_predicts_from_the_window_and_says_how_many_bars_it_needs(made: Bundle) -> None:
    predictor = Predictor(made.folder)
    lookback = predictor.schema.lookback
    whole, window = predictor.predict(MARKET), predictor.predict(MARKET.tail(lookback))
    assert whole.logits == window.logits
    assert (whole.out_of_range is None) == predictor.schema.is_window
    with pytest.raises(NotEnoughBars, match=f"needs the last {lookback:,}"):
        predictor.predict(MARKET.tail(lookback - 1))


def test_a_window_holds_no_price_level() -> None:
    schema = find_schema("window64")
    assert schema is not None
    dearer = MARKET.with_columns(pl.col(name) * 8.0 for name in ("open", "high", "low", "close", "volume"))
    np.testing.assert_allclose(
        indicators.compute_latest(MARKET, schema), indicators.compute_latest(dearer, schema), atol=1e-6
    )


def test_a_window_without_volume_has_none() -> None:
    schema = find_schema("window16")
    assert schema is not None
    still = MARKET.with_columns(volume=pl.lit(0.0))
    assert (indicators.compute_latest(still, schema)[0, :, 4] == 0).all()
