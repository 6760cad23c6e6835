"""Coins, datasets, runs, workers and the bytes of bundles, for programs."""

from training.api.artifacts import Artifacts
from training.api.bundles import Bundles
from training.api.datasets import Coins, Datasets
from training.api.runs import CancelRun, RecipeInput, RelaunchRun, RunDetail, RunEpochs, RunLog, Runs
from training.api.workers import Workers

__all__ = [
    "Artifacts",
    "Bundles",
    "CancelRun",
    "Coins",
    "Datasets",
    "RecipeInput",
    "RelaunchRun",
    "RunDetail",
    "RunEpochs",
    "RunLog",
    "Runs",
    "Workers",
]
