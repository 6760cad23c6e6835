"""No input of a row uses a later bar, and a label uses no bar beyond its horizon, whatever input, label and interval."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mlcore.data import simulate
from mlcore.errors import NotEnoughBars
from mlcore.features import indicators
from mlcore.features.examples import build_examples
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


def change_after(frame: pl.DataFrame, bar: int) -> pl.DataFrame:
    """Every figure of every bar after `bar` is another one."""
    later = pl.int_range(pl.len()) > bar
    factor = 1 + 0.3 * ((pl.int_range(pl.len()) * 7919) % 101) / 100
    return frame.with_columns(
        pl.when(later).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name in (*PRICES, "volume")
    )


@settings(max_examples=40, deadline=None)
@given(label=label_kinds, name=inputs, seconds=intervals, bar=st.integers(700, BARS - 200))
def test_later_bars_change_no_input_and_no_label_whose_horizon_has_ended(
    label: Label, name: str, seconds: int, bar: int
) -> None:
    frame = every(seconds)
    changed = change_after(frame, bar)
    before, after = (build_examples(each, schema(name), label) for each in (frame, changed))
    shared = np.intersect1d(before.bars, after.bars)
    assert np.isin(np.arange(600, bar - label.horizon), shared).all()
    known = shared[shared <= bar]
    one, other = (np.asarray(each.features[np.searchsorted(each.bars, known)]) for each in (before, after))
    assert one.tobytes() == other.tobytes()
    settled = shared[shared <= bar - label.horizon]
    one, other = (each.scaled_returns[np.searchsorted(each.bars, settled)] for each in (before, after))
    assert one.tobytes() == other.tobytes()
    open_rows = shared[(shared > bar - label.horizon) & (shared <= bar)]
    if len(open_rows):
        one, other = (each.scaled_returns[np.searchsorted(each.bars, open_rows)] for each in (before, after))
        assert (one != other).any(), "the change reaches labels whose horizon had not ended"


@settings(max_examples=40, deadline=None)
@given(label=label_kinds, name=inputs, shares=splits)
def test_windows_share_no_bar_through_their_labels(label: Label, name: str, shares: Shares) -> None:
    examples = build_examples(MARKET, schema(name), label, shares)
    split = examples.split
    for window, following in ((split.fit, split.stop), (split.stop, split.gate)):
        assert window.start < window.stop <= following.start
        assert examples.bars[window][-1] + label.horizon < examples.bars[following][0]
    assert split.gate.stop == len(examples.bars)
    assert len(examples.bars[split.gate]) == pytest.approx(
        shares.gate_percent / 100 * len(examples.bars), abs=1
    )


@settings(max_examples=25, deadline=None)
@given(label=label_kinds, name=inputs)
def test_cuts_use_no_bar_after_the_fit_window_and_its_labels(label: Label, name: str) -> None:
    examples = build_examples(MARKET, schema(name), label)
    last = int(examples.bars[examples.split.fit][-1]) + label.horizon
    changed = build_examples(change_after(MARKET, last), schema(name), label)
    assert changed.split == examples.split
    try:
        cuts = label.compute_cuts(examples.scaled_returns[examples.split.fit])
    except NotEnoughBars:
        reject()  # a percentage so small that no bar of the fit window is neutral
    assert label.compute_cuts(changed.scaled_returns[changed.split.fit]) == cuts


@settings(max_examples=30, deadline=None)
@given(name=inputs, bars=st.lists(st.integers(2_047, BARS - 1), min_size=1, max_size=5, unique=True))
def test_a_row_computed_alone_has_the_bits_of_the_batch(name: str, bars: list[int]) -> None:
    examples = build_examples(MARKET, schema(name), Label(horizon=1))
    known = np.array([bar for bar in sorted(bars) if bar in examples.bars])
    if not len(known):
        return
    batch = np.asarray(examples.features[np.searchsorted(examples.bars, known)])
    single = indicators.compute_latest_at(MARKET, known, schema(name))
    from_the_end = np.concatenate(
        [indicators.compute_latest(MARKET[: bar + 1], schema(name)) for bar in known.tolist()]
    )
    assert batch.tobytes() == single.tobytes() == from_the_end.tobytes()


def test_only_a_bar_within_the_horizon_reaches_a_label() -> None:
    for label in (Label(), Label(LabelKind.PERCENT, 8, 0.1), Label(LabelKind.BARRIERS, 8, 5.0)):
        one = label.compute_outcomes(MARKET)[1_000]
        last_covered = label.compute_outcomes(change_after(MARKET, 1_007))[1_000]
        beyond = label.compute_outcomes(change_after(MARKET, 1_008))[1_000]
        assert one == beyond
        assert one != last_covered
