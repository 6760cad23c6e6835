"""72 features under two schemas: as pandas computes them, from the past alone, and the same for the bot as in training."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcore.data import simulate
from mlcore.data.validation import validate_candles
from mlcore.errors import FeaturesRefused, NotEnoughBars
from mlcore.features import indicators
from mlcore.features.indicators import SCHEMAS
from tests.mlcore import pandas_features

PANDAS = {"raw72": pandas_features.raw, "relative72": pandas_features.relative}
both_schemas = pytest.mark.parametrize("name", SCHEMAS)

MARKET = simulate.simulate("SOL", 3_000, 0.5, seed=4)


def in_scaled_units(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.nanmax(np.abs(ours - theirs), axis=0) / np.nanstd(theirs, axis=0)


def agrees(frame: pl.DataFrame, name: str) -> None:
    theirs = PANDAS[name](frame)
    ours = indicators.compute_features(frame, SCHEMAS[name])
    assert np.array_equal(np.isnan(ours), np.isnan(theirs.to_numpy()))
    assert in_scaled_units(ours, theirs.to_numpy()).max() < 1e-6


@both_schemas
def test_a_second_computation_by_pandas_agrees(name: str) -> None:
    agrees(MARKET, name)


@pytest.mark.slow
@pytest.mark.candles
@both_schemas
@pytest.mark.parametrize("coin", ["BTC", "ETH", "SOL"])
def test_a_second_computation_by_pandas_agrees_on_real_candles(
    name: str, coin: str, real_candles: Callable[[str], pl.DataFrame]
) -> None:
    agrees(real_candles(coin), name)


def test_the_raw_columns_are_those_of_the_definition_in_its_order() -> None:
    frame: pd.DataFrame = pandas_features.raw(MARKET[:300])
    assert tuple(frame.columns) == SCHEMAS["raw72"].columns


@both_schemas
def test_a_schema_names_72_different_features(name: str) -> None:
    assert len(set(SCHEMAS[name].columns)) == len(SCHEMAS[name].columns) == 72


def test_the_digests_of_the_schemas_never_change() -> None:
    """Bundles in the field carry them: a changed feature needs a new schema."""
    assert (
        SCHEMAS["raw72"].digest == "sha256:7edb720dc49c2b40a9f7581e40078b12c36661a9225b276deb783322015bc7ca"
    )
    assert (
        SCHEMAS["relative72"].digest
        == "sha256:a397edbdcf5dabeb7f7028bc4501be3ff6715f2da8fc30e1693c017a9ef7670d"
    )


@both_schemas
def test_another_order_of_columns_has_another_digest_and_gives_that_order(name: str) -> None:
    schema = SCHEMAS[name]
    turned = indicators.Schema(name, schema.columns[::-1])
    assert turned.digest != schema.digest
    assert np.array_equal(
        indicators.compute_features(MARKET, turned),
        indicators.compute_features(MARKET, schema)[:, ::-1],
        equal_nan=True,
    )


@both_schemas
@settings(max_examples=25, deadline=None)
@given(bars=st.integers(1, len(MARKET)))
def test_features_at_a_bar_do_not_change_when_later_bars_are_removed(name: str, bars: int) -> None:
    whole = indicators.compute_features(MARKET, SCHEMAS[name])[:bars]
    assert np.array_equal(indicators.compute_features(MARKET[:bars], SCHEMAS[name]), whole, equal_nan=True)


@both_schemas
@settings(max_examples=25, deadline=None)
@given(bar=st.integers(indicators.LOOKBACK - 1, len(MARKET) - 1))
def test_the_bot_sees_bit_for_bit_what_training_saw(name: str, bar: int) -> None:
    window = MARKET[bar - indicators.LOOKBACK + 1 : bar + 1]
    trained_on = indicators.compute_features(MARKET, SCHEMAS[name])[bar : bar + 1].astype(np.float32)
    assert np.array_equal(indicators.compute_latest(window, SCHEMAS[name]), trained_on)


@both_schemas
def test_many_bars_at_once_have_the_bits_that_each_has_alone(name: str) -> None:
    bars = np.array([2047, 2048, 2500, *range(2_960, 3_000)])
    alone = [indicators.compute_latest(MARKET[: bar + 1], SCHEMAS[name]) for bar in bars.tolist()]
    assert np.array_equal(indicators.compute_latest_at(MARKET, bars, SCHEMAS[name]), np.concatenate(alone))


def test_among_many_bars_one_with_too_few_before_it_is_refused() -> None:
    with pytest.raises(NotEnoughBars, match="bar 2,046 has fewer than 2,048 bars"):
        indicators.compute_latest_at(MARKET, np.array([2046, 2500]), SCHEMAS["relative72"])


@both_schemas
def test_rows_are_the_same_features_in_single_precision(name: str) -> None:
    market = simulate.simulate("BTC", 33_000, 0.0, seed=9)  # longer than what is computed at once
    expected = indicators.compute_features(market, SCHEMAS[name]).astype(np.float32)
    assert np.array_equal(
        indicators.compute_features(market, SCHEMAS[name], np.float32), expected, equal_nan=True
    )


@both_schemas
def test_a_long_history_gives_the_same_features_as_a_short_one(name: str) -> None:
    """A history longer than the stretch that is computed at once."""
    long = simulate.simulate("BTC", 40_000, 0.0, seed=9)
    last = indicators.compute_features(long, SCHEMAS[name])[-500:]
    assert np.array_equal(
        last,
        indicators.compute_features(long[-(500 + indicators.LOOKBACK) :], SCHEMAS[name])[-500:],
    )


@both_schemas
def test_ratios_do_not_depend_on_the_price_of_a_coin(name: str) -> None:
    prices = ("open", "high", "low", "close")
    dearer = MARKET.with_columns(pl.col(column) * 1024 for column in prices)
    changed = (
        in_scaled_units(
            indicators.compute_features(dearer, SCHEMAS[name]),
            indicators.compute_features(MARKET, SCHEMAS[name]),
        )
        > 1e-9
    )
    in_price_units = {"raw72": 25, "relative72": 0}
    assert changed.sum() == in_price_units[name]


def test_one_bar_too_few_is_refused() -> None:
    with pytest.raises(NotEnoughBars, match="2,047 bars; a prediction needs the last 2,048"):
        indicators.compute_latest(MARKET[:2047], SCHEMAS["relative72"])


def flat(bars: int = indicators.LOOKBACK, volume: float = 0.0) -> pl.DataFrame:
    """A market that stands still."""
    price = {name: pl.Series([123.45] * bars) for name in ("open", "high", "low", "close")}
    times = MARKET["timestamp"][:bars]
    return validate_candles(pl.DataFrame({"timestamp": times, **price, "volume": [volume] * bars}))


@both_schemas
@pytest.mark.parametrize("volume", [0.0, 5.0])
def test_a_market_that_stands_still_has_features_all_the_same(name: str, volume: float) -> None:
    row = dict(
        zip(
            SCHEMAS[name].columns,
            indicators.compute_latest(flat(volume=volume), SCHEMAS[name])[0].tolist(),
            strict=True,
        )
    )
    assert [row[column] for column in ("rsi_14", "rsi_30", "stoch_k_14", "stoch_d_21")] == [50] * 4
    assert [row[column] for column in ("bb_position_20", "price_channel_position_50")] == [0.5] * 2
    assert (row["williams_r_14"], row["volatility_50"], row["returns"]) == (-50, 0, 0)
    assert row["volume_ratio"] == (1 if volume else 0)


@both_schemas
def test_a_bar_without_volume_costs_no_row(name: str) -> None:
    quiet = MARKET.with_columns(
        pl.when(pl.int_range(pl.len()) == 2_500).then(0.0).otherwise("volume").alias("volume")
    )
    assert np.isfinite(indicators.compute_features(quiet, SCHEMAS[name])[2_400:]).all()


def test_a_feature_beyond_float32_is_refused_and_named() -> None:
    huge = flat().with_columns(pl.col("open", "high", "low", "close") * 1e300)
    with pytest.raises(FeaturesRefused, match="sma_5 of the last bar is inf"):
        indicators.compute_latest(huge, SCHEMAS["raw72"])
