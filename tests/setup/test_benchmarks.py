"""Benchmarks are no tests. These test what a benchmark prints if it misses its goal, or cannot run."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.goals import Goal, check_goals

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_gpu_benchmark_without_a_gpu_measures_nothing() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 3
    assert found.stdout == ""
    assert "no GPU here that torch can use: nothing was measured" in found.stderr


def test_a_missed_goal_is_printed_with_the_difference(capsys: pytest.CaptureFixture[str]) -> None:
    met = Goal("reads", 210.0, 200.0)
    slow = Goal("99th percentile", 300.0, 250.0, "ms", is_maximum=True)
    assert check_goals(met, slow) == 1
    assert capsys.readouterr().out == (
        "goal missed: 99th percentile is 300.00 ms, at most 250 is required: 20% off\n"
    )


def test_goals_that_are_met_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_goals(Goal("reads", 200.0, 200.0), Goal("flip", 250.0, 250.0, is_maximum=True)) == 0
    assert capsys.readouterr().out == ""


def test_a_value_that_is_not_a_number_misses_its_goal() -> None:
    assert check_goals(Goal("reads", math.nan, 200.0)) == 1
