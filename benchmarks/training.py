"""Training three coins as the service does, against the seed's own loop, with the same number of updates.

    python -m benchmarks.training [--quick]

Ours: one warm process a core, a coin at a time each, every epoch reported and checkpointed. The peer: one process with
torch's default threads, one coin after the other.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

from benchmarks import seed_loop
from benchmarks.interleaved import compare
from mlcore.fit import Prepared, fit, prepare
from mlcore.recipes import RECIPES
from mlcore.simulate import COINS, DEFAULT_DRIFT, simulate

AIM = 2.0


@cache
def _prepared(coin: str, bars: int) -> Prepared:
    return prepare(simulate(coin, bars, DEFAULT_DRIFT, seed=1), RECIPES["v7_fixed"])


def _train(coin: str, bars: int, epochs: int) -> int:
    """One coin by the recipe, for exactly `epochs` epochs."""
    recipe = RECIPES["v7_fixed"].with_parameters(epochs=epochs, patience=epochs)
    checkpoints: list[bytes] = []
    fit(
        _prepared(coin, bars), recipe, seed=0, device="cpu", on_epoch=lambda _, data: checkpoints.append(data)
    )
    return len(checkpoints)


def main() -> int:
    """Print the ratio; 1 when it misses the aim."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer bars and rounds: does it run, not how fast"
    )
    is_quick = parser.parse_args().quick
    bars, epochs, rounds = (8_000, 1, 2) if is_quick else (16_000, 2, 5)
    cores = len(os.sched_getaffinity(0))
    prepared = [_prepared(coin, bars) for coin in COINS]
    pool = ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder, pool:

        def ours() -> None:
            list(pool.map(_train, COINS, [bars] * len(COINS), [epochs] * len(COINS)))

        def peer() -> None:
            for coin in prepared:
                seed_loop.train(coin, epochs, Path(folder) / "best.pt")

        comparison = compare(ours, peer, rounds=rounds, calls=1)
    rows = sum(len(coin.fit[1]) for coin in prepared)
    print(f"training three coins, {rows:,} rows an epoch, {epochs} epochs, {cores} cores: {comparison}")
    return 0 if comparison.ratio >= AIM else 1


if __name__ == "__main__":
    sys.exit(main())
