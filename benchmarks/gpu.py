"""Training three coins on a GPU as the service does, against the reference loop on that same GPU.

    python -m benchmarks.gpu [--quick] [--check]

With --check it first says what driver, device and torch there are, and compares three coins trained on the GPU with the
same on the CPU, and two trainings on the GPU with each other (benchmarks.gpu_check).

Ours: three processes, a coin each, side by side on the one GPU. The peer: one process, one coin after the other. Without
a GPU that torch can use it says so and ends with status 3; nothing is estimated.
"""

import argparse
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from benchmarks import gpu_check, reference_loop
from benchmarks.goals import Goal, check_goals
from benchmarks.interleaved import compare
from benchmarks.training import prepared_coin, train
from mlcore.data.simulate import COINS

GOAL = 20.0
NO_GPU = 3


def check(bars: int, epochs: int) -> bool:
    """Print driver, device, torch, and for each coin whether the GPU's figures are the CPU's within their bounds.

    Whether a GPU trains to the same bits again is printed too. Nothing requires that it does.
    """
    for line in gpu_check.describe_device():
        print(line)
    are_equal = True
    for coin in COINS:
        on_gpu, on_cpu = (gpu_check.train_on(device, coin, bars, epochs) for device in ("cuda", "cpu"))
        beyond = gpu_check.find_differences(on_gpu, on_cpu)
        print(f"{coin}: {'; '.join(beyond) or 'as on the CPU'} ({on_gpu})")
        are_equal = are_equal and not beyond
    other_bits = gpu_check.find_other_bits("cuda", COINS[0], bars, epochs)
    print("; ".join(other_bits) or "trained again and resumed: the same bits")
    return are_equal


def main() -> int:
    """Print the ratio; 1 when it misses the goal or the check fails, 3 when there is no GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer bars and rounds: does it run, not how fast"
    )
    parser.add_argument("--check", action="store_true", help="compare with the CPU's figures first")
    options = parser.parse_args()
    if options.check and (obstacle := gpu_check.find_obstacle()):
        print(f"{obstacle}.", file=sys.stderr)
        return NO_GPU
    if not torch.cuda.is_available():
        print("no GPU here that torch can use: nothing was measured", file=sys.stderr)
        return NO_GPU
    bars, epochs, rounds = (8_000, 1, 2) if options.quick else (16_000, 4, 5)
    if options.check and not check(bars, epochs):
        return 1
    n, prepared = len(COINS), [prepared_coin(coin, bars) for coin in COINS]
    pool = ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder, pool:

        def ours() -> None:
            list(pool.map(train, COINS, [bars] * n, [epochs] * n, ["cuda"] * n))

        def peer() -> None:
            for coin in prepared:
                reference_loop.train(coin, epochs, Path(folder) / "best.pt", "cuda")
            torch.cuda.synchronize()

        comparison = compare(ours, peer, rounds=rounds, calls=1)
    print(f"training three coins on {torch.cuda.get_device_name()}: {comparison}; goal {GOAL:g}")
    return check_goals(Goal("training on a GPU, against the reference loop", comparison.ratio, GOAL))


if __name__ == "__main__":
    sys.exit(main())
