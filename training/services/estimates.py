"""The estimated time and cost of a launch, from earlier runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Any

from django.conf import settings

from mlcore.fitting.recipes import RECIPES, Recipe
from training.jobs import worker_registry
from training.models import Dataset, Epoch
from training.rules import compute_cost, estimate_makespan
from training.services.runs import build_recipe

FIT_SHARE = 0.70
"""The share of a dataset's rows in an epoch (mlcore.features.splits)."""

OVERHEAD_SECONDS = 3.0
"""Loading, features and the files of the bundle."""

UPDATE_SECONDS = 0.001
ROW_SECONDS = 0.000_008
LOGISTIC_ROWS_PER_SECOND = 5_000.0
"""Defaults without measured epochs: on one core of a small server an update of 64 rows takes about 1.5 ms."""

RECENT_EPOCHS = 500


@dataclass(frozen=True)
class Estimate:
    """An upper estimate: all epochs, without early stopping."""

    seconds: float
    """Until the last coin is trained, on the workers that are alive now."""
    usd: Decimal


def estimate(line: str, datasets: Sequence[Dataset], parameters: Mapping[str, Any]) -> Estimate:
    """Estimate one run per dataset. Raises InvalidInput for a line or parameters that cannot be launched."""
    recipe = build_recipe(line, parameters)
    pace = _measure_pace(recipe) or _assume_pace(recipe)
    runs = [OVERHEAD_SECONDS + FIT_SHARE * d.rows * (recipe.epochs or 1) / pace for d in datasets]
    alive = worker_registry.list_alive_workers("training")
    slots = sum(worker.slots for worker in alive) or 1
    rate = max(
        (worker.rate_usd_per_hour for worker in alive), default=Decimal(settings.WORKER_RATE_USD_PER_HOUR)
    )
    return Estimate(estimate_makespan(runs, slots), compute_cost(sum(runs), rate))


def _measure_pace(recipe: Recipe) -> float | None:
    """Rows per second of recent epochs of this line and batch size; None without such epochs."""
    recent = (
        Epoch.objects.filter(run__line=recipe.line)
        .order_by("-id")
        .values_list("rows_per_second", "run__parameters")[:RECENT_EPOCHS]
    )
    default = RECIPES[recipe.line].batch_size
    paces = [pace for pace, asked in recent if asked.get("batch_size", default) == recipe.batch_size]
    return median(paces) if paces else None


def _assume_pace(recipe: Recipe) -> float:
    if recipe.batch_size is None:
        return LOGISTIC_ROWS_PER_SECOND
    return recipe.batch_size / (UPDATE_SECONDS + recipe.batch_size * ROW_SECONDS)
