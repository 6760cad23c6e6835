"""The estimated time and cost of a launch, from earlier runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from statistics import median
from typing import Any

from django.conf import settings

from mlcore.constants import CLASSES
from mlcore.fitting.recipes import Recipe
from training.jobs import worker_registry
from training.models import Dataset, Epoch
from training.rules import compute_cost, estimate_makespan
from training.services import lines

OVERHEAD_SECONDS = 3.0
"""Loading, features and the files of the bundle."""

UPDATE_SECONDS = 0.001
ROW_SECONDS = 0.000_008
LOGISTIC_ROWS_PER_SECOND = 5_000.0
"""Defaults without measured epochs: on one core of a small server an update of 64 rows takes about 1.5 ms."""

RECENT_EPOCHS = 500
_PACE_SETTINGS = ("batch_size", "input", "hidden_widths")


@dataclass(frozen=True)
class Estimate:
    """An upper estimate: all epochs, without early stopping."""

    seconds: float
    """Until the last coin is trained, on the workers that are alive now."""
    usd: Decimal


def estimate(line: str, datasets: Sequence[Dataset], parameters: Mapping[str, Any]) -> Estimate:
    """Estimate one run per dataset. Raises InvalidInput for a line or parameters that cannot be launched."""
    chosen = lines.find_line(line)
    recipe, usual = lines.build_recipe(chosen, parameters), lines.build_recipe(chosen, {})
    pace = _measure_pace(recipe, usual) or _assume_pace(recipe, usual)
    share = recipe.fit_percent / 100
    runs = [OVERHEAD_SECONDS + share * d.rows * (recipe.epochs or 1) / pace for d in datasets]
    alive = worker_registry.list_alive_workers("training")
    slots = sum(worker.slots for worker in alive) or 1
    rate = max(
        (worker.rate_usd_per_hour for worker in alive), default=Decimal(settings.WORKER_RATE_USD_PER_HOUR)
    )
    return Estimate(estimate_makespan(runs, slots), compute_cost(sum(runs), rate))


def _measure_pace(recipe: Recipe, usual: Recipe) -> float | None:
    """Rows per second of recent epochs of this line, batch size, input and widths; None without such epochs."""
    recent = (
        Epoch.objects.filter(run__line=recipe.line)
        .order_by("-id")
        .values_list("rows_per_second", "run__parameters")[:RECENT_EPOCHS]
    )
    defaults = {name: usual.get_default(name) for name in _PACE_SETTINGS}
    own = {name: recipe.get_default(name) for name in _PACE_SETTINGS}
    paces = [pace for pace, asked in recent if own == {n: asked.get(n, v) for n, v in defaults.items()}]
    return median(paces) if paces else None


def _assume_pace(recipe: Recipe, usual: Recipe) -> float:
    if recipe.batch_size is None:
        return LOGISTIC_ROWS_PER_SECOND
    seconds = UPDATE_SECONDS + recipe.batch_size * ROW_SECONDS
    return recipe.batch_size / (seconds * max(1.0, _count_weights(recipe) / _count_weights(usual)))


def _count_weights(recipe: Recipe) -> int:
    widths = (math.prod(recipe.input.shape), *(recipe.hidden_widths or ()), len(CLASSES))
    return sum(before * after for before, after in pairwise(widths))
