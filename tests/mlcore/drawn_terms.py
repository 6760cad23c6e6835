"""Terms that hypothesis draws (input, label, interval, split), and a market to try them on."""

import polars as pl
from hypothesis import strategies as st

from mlcore.data import simulate
from mlcore.features.indicators import Schema, find_schema
from mlcore.features.labels import Label, LabelKind
from mlcore.features.splits import Shares

BARS = 2_600
PRICES = ("open", "high", "low", "close")
MARKET = simulate.simulate("BTC", BARS, 1.0, seed=3)

horizons = st.integers(1, 96)
label_kinds = st.one_of(
    st.builds(Label, horizon=horizons),
    st.builds(Label, st.just(LabelKind.PERCENT), horizons, st.sampled_from([0.05, 0.1, 0.2])),
    st.builds(Label, st.just(LabelKind.BARRIERS), horizons, st.sampled_from([0.3, 0.7, 1.0])),
)
inputs = st.sampled_from(["relative72", "raw72", "window16", "window64", "window300"])
intervals = st.sampled_from([60, 300, 3_600, 14_400, 86_400])
splits = st.builds(Shares, st.integers(50, 70), st.integers(15, 20))


def schema(name: str) -> Schema:
    found = find_schema(name)
    assert found is not None
    return found


def every(seconds: int) -> pl.DataFrame:
    """The market with bars of another length."""
    first = int(MARKET["timestamp"][0].timestamp())
    seconds_since = [first + seconds * bar for bar in range(BARS)]
    times = pl.from_epoch(pl.Series(seconds_since), "s").dt.replace_time_zone("UTC")
    return MARKET.with_columns(timestamp=times.cast(MARKET.schema["timestamp"]))


def change_after(frame: pl.DataFrame, bar: int, *, times: int = 1) -> pl.DataFrame:
    """Every figure of every bar after `bar` is 0.3 % to 30.3 % higher, or `times` as much: lower where it is negative."""
    later = pl.int_range(pl.len()) > bar
    factor = 1 + 0.3 * times * (1 + (pl.int_range(pl.len()) * 7919) % 101) / 100
    return frame.with_columns(
        pl.when(later).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name in (*PRICES, "volume")
    )
