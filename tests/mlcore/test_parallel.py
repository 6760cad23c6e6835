"""Work shared out over cores: the same bits whatever their number, the same error, and no thread where none is needed."""

import threading

import numpy as np
import polars as pl
import pytest

from mlcore import parallel
from mlcore.bundle.format import Bundle
from mlcore.bundle.predictor import Predictor
from mlcore.data.simulate import simulate
from mlcore.errors import FeaturesRefused
from mlcore.evaluation import measure
from mlcore.features import indicators
from mlcore.features.indicators import SCHEMAS
from mlcore.features.scaler import Scaler

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def history() -> pl.DataFrame:
    """Long enough for several stretches of features."""
    return simulate("BTC", 70_000, drift=1.2, seed=2)


def on(cores: int, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(parallel, "available_cores", lambda: cores)


def test_results_keep_the_order_of_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    on(4, monkeypatch)
    assert parallel.thread_map(lambda number: number * number, range(100)) == [n * n for n in range(100)]


def test_the_error_of_the_first_failed_item_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    on(2, monkeypatch)
    later_failed = threading.Event()

    def fail(number: int) -> None:
        if number == 0:
            assert later_failed.wait(timeout=10)
        else:
            later_failed.set()
        raise ValueError(f"number {number}")

    with pytest.raises(ValueError, match="number 0"):
        parallel.thread_map(fail, [0, 1])


def test_numpys_error_state_holds_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    on(2, monkeypatch)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        parallel.thread_map(lambda zero: np.ones(1) / np.array([zero]), [0.0, 0.0])


def test_no_thread_outlives_the_call_and_one_item_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    on(4, monkeypatch)
    before = threading.active_count()
    seen = parallel.thread_map(lambda _: threading.current_thread(), ["one"])
    assert seen == [threading.current_thread()]
    meeting = threading.Barrier(2, timeout=10)
    assert sorted(parallel.thread_map(lambda _: meeting.wait(), "ab")) == [0, 1]
    assert threading.active_count() == before


def test_nested_calls_run_on_the_same_threads_and_free_threads_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(2, monkeypatch)
    before, meeting = threading.active_count(), threading.Barrier(2, timeout=10)

    def within(piece: str) -> int:
        meeting.wait()  # two of them at once, or the test fails by its timeout
        return threading.active_count() - before

    assert parallel.thread_map(lambda _: parallel.thread_map(within, "abcd"), ["one", "two"]) == [[2] * 4] * 2
    assert threading.active_count() == before


def test_a_nested_call_that_waits_runs_only_its_own_items(monkeypatch: pytest.MonkeyPatch) -> None:
    on(2, monkeypatch)
    guard, order = threading.RLock(), []

    def work(number: int) -> list[int]:
        with guard:  # as a figure is worked out that others need
            order.append(number)
            found = parallel.thread_map(lambda piece: 10 * number + piece, range(20))
            assert order[-1] == number
            return found

    wanted = [[10 * number + piece for piece in range(20)] for number in range(12)]
    assert parallel.thread_map(work, range(12)) == wanted


def test_features_are_the_same_bits_on_one_core_and_on_three(
    history: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = np.linspace(3000, history.height - 1, 200).astype(int)
    on(1, monkeypatch)
    whole, single = (
        indicators.compute_features(history, SCHEMAS["relative72"], np.float32),
        indicators.compute_latest_at(history, bars, SCHEMAS["relative72"]),
    )
    on(3, monkeypatch)
    assert (
        indicators.compute_features(history, SCHEMAS["relative72"], np.float32).tobytes() == whole.tobytes()
    )
    assert indicators.compute_latest_at(history, bars, SCHEMAS["relative72"]).tobytes() == single.tobytes()
    assert single.tobytes() == whole[bars].tobytes()


def test_a_refused_bar_is_the_same_one_whatever_the_cores(
    history: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = history.with_columns(
        volume=pl.when(pl.int_range(pl.len()) % 7000 == 6999).then(np.inf).otherwise(pl.col("volume"))
    )
    bars = np.arange(6999, broken.height, 7)
    said = []
    for cores in (1, 3):
        on(cores, monkeypatch)
        with pytest.raises(FeaturesRefused) as refused:
            indicators.compute_latest_at(broken, bars, SCHEMAS["relative72"])
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_logits_are_the_same_bits_on_one_core_and_on_three(
    v7_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).normal(size=(20_001, 72)).astype(np.float32)
    predictor = Predictor(v7_bundle.folder)
    on(1, monkeypatch)
    alone = predictor.logits(rows)
    on(3, monkeypatch)
    assert predictor.logits(rows).tobytes() == alone.tobytes()
    assert predictor.logits(rows[:0]).shape == (0, 3)


def test_a_scaler_is_the_same_bits_on_one_core_and_on_three_and_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = np.random.default_rng(0).normal(1e4, 3.0, size=(70_001, 72)).astype(np.float32)
    rows[:, 5] = 0.1
    on(1, monkeypatch)
    alone = Scaler.fit(rows)
    on(3, monkeypatch)
    found = Scaler.fit(rows)
    assert (found.mean.tobytes(), found.scale.tobytes()) == (alone.mean.tobytes(), alone.scale.tobytes())
    wide = rows.astype(np.float64)
    assert np.abs(found.mean / wide.mean(axis=0) - 1).max() < 1e-14
    assert found.scale[5] == 1.0  # a constant column, found so exactly
    assert np.abs(np.delete(found.scale, 5) / np.delete(wide.std(axis=0), 5) - 1).max() < 1e-10


def test_a_measurement_holds_the_same_figures_on_one_core_and_on_three(
    v7_bundle: Bundle, v5_bundle: Bundle, market: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for cores in (1, 3):
        on(cores, monkeypatch)
        document = measure.measure(
            v7_bundle.folder, market, expected_digest=v7_bundle.digest, baseline=v5_bundle.folder
        )
        assert document["problem"] is None
        assert document["skill"]["problem"] is None
        found.append({name: part for name, part in document.items() if name not in ("seconds", "latency")})
    assert found[0] == found[1]
