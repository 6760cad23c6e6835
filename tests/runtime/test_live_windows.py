"""What a bot counts of its predictions, and when it reports it."""

import threading
from datetime import UTC, datetime, timedelta
from time import thread_time

import numpy as np
import pytest

from crpbot_runtime.live_windows import MAX_WINDOWS, LiveWindow, LiveWindows
from mlcore import confidence_bands
from mlcore.bundle.predictor import Prediction
from mlcore.evaluation import metrics

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=61)


def make_prediction(probability: float = 0.6, logit: float = 1.5, out_of_range: int | None = 0) -> Prediction:
    rest = (1 - probability) / 2
    shares = {"down": rest, "neutral": rest, "up": probability}
    return Prediction("up", shares, (-0.5, -0.5, logit), NOW, out_of_range)


def count_predictions(times: int, **options: float) -> LiveWindows:
    windows = LiveWindows()
    for _ in range(times):
        windows.add(7, "BTC", make_prediction(**options), NOW)  # type: ignore[arg-type]
    return windows


def get_only(windows: list[LiveWindow]) -> LiveWindow:
    (window,) = windows
    return window


def test_a_window_counts_predictions_and_contains_no_market_data() -> None:
    windows = count_predictions(3)
    windows.add(7, "BTC", make_prediction(0.97, 4.0, 2), NOW + timedelta(seconds=5))
    found = get_only(windows.pop_closed(LATER)).to_document("desk-1")
    counts = found["confidence"]["counts"]
    assert (
        counts[confidence_bands.find_band(0.6)],
        counts[confidence_bands.find_band(0.97)],
        sum(counts),
    ) == (3, 1, 4)
    assert found == {
        "instance": "desk-1",
        "revision": 7,
        "coin": "BTC",
        "first_at": "2026-11-22T12:00:00+00:00",
        "last_at": "2026-11-22T12:00:05+00:00",
        "predictions": 4,
        "non_finite": 0,
        "class_counts": {"down": 0, "neutral": 0, "up": 4},
        "confidence": {"edges": list(confidence_bands.EDGES), "counts": counts},
        "logits": {"min": -0.5, "max": 4.0},
        "out_of_range": 2,
    }


def test_it_counts_into_the_bands_of_the_gates_own_histogram() -> None:
    sure = np.random.default_rng(0).uniform(1 / 3, 1, 500)
    rest = np.stack([sure, (1 - sure) / 2, (1 - sure) / 2], axis=1)
    measured = metrics.compute_confidence(rest)["histogram"]
    assert measured["edges"] == list(confidence_bands.EDGES)
    assert (
        measured["counts"]
        == np.bincount([confidence_bands.find_band(p) for p in sure], minlength=35).tolist()
    )


@pytest.mark.parametrize(
    ("probability", "lower_edge"), [(0.9, 0.9), (0.899999, 0.88), (1.0, 0.98), (0.1, 0.3)]
)
def test_an_edge_belongs_to_the_band_above_it(probability: float, lower_edge: float) -> None:
    assert confidence_bands.EDGES[confidence_bands.find_band(probability)] == lower_edge


def test_a_healthy_window_is_open_for_a_hundred_predictions() -> None:
    assert count_predictions(99).pop_closed(NOW) == []
    assert get_only(count_predictions(100).pop_closed(NOW)).predictions == 100


def test_a_window_is_open_for_a_minute_at_most() -> None:
    windows = count_predictions(1)
    assert windows.pop_closed(NOW + timedelta(seconds=59)) == []
    assert get_only(windows.pop_closed(NOW + timedelta(seconds=60))).predictions == 1


@pytest.mark.parametrize("times", [-3600, 3600], ids=["set back", "set forward"])
def test_a_clock_that_jumps_keeps_no_window_open(times: int) -> None:
    assert count_predictions(1).pop_closed(NOW + timedelta(seconds=times))


@pytest.mark.parametrize(
    ("options", "closes_after"),
    [({"logit": 12_527.0}, 10), ({"logit": -11.0}, 10), ({"probability": 0.99}, 20)],
    ids=["a logit explodes", "downwards too", "certain of everything"],
)
def test_a_suspect_window_closes_within_tens_of_predictions(
    options: dict[str, float], closes_after: int
) -> None:
    assert count_predictions(closes_after - 1, **options).pop_closed(NOW) == []
    assert get_only(count_predictions(closes_after, **options).pop_closed(NOW)).predictions == closes_after


def test_answers_that_are_not_finite_are_counted_too() -> None:
    windows = LiveWindows()
    for _ in range(10):
        windows.add(7, "BTC", None, NOW)
    found = get_only(windows.pop_closed(NOW)).to_document("desk-1")
    assert (found["predictions"], found["non_finite"], found["class_counts"]) == (
        10,
        10,
        {"down": 0, "neutral": 0, "up": 0},
    )
    assert found["logits"] == {"min": None, "max": None}


def test_a_new_revision_closes_the_windows_of_the_previous_one() -> None:
    windows = count_predictions(5)
    windows.add(8, "BTC", make_prediction(), NOW)
    found = get_only(windows.pop_closed(NOW))
    assert (found.revision, found.predictions) == (7, 5)


def test_coins_are_counted_apart_and_each_window_given_out_once() -> None:
    windows = count_predictions(2)
    windows.add(7, "ETH", make_prediction(), NOW)
    assert sorted((w.coin, w.predictions) for w in windows.pop_closed(LATER)) == [("BTC", 2), ("ETH", 1)]
    assert windows.pop_closed(LATER) == []


def test_out_of_range_is_null_for_a_bundle_without_training_ranges() -> None:
    assert get_only(count_predictions(2, out_of_range=None).pop_closed(LATER)).out_of_range is None  # type: ignore[arg-type]


def test_windows_that_are_not_taken_are_dropped_oldest_first() -> None:
    windows = LiveWindows()
    for revision in range(1, MAX_WINDOWS + 11):
        for _ in range(100):
            windows.add(revision, "BTC", make_prediction(), NOW)
    found = windows.pop_closed(NOW)
    assert [found[0].revision, found[-1].revision, len(found)] == [11, MAX_WINDOWS + 10, MAX_WINDOWS]


def test_threads_lose_no_prediction() -> None:
    windows = LiveWindows()

    def predict() -> None:
        for _ in range(500):
            windows.add(7, "BTC", make_prediction(), NOW)

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(window.predictions for window in windows.pop_closed(LATER)) == 2000


def test_counting_one_takes_less_than_a_tenth_of_a_millisecond() -> None:
    windows, prediction = LiveWindows(), make_prediction()
    start = thread_time()  # of the processor: a busy machine's other work is not counted
    for _ in range(1000):
        windows.add(7, "BTC", prediction, NOW)
    assert (thread_time() - start) / 1000 < 1e-4
