"""`make studies` in a short form: tiny studies run to their end, and the page says what was found and what was missed."""

from typing import Any

import pytest

from benchmarks.studies import page
from benchmarks.studies.jobs import Job, list_jobs


@pytest.mark.slow
def test_a_study_and_random_trials_are_compared() -> None:
    found = Job("search", 1, is_quick=True).run()
    for sampler in ("tpe", "random"):
        assert found[sampler]["trials"] == 8 and found[sampler]["best"] < 1.1
    assert found["random"]["complete"] == 8, "random trials are not pruned"


@pytest.mark.slow
def test_a_study_of_noise_is_judged_by_every_gate() -> None:
    found = Job("noise", 1, is_quick=True).run()
    assert {"accuracy", "skill"} <= set(found["refused_by"])


def row(seed: int, study: float, random: float) -> dict[str, Any]:
    figures = {"fresh": 0.9, "estimated": 0.01, "real": 0.02, "updates": 100, "trials": 40, "complete": 30}
    return {
        "part": "search", "seed": seed, "cpu_seconds": 60.0,
        "tpe": {"best": study, **figures}, "random": {"best": random, **figures},
    }  # fmt: skip


def noise(seed: int, *refused_by: str) -> dict[str, Any]:
    return {
        "part": "noise", "seed": seed, "cpu_seconds": 60.0, "best": 0.4, "fresh": 0.33, "estimated": 0.03, "real": None,
        "trials": 40, "refused_by": list(refused_by),
    }  # fmt: skip


def test_the_page_says_what_was_found_and_what_was_missed() -> None:
    rows = [row(1, 0.8, 0.9), row(2, 0.9, 0.8), {**noise(1, "accuracy", "skill"), "real": 0.05}]
    text = page.write(rows)
    assert "On 4,000 bars, a study beats as many random trials in 1 of 2 seeds" in text
    assert "released 0 of 1" in text and "*accuracy* 1" in text and "3 minutes" in text
    assert page.list_shortfalls(rows) == ["search on 4,000 bars"]
    assert page.list_shortfalls([row(1, 0.8, 0.9), noise(1)]) == ["noise"]
    assert "were not run" in page.write([row(1, 0.8, 0.9)])


def test_there_are_ten_seeds_and_twenty_markets_of_noise() -> None:
    jobs = list(list_jobs(is_quick=False))
    assert [job.part for job in jobs] == ["search"] * 10 + ["noise"] * 20 + ["long"] * 10
    assert len({(job.part, job.seed) for job in jobs}) == 40
