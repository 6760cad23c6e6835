"""No input of a row uses a later bar, and a label uses no bar beyond its horizon, whatever input, label and interval."""

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mlcore.errors import NotEnoughBars
from mlcore.features import indicators
from mlcore.features.examples import build_examples
from mlcore.features.labels import Label, LabelKind
from mlcore.features.splits import Shares
from tests.mlcore.drawn_terms import (
    BARS,
    MARKET,
    change_after,
    every,
    inputs,
    intervals,
    label_kinds,
    schema,
    splits,
)


@settings(max_examples=40, deadline=None)
@given(label=label_kinds, name=inputs, seconds=intervals, bar=st.integers(700, BARS - 200))
def test_later_bars_change_no_input_and_no_label_whose_horizon_has_ended(
    label: Label, name: str, seconds: int, bar: int
) -> None:
    frame = every(seconds)
    higher, lower = (change_after(frame, bar, times=times) for times in (5, -3))
    before, after = (build_examples(each, schema(name), label) for each in (frame, higher))
    shared = np.intersect1d(before.bars, after.bars)
    assert np.isin(np.arange(600, bar - label.horizon), shared).all()
    known = shared[shared <= bar]
    one, other = (np.asarray(each.features[np.searchsorted(each.bars, known)]) for each in (before, after))
    assert one.tobytes() == other.tobytes()
    settled = shared[shared <= bar - label.horizon]
    one, other = (each.scaled_returns[np.searchsorted(each.bars, settled)] for each in (before, after))
    assert one.tobytes() == other.tobytes()
    # The label of `bar` itself has not ended. A barrier may be reached as before by a rise or by a fall, not by both.
    outcomes = [label.compute_outcomes(each)[bar] for each in (frame, higher, lower)]
    assert len(set(outcomes)) > 1, "the change reaches labels whose horizon had not ended"


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
