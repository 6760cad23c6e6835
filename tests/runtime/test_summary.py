"""What a bot counts of its predictions, and when it tells."""

import threading
from datetime import UTC, datetime, timedelta
from time import thread_time

import numpy as np
import pytest

from mlcore import confidence_bands
from mlcore.bundle.predictor import Prediction
from mlcore.evaluation import metrics
from runtime.summary import MOST_OPEN, Summaries, Window

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=61)


def prediction(sure: float = 0.6, logit: float = 1.5, out_of_range: int | None = 0) -> Prediction:
    rest = (1 - sure) / 2
    shares = {"down": rest, "neutral": rest, "up": sure}
    return Prediction("up", shares, (-0.5, -0.5, logit), NOW, out_of_range)


def counted(times: int, **of: float) -> Summaries:
    found = Summaries()
    for _ in range(times):
        found.add(7, "BTC", prediction(**of), NOW)  # type: ignore[arg-type]
    return found


def only(windows: list[Window]) -> Window:
    (window,) = windows
    return window


def test_a_window_says_what_was_predicted_and_nothing_of_the_market() -> None:
    summaries = counted(3)
    summaries.add(7, "BTC", prediction(0.97, 4.0, 2), NOW + timedelta(seconds=5))
    found = only(summaries.take(LATER)).document("desk-1")
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
        "shares": {"down": 0, "neutral": 0, "up": 4},
        "confidence": {"edges": list(confidence_bands.EDGES), "counts": counts},
        "logits": {"least": -0.5, "greatest": 4.0},
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
    assert counted(99).take(NOW) == []
    assert only(counted(100).take(NOW)).predictions == 100


def test_or_for_a_minute() -> None:
    summaries = counted(1)
    assert summaries.take(NOW + timedelta(seconds=59)) == []
    assert only(summaries.take(NOW + timedelta(seconds=60))).predictions == 1


@pytest.mark.parametrize("times", [-3600, 3600], ids=["set back", "set forward"])
def test_a_clock_that_jumps_keeps_no_window_open(times: int) -> None:
    assert counted(1).take(NOW + timedelta(seconds=times))


@pytest.mark.parametrize(
    ("looks", "tells_after"),
    [({"logit": 12_527.0}, 10), ({"logit": -11.0}, 10), ({"sure": 0.99}, 20)],
    ids=["a logit explodes", "downwards too", "certain of everything"],
)
def test_a_window_that_looks_ill_is_told_within_tens_of_predictions(
    looks: dict[str, float], tells_after: int
) -> None:
    assert counted(tells_after - 1, **looks).take(NOW) == []
    assert only(counted(tells_after, **looks).take(NOW)).predictions == tells_after


def test_answers_that_are_no_numbers_are_counted_too() -> None:
    summaries = Summaries()
    for _ in range(10):
        summaries.add_non_finite(7, "BTC", NOW)
    found = only(summaries.take(NOW)).document("desk-1")
    assert (found["predictions"], found["non_finite"], found["shares"]) == (
        10,
        10,
        {"down": 0, "neutral": 0, "up": 0},
    )
    assert found["logits"] == {"least": None, "greatest": None}


def test_a_flip_closes_the_windows_of_the_revision_before() -> None:
    summaries = counted(5)
    summaries.add(8, "BTC", prediction(), NOW)
    found = only(summaries.take(NOW))
    assert (found.revision, found.predictions) == (7, 5)


def test_coins_are_counted_apart_and_each_window_given_out_once() -> None:
    summaries = counted(2)
    summaries.add(7, "ETH", prediction(), NOW)
    assert sorted((w.coin, w.predictions) for w in summaries.take(LATER)) == [("BTC", 2), ("ETH", 1)]
    assert summaries.take(LATER) == []


def test_where_the_bundle_does_not_say_what_training_saw_nothing_is_claimed() -> None:
    assert only(counted(2, out_of_range=None).take(LATER)).out_of_range is None  # type: ignore[arg-type]


def test_windows_that_nobody_takes_are_forgotten_oldest_first() -> None:
    summaries = Summaries()
    for revision in range(1, MOST_OPEN + 11):
        for _ in range(100):
            summaries.add(revision, "BTC", prediction(), NOW)
    found = summaries.take(NOW)
    assert [found[0].revision, found[-1].revision, len(found)] == [11, MOST_OPEN + 10, MOST_OPEN]


def test_threads_lose_no_prediction() -> None:
    summaries = Summaries()

    def predict() -> None:
        for _ in range(500):
            summaries.add(7, "BTC", prediction(), NOW)

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(window.predictions for window in summaries.take(LATER)) == 2000


def test_counting_one_takes_less_than_a_tenth_of_a_millisecond() -> None:
    summaries, one = Summaries(), prediction()
    start = thread_time()  # of the processor: a busy machine's other work is not counted
    for _ in range(1000):
        summaries.add(7, "BTC", one, NOW)
    assert (thread_time() - start) / 1000 < 1e-4
