"""Benchmarks are no tests; that one which cannot be run says so, is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_benchmark_on_a_gpu_says_that_there_is_none_and_measures_nothing() -> None:
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
