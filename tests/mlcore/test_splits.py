"""Fit, stop and gate follow one another in time, and no label reaches from one into the next."""

import pytest

from mlcore.data import simulate
from mlcore.errors import NotEnoughBars
from mlcore.features import examples, labels, splits
from mlcore.features.indicators import SCHEMAS


@pytest.mark.parametrize("rows", [1_000, 1_001, 12_345, 43_599])
def test_windows_are_70_15_and_15_percent_and_purged_at_each_border(rows: int) -> None:
    split = splits.split_rows(rows)
    assert split.fit.start == 0
    assert split.stop.start - split.fit.stop == split.gate.start - split.stop.stop == labels.HORIZON_BARS
    assert split.gate.stop == rows
    assert split.stop.start == pytest.approx(0.70 * rows, abs=1)
    assert split.gate.start == pytest.approx(0.85 * rows, abs=1)


def test_too_few_rows_are_refused_with_the_number_needed() -> None:
    with pytest.raises(NotEnoughBars, match="999 usable rows; training needs 1,000"):
        splits.split_rows(999)


@pytest.mark.parametrize("bars", [2, 28, 60, 1_200])
def test_a_dataset_too_short_to_train_on_is_refused(bars: int) -> None:
    with pytest.raises(NotEnoughBars, match="import a longer history"):
        examples.build_examples(simulate.simulate("BTC", bars, 0.0, seed=0), SCHEMAS["relative72"])


def test_no_label_of_a_window_sees_into_the_next() -> None:
    gathered = examples.build_examples(simulate.simulate("BTC", 2_000, 0.0, seed=0), SCHEMAS["relative72"])
    for window, following in (("fit", "stop"), ("stop", "gate")):
        last = gathered.bars[getattr(gathered.split, window)][-1]
        first = gathered.bars[getattr(gathered.split, following)][0]
        assert last + labels.HORIZON_BARS < first


def test_only_warm_up_and_the_last_h_bars_are_left_out() -> None:
    gathered = examples.build_examples(simulate.simulate("BTC", 2_000, 0.0, seed=0), SCHEMAS["relative72"])
    assert (gathered.bars[0], gathered.bars[-1], len(gathered.bars)) == (204, 1_991, 1_788)
