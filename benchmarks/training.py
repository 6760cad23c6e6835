"""Training three coins as the service does, against the reference loop, with the same number of updates.

    python -m benchmarks.training [--quick]

Ours: one warm process a core, a coin at a time each, every epoch reported and checkpointed. The peer: one process with
torch's default threads, one coin after the other. And beside both the limit: the matrix products of the same updates
and nothing else, in the same processes.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks import reference_loop
from benchmarks.goals import Goal, check_goals
from benchmarks.interleaved import compare
from mlcore.data.simulate import COINS, DEFAULT_DRIFT, simulate
from mlcore.fitting.fit import Prepared, fit, prepare
from mlcore.fitting.recipes import RECIPES

GOAL = 4.0
WIDTHS = (72, 256, 128, 64, 3)


@cache
def prepared_coin(coin: str, bars: int) -> Prepared:
    return prepare(simulate(coin, bars, DEFAULT_DRIFT, seed=1), RECIPES["v7_fixed"])


def train(coin: str, bars: int, epochs: int, device: str) -> int:
    """One coin by the recipe, for exactly `epochs` epochs."""
    recipe = RECIPES["v7_fixed"].with_parameters(epochs=epochs, patience=epochs)
    checkpoints: list[bytes] = []
    prepared = prepared_coin(coin, bars)
    fit(prepared, recipe, seed=0, device=device, on_epoch=lambda _, data: checkpoints.append(data))
    return len(checkpoints)


def products(coin: str, bars: int, epochs: int) -> None:
    """The matrix products of the updates that `train` makes: forward, weights' slopes, inputs' slopes."""
    torch.set_num_threads(1)
    batch = reference_loop.BATCH_SIZE
    layers = [
        (torch.rand(batch, a), torch.rand(b, a), torch.rand(batch, b), torch.empty(b, a))
        for a, b in pairwise(WIDTHS)
    ]
    for _ in range(epochs * (len(prepared_coin(coin, bars).fit[1]) // batch)):
        for x, weight, slope, weight_slope in layers:
            torch.mm(x, weight.t())
            torch.mm(slope.t(), x, out=weight_slope)
            if x is not layers[0][0]:  # the features themselves need no slope
                torch.mm(slope, weight)


def main() -> int:
    """Print the ratio; 1 when it misses the goal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer bars and rounds: does it run, not how fast"
    )
    is_quick = parser.parse_args().quick
    bars, epochs, rounds = (8_000, 1, 2) if is_quick else (16_000, 4, 7)
    cores, n = len(os.sched_getaffinity(0)), len(COINS)
    prepared = [prepared_coin(coin, bars) for coin in COINS]
    pool = ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder, pool:

        def ours() -> None:
            list(pool.map(train, COINS, [bars] * n, [epochs] * n, ["cpu"] * n))

        def limit() -> None:
            list(pool.map(products, COINS, [bars] * n, [epochs] * n))

        def peer() -> None:
            for coin in prepared:
                reference_loop.train(coin, epochs, Path(folder) / "best.pt")

        comparison = compare(ours, peer, rounds=rounds, calls=1)
        share = compare(ours, limit, rounds=rounds, calls=1).ratio
    rows = sum(len(coin.fit[1]) for coin in prepared)
    print(f"training three coins, {rows:,} rows an epoch, {epochs} epochs, {cores} cores: {comparison}")
    print(f"its matrix products alone, in the same processes, take {share:.0%} of our time; goal {GOAL:g}")
    return check_goals(Goal("training, against the reference loop", comparison.ratio, GOAL))


if __name__ == "__main__":
    sys.exit(main())
