"""Benchmarks are no tests. These test what a benchmark prints if it misses its goal, or cannot run."""

import gzip
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import environments, gpu_check, reproduction
from benchmarks.goals import Goal, check_goals
from benchmarks.markets import __main__ as markets
from benchmarks.markets.__main__ import Count
from benchmarks.markets.made_up import KINDS
from mlcore.fitting.fit import fit
from tests import market_candles

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


def test_an_environment_is_found_only_with_the_versions_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "REPOSITORY", tmp_path)
    assert environments.find_python("peer", ("peer==1",)) is None
    folder = tmp_path / "build" / "peer"
    folder.mkdir(parents=True)
    (folder / "pins").write_text("peer==1")
    assert environments.find_python("peer", ("peer==1",)) == folder / "bin" / "python"
    assert environments.find_python("peer", ("peer==2",)) is None


@pytest.mark.slow
def test_the_gpu_check_without_a_gpu_says_why_in_one_sentence() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--check"],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stdout) == (3, "")
    assert re.fullmatch(r"no GPU here that torch can use: [^\n]+\.\n", found.stderr)


def test_what_a_gpu_trains_is_compared_with_the_cpu() -> None:
    trained = gpu_check.train_on("cpu", "BTC", 2_000, 2)
    assert gpu_check.find_differences(trained, trained) == []
    assert 0.2 < trained.accuracy < 1 and trained.best_loss < 1.2
    worse = replace(trained, first_loss=1.02 * trained.first_loss, accuracy=math.nan, largest_weight=math.inf)
    (loss, accuracy, weight) = gpu_check.find_differences(worse, trained)
    assert loss.startswith("training loss of the first epoch: ")
    assert accuracy.startswith("validation accuracy: nan on the GPU")
    assert weight == "a weight that the GPU trained is not finite"


def test_a_training_again_and_one_resumed_are_compared_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_check.find_other_bits("cpu", "BTC", 2_000, 2) == []
    seeds = iter((0, 1, 0))
    monkeypatch.setattr(gpu_check, "fit", lambda *args, seed, **more: fit(*args, seed=next(seeds), **more))
    assert gpu_check.find_other_bits("cpu", "BTC", 2_000, 2) == [
        "trained again: other bits than the first training"
    ]


def test_rows_of_a_device_that_was_not_measured_stay_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "reproduction.md"
    row = "| v7_fixed{} | again | all | 0 | 0 of 3,560 |"
    page.write_text("\n".join(["| line |", row.format(""), row.format(reproduction.GPU), "a text"]))
    monkeypatch.setattr(reproduction, "PAGE", page)
    assert reproduction._read_rows(is_gpu=False) == [row.format("")]
    assert reproduction._read_rows(is_gpu=True) == [row.format(", on a GPU")]


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


@pytest.mark.slow
def test_the_page_of_the_candle_checks_names_series_kinds_and_missed_goals(tmp_path: Path) -> None:
    market_candles.generate(6_200).write_csv(tmp_path / "BTC.csv", datetime_format="%Y-%m-%dT%H:%M:%SZ")
    (tmp_path / "BTC.csv.gz").write_bytes(gzip.compress((tmp_path / "BTC.csv").read_bytes()))
    markets.main(["--folder", str(tmp_path), "--series", "1", "--docs", str(tmp_path)])
    page = (tmp_path / "markets.md").read_text()
    assert re.search(r"\| Binance BTC \| 6,200 \| \d+ \| 0 \| 0 \| – \|", page)
    assert all(f"| {kind.name} | " in page for kind in KINDS)
    missed = markets.list_missed_goals(
        {"x": Count(10, 1), markets.WHOLE: Count(1)}, {kind.name: [Count(4, 2)] * 3 for kind in KINDS}
    )
    assert missed[0] == "False alarms: 10.0% of the stretches; the goal is 1%."
    assert "uniform levels, 1,024 bars: 50% are found; the goal is 95%." in missed


def test_without_real_series_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert markets.main(["--folder", str(tmp_path)]) == 1
    assert "CRPBOT_CANDLES_DIR" in capsys.readouterr().err
