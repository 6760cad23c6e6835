"""A diagnosis from files to verdict, with everything its page draws, against Evidently's classification preset.

    python -m benchmarks.diagnosis [--quick]

The gate window has 100,000 rows of 72 features: candles of some 667,000 bars, of which features, labels, predictions, all
sections of the measurement, the gates' verdict and the charts are made. Evidently gets the 100,000 predictions of
just that window ready in memory, and makes its report with tests as JSON. Each runs in a process of its own, ours with the
surroundings that the service gives it. Warm: all imported and run once. Cold: a fresh process each, imports included.

Evidently lives in an environment of its own under build/, made on the first run: it needs an older pandas than ours.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.environments import REPOSITORY, python_of
from benchmarks.goals import Goal, check_goals
from benchmarks.interleaved import Comparison, in_turns
from benchmarks.judged import diagnosis
from mlcore.bundle.writer import write_bundle
from mlcore.data import candles
from mlcore.data.simulate import simulate
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.inspection import Inspection
from mlcore.fitting.fit import fit, prepare
from mlcore.fitting.recipes import RECIPES
from training.jobs import sandbox

PINS = ("evidently==0.7.23", "pandas==2.3.3", "numpy==2.4.6", "scikit-learn==1.9.1")
COIN = "BTC"
WARM_GOAL, COLD_GOAL = 10.0, 8.0
GATE_ROWS = 100_000
BARS_BEFORE = 216
"""Bars that yield no row: warm-up, horizon and purges."""


@dataclass(frozen=True)
class Files:
    """What a diagnosis starts from, and the predictions that the peer is given."""

    bundle: Path
    candles: Path
    digest: str
    baseline: Path
    predictions: Path
    rows: int

    @property
    def arguments(self) -> tuple[Path, Path, str, Path]:
        return self.bundle, self.candles, self.digest, self.baseline


def write_files(folder: Path, gate_rows: int) -> Files:
    """A trained bundle of so many gate rows, and the V5 that it is compared with."""
    frame = simulate(COIN, bars=round(gate_rows / 0.15) + BARS_BEFORE, drift=1.2, seed=1)
    bundle, digest = _bundle(folder / "candidate", "v7_fixed", frame)
    baseline, _ = _bundle(folder / "baseline", "v5", frame)
    canonical = folder / "candles.canonical"
    canonical.write_bytes(candles.encode_canonical(frame))
    context = EvaluationContext(Inspection(bundle, digest), frame)
    np.savez(folder / "predictions.npz", probabilities=context.probabilities, true=context.true)
    return Files(bundle, canonical, digest, baseline, folder / "predictions.npz", len(context.true))


def _bundle(folder: Path, line: str, frame: pl.DataFrame) -> tuple[Path, str]:
    recipe = RECIPES[line]
    if line == "v7_fixed":
        recipe = recipe.with_parameters(epochs=1, batch_size=1024)
    trained = fit(prepare(frame, recipe), recipe, seed=1, device="cpu")
    written = write_bundle(
        folder,
        trained,
        coin=COIN,
        dataset_digest=candles.compute_digest(frame),
        simulated=True,
        code_version="benchmark",
    )
    return written.folder, written.digest


@contextmanager
def reports(
    command: list[str], surroundings: dict[str, str]
) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """One report in a process that has made one before, and one in a process of its own."""
    child = subprocess.Popen(
        command, cwd=REPOSITORY, env=surroundings, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None and child.stdout is not None
    asks, answers = child.stdin, child.stdout

    def warm() -> None:
        asks.write("\n")
        asks.flush()
        if not answers.readline().strip():
            raise RuntimeError(f"no report came from {command[:4]}")

    def cold() -> None:
        subprocess.run(
            [*command, "--once"], cwd=REPOSITORY, env=surroundings, check=True, stdout=subprocess.DEVNULL
        )

    try:
        yield warm, cold
    finally:
        asks.close()
        child.wait()


def main() -> int:
    """Print both ratios; 1 when one misses its goal, 2 when the diagnosis left something out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a fiftieth of the rows: does it run, not how fast"
    )
    is_quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), GATE_ROWS // 50 if is_quick else GATE_ROWS)
        if problem := incomplete(files):
            print(f"not a whole diagnosis: {problem}")
            return 2
        command = [sys.executable, "-m", "benchmarks.judged", *map(str, files.arguments)]
        peer = [str(python_of("evidently", PINS)), "-W", "ignore", "benchmarks/evidently_report.py"]
        with (
            reports(command, sandbox.sandbox_environment(Path(folder))) as ours,
            reports([*peer, str(files.predictions)], dict(os.environ)) as evidentlys,
        ):
            sides = in_turns(*ours, *evidentlys, rounds=2 if is_quick else 5)
    warm, cold, peers_warm, peers_cold = sides
    whole, fresh = Comparison(warm, peers_warm), Comparison(cold, peers_cold)
    print(f"diagnosis of {files.rows:,} × 72 rows, warm: {whole}; goal {WARM_GOAL:g}")
    print(f"from a cold process: {fresh}; goal {COLD_GOAL:g}")
    print(f"ours from a cold process against Evidently's warm run: {Comparison(cold, peers_warm)}")
    return check_goals(
        Goal("diagnosis, warm, against Evidently", whole.ratio, WARM_GOAL),
        Goal("diagnosis from a cold process, against Evidently", fresh.ratio, COLD_GOAL),
    )


def incomplete(files: Files) -> str | None:
    """What a diagnosis of these files does not hold: a section with a problem, or a gate without figures."""
    found = diagnosis(*files.arguments)
    errors = [sentence for sentence in found["sentences"].values() if "could not" in sentence]
    return "; ".join(errors) or None


if __name__ == "__main__":
    sys.exit(main())
