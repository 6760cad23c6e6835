"""What a launch would take, from what earlier ones took."""

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
"""The share of a dataset's rows that an epoch passes over (mlcore.features.splits)."""

OVERHEAD_SECONDS = 3.0
"""Loading, features and the bundle's files, beside the epochs."""

UPDATE_SECONDS = 0.001
ROW_SECONDS = 0.000_008
LOGISTIC_ROWS_PER_SECOND = 5_000.0
"""One core of a small server, where nothing was measured here yet: an update of 64 rows takes about 1.5 ms."""

RECENT_EPOCHS = 500


@dataclass(frozen=True)
class Estimate:
    """Of a launch with as many epochs as it may take; stopping early makes it less."""

    seconds: float
    """Until the last coin is trained, on the workers that are alive."""
    usd: Decimal


def estimate(line: str, datasets: Sequence[Dataset], parameters: Mapping[str, Any]) -> Estimate:
    """For one run a dataset. Raises InvalidInput for a line or parameters that cannot be launched."""
    recipe = build_recipe(line, parameters)
    pace = _measured_pace(recipe) or _assumed_pace(recipe)
    runs = [OVERHEAD_SECONDS + FIT_SHARE * d.rows * (recipe.epochs or 1) / pace for d in datasets]
    alive = worker_registry.list_alive_workers("training")
    slots = sum(worker.slots for worker in alive) or 1
    rate = max((worker.rate_usd_per_hour for worker in alive), default=_rate())
    return Estimate(estimate_makespan(runs, slots), compute_cost(sum(runs), rate))


def _rate() -> Decimal:
    return Decimal(settings.WORKER_RATE_USD_PER_HOUR)


def _measured_pace(recipe: Recipe) -> float | None:
    """Rows a second of recent epochs of this line with this batch size; None when there were none."""
    recent = (
        Epoch.objects.filter(run__line=recipe.line)
        .order_by("-id")
        .values_list("rows_per_second", "run__parameters")[:RECENT_EPOCHS]
    )
    default = RECIPES[recipe.line].batch_size
    paces = [pace for pace, asked in recent if asked.get("batch_size", default) == recipe.batch_size]
    return median(paces) if paces else None


def _assumed_pace(recipe: Recipe) -> float:
    if recipe.batch_size is None:
        return LOGISTIC_ROWS_PER_SECOND
    return recipe.batch_size / (UPDATE_SECONDS + recipe.batch_size * ROW_SECONDS)
