"""The reference of features and label says what the code computes: pandas evaluates each formula as it is written."""

import ast
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import polars as pl
import pytest
from django.conf import settings

from mlcore.data import simulate
from mlcore.features import indicators, labels, reference
from mlcore.features.indicators import FORMULAS, PRICES, SCHEMAS
from mlcore.features.reference import count_bars

MARKET = simulate.simulate("SOL", 2_600, 0.5, seed=4)
each_feature = pytest.mark.parametrize("name", FORMULAS)

FUNCTIONS: Mapping[str, Callable[..., pd.Series]] = {
    "lag": lambda x, n: x.shift(n),
    "ahead": lambda x, n: x.shift(-n),
    "mean": lambda x, n: x.rolling(n).mean(),
    "sum": lambda x, n: x.rolling(n).sum(),
    "std": lambda x, n: x.rolling(n).std(),
    "highest": lambda x, n: x.rolling(n).max(),
    "lowest": lambda x, n: x.rolling(n).min(),
    "ema": lambda x, n: x.ewm(span=n, adjust=True).mean(),
    "positive": lambda x: x.clip(lower=0),
    "abs": lambda x: x.abs(),
    "ln": np.log,
    "sqrt": np.sqrt,
}


class Names(dict[str, object]):
    """Prices, functions and features by name; a feature is computed from its formula when it is first read."""

    def __init__(self, frame: pl.DataFrame) -> None:
        super().__init__(FUNCTIONS, **{name: pd.Series(frame[name].to_numpy()) for name in PRICES})

    def __missing__(self, name: str) -> pd.Series:
        formula = FORMULAS[name]
        values = evaluate(formula.text, self)
        if formula.undefined is not None:
            is_undefined = ~np.isfinite(values) & (values.index >= formula.warm_up)
            values = values.mask(is_undefined, formula.undefined)
        self[name] = values
        return values


def evaluate(text: str, names: Names) -> pd.Series:
    result: pd.Series = eval(text, {"__builtins__": {}}, names)
    return result


@pytest.fixture(scope="module")
def written() -> Names:
    return Names(MARKET)


def compute(frame: pl.DataFrame, name: str) -> np.ndarray:
    return indicators.compute_features(frame, indicators.Schema("one", (name,)))[:, 0]


def test_every_feature_of_a_schema_is_listed_with_its_formula() -> None:
    text = reference.render_markdown()
    for name in {*SCHEMAS["raw72"].columns, *SCHEMAS["relative72"].columns}:
        assert f"| `{name}` | `{FORMULAS[name].text}` |" in text
    assert all(schema.digest in text for schema in SCHEMAS.values())


def test_the_document_is_what_the_command_writes() -> None:
    document = (settings.BASE_DIR / "docs" / "features.md").read_text()
    assert document == reference.render_markdown(), "run `make features`"


@each_feature
def test_a_formula_gives_the_values_of_the_code(name: str, written: Names) -> None:
    ours, theirs = compute(MARKET, name), np.asarray(written[name])
    warm_up = FORMULAS[name].warm_up
    assert np.isfinite(theirs[warm_up:]).all()
    assert np.nanmax(np.abs(ours - theirs)) < 1e-6 * np.nanstd(theirs)


@each_feature
def test_where_the_divisor_is_zero_the_stated_value_is_taken(name: str) -> None:
    """In a market that stands still, at a price whose sums are exact."""
    prices = {price: pl.lit(128.0) for price in ("open", "high", "low", "close")}
    still = MARKET[:600].with_columns(**prices, volume=pl.lit(0.0))
    ours, theirs = compute(still, name)[300:], np.asarray(Names(still)[name])[300:]
    assert np.allclose(ours, theirs, rtol=0, atol=1e-9)


@each_feature
def test_no_value_lies_beyond_the_stated_range(name: str) -> None:
    formula = FORMULAS[name]
    crash = MARKET.with_row_index().with_columns(
        pl.when(pl.col("index") == 2_300).then(pl.col(column) / 20).otherwise(pl.col(column)).alias(column)
        for column in PRICES
    )
    for values in (compute(MARKET, name), compute(crash, name)):
        assert np.nanmin(values) >= formula.least - 1e-9
        assert np.nanmax(values) <= formula.greatest + 1e-9


@each_feature
def test_a_feature_reads_exactly_the_stated_bars(name: str) -> None:
    bars = count_bars(FORMULAS[name].text)
    first = MARKET.height - bars
    value = compute(MARKET, name)[-1]
    assert compute(replace_bars(slice(0, first), 3.0, PRICES), name)[-1] == value
    changed = (
        replace_bars(slice(first, first + 1), factor, [price])
        for price in ("close", "high", "low", "volume")
        for factor in (1e60, 1e-60)
    )
    assert any(compute(frame, name)[-1] != value for frame in changed)
    assert bars <= indicators.LOOKBACK


def replace_bars(rows: slice, factor: float, columns: Sequence[str]) -> pl.DataFrame:
    """The market with some bars multiplied."""
    index = pl.int_range(pl.len())
    is_chosen = (index >= rows.start) & (index < rows.stop)
    return MARKET.with_columns(
        pl.when(is_chosen).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name) for name in columns
    )


@pytest.mark.parametrize(
    "text",
    ["lag(close, -1)", "ahead(close, 1)", "close.shift(-1)", "tomorrow", labels.FORMULA],
)
def test_a_formula_cannot_name_a_later_bar(text: str) -> None:
    with pytest.raises(ValueError, match="is no part of a formula"):
        count_bars(text)


def test_the_formula_of_the_label_gives_the_scaled_returns(written: Names) -> None:
    ours = labels.compute_forward_returns(MARKET["close"].to_numpy())
    assert np.allclose(ours, evaluate(labels.FORMULA, written), rtol=1e-6, atol=1e-9, equal_nan=True)


def test_the_formula_of_a_percent_label_gives_its_moves(written: Names) -> None:
    ours = labels.compute_percent_moves(MARKET["close"].to_numpy(), labels.HORIZON_BARS)
    theirs = evaluate(labels.PERCENT_FORMULA, written)
    known = np.isfinite(ours)
    assert known.sum() > len(ours) - 100
    assert np.allclose(ours[known], theirs[known], rtol=1e-9, atol=1e-9)


def test_every_function_of_the_notation_is_used_and_described() -> None:
    described = {signature.partition("(")[0] for signature in reference.FUNCTIONS}
    calls = (
        node.func.id
        for formula in FORMULAS.values()
        for node in ast.walk(ast.parse(formula.text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )
    assert set(calls) == described


def test_a_changed_formula_changes_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = dataclasses.replace(FORMULAS["rsi_14"], text="mean(close, 3)")
    monkeypatch.setitem(indicators.FORMULAS, "rsi_14", changed)
    assert "| `rsi_14` | `mean(close, 3)` | t − 2 … t | percent |" in reference.render_markdown()
