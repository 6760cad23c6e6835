"""Whether this machine's GPU trains as the CPU does: driver, device, torch, and three coins compared figure by figure.

On a GPU sums are added in another order, so that two trainings part after some updates. The bounds are what the gates allow
between two seeds on the CPU, and less than any gate measures.
"""

import math
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.training import prepared_coin
from mlcore.fitting.fit import fit
from mlcore.fitting.recipes import RECIPES

FIRST_LOSS_BOUND = 0.01
"""Relative, of the training loss of the first epoch: both begin with the same weights and the same batches."""
BEST_LOSS_BOUND = 0.05
"""Relative, of the best validation loss."""
ACCURACY_BOUND = 0.03
"""Of the validation accuracy at the end."""
DRIVER_SECONDS = 30


@dataclass(frozen=True)
class Trained:
    """What a training came to."""

    first_loss: float
    best_loss: float
    accuracy: float
    largest_weight: float


def find_obstacle() -> str | None:
    """Why torch cannot use a GPU here, in one sentence; None where it can."""
    if torch.version.cuda is None:
        return f"no GPU here that torch can use: this torch ({torch.__version__}) is a build without CUDA"
    if shutil.which("nvidia-smi") is None:
        return "no GPU here that torch can use: there is no NVIDIA driver (nvidia-smi is not installed)"
    if not torch.cuda.is_available():
        return f"no GPU here that torch can use: its CUDA {torch.version.cuda} finds no device, or the driver is older"
    return None


def describe_device() -> Iterator[str]:
    """Driver, device and torch, a line each."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, timeout=DRIVER_SECONDS, check=True)
    yield f"driver: {driver.stdout.splitlines()[0]}"
    properties = torch.cuda.get_device_properties(0)
    capability = f"{properties.major}.{properties.minor}"
    yield f"device: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, compute capability {capability}"
    yield f"torch:  {torch.__version__}, CUDA {torch.version.cuda}"


def train_on(device: str, coin: str, bars: int, epochs: int) -> Trained:
    """One coin by the recipe, for exactly `epochs` epochs."""
    recipe = RECIPES["v7_fixed"].with_parameters(epochs=epochs, patience=epochs)
    trained = fit(prepared_coin(coin, bars), recipe, seed=0, device=device)
    return Trained(
        first_loss=trained.epochs[0].train_loss,
        best_loss=min(report.validation_loss for report in trained.epochs),
        accuracy=trained.epochs[-1].validation_accuracy,
        largest_weight=float(max(np.abs(tensor).max() for tensor in trained.weights.values())),
    )


def find_other_bits(device: str, coin: str, bars: int, epochs: int) -> list[str]:
    """Which further trainings on the device came to other weights than the first: the same again, and one resumed."""
    recipe = RECIPES["v7_fixed"].with_parameters(epochs=epochs, patience=epochs)
    prepared, checkpoints = prepared_coin(coin, bars), []
    first = fit(
        prepared, recipe, seed=0, device=device, on_epoch=lambda _, data: checkpoints.append(data)
    ).weights
    again = fit(prepared, recipe, seed=0, device=device).weights
    resumed = fit(prepared, recipe, seed=0, device=device, resume_from=checkpoints[0]).weights
    return [
        f"{name}: other bits than the first training"
        for name, weights in (("trained again", again), ("resumed after an epoch", resumed))
        if any(not np.array_equal(weights[key], first[key]) for key in first)
    ]


def find_differences(on_gpu: Trained, on_cpu: Trained) -> list[str]:
    """Each figure that lies beyond its bound; empty where the GPU trains as the CPU does."""
    compared: Mapping[str, tuple[float, float, float]] = {
        "training loss of the first epoch": (
            on_gpu.first_loss,
            on_cpu.first_loss,
            FIRST_LOSS_BOUND * on_cpu.first_loss,
        ),
        "best validation loss": (on_gpu.best_loss, on_cpu.best_loss, BEST_LOSS_BOUND * on_cpu.best_loss),
        "validation accuracy": (on_gpu.accuracy, on_cpu.accuracy, ACCURACY_BOUND),
    }
    beyond = [
        f"{name}: {gpu:.4f} on the GPU, {cpu:.4f} on the CPU, and at most {bound:.4f} between them"
        for name, (gpu, cpu, bound) in compared.items()
        if not abs(gpu - cpu) <= bound
    ]
    if not math.isfinite(on_gpu.largest_weight):
        beyond.append("a weight that the GPU trained is not finite")
    return beyond
