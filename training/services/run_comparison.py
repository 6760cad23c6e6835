"""Several runs side by side: the settings in which they differ, and their figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import InvalidInput, NotFound
from training.models import TrainingRun
from training.rules import MAX_COMPARED, MIN_COMPARED
from training.services import lines


@dataclass(frozen=True)
class Difference:
    """A setting in which compared runs differ."""

    name: str
    values: list[Any]
    """Of each run in their order; None for a run without this setting."""

    @property
    def label(self) -> str:
        return self.name.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Comparison:
    runs: list[TrainingRun]
    """In the order in which they were asked for, each with its epochs."""
    differences: list[Difference]

    @property
    def is_of_one_stop_window(self) -> bool:
        """Whether their figures are of the same rows and labels, so that they can be compared."""
        window = ("dataset", "label", "horizon", "cut", "fit_percent", "stop_percent", "input")
        return not any(difference.name in window for difference in self.differences)

    @property
    def is_of_one_loss(self) -> bool:
        """Whether their losses are of one formula as well."""
        own = ("label_smoothing", "class_weights")
        differs = any(difference.name in own for difference in self.differences)
        return self.is_of_one_stop_window and not differs


def compare(keys: Sequence[int]) -> Comparison:
    """Raises InvalidInput for fewer than 2 or more than 8 runs, NotFound for an unknown one."""
    if not MIN_COMPARED <= len(keys) <= MAX_COMPARED:
        raise InvalidInput(
            f"Choose {MIN_COMPARED} to {MAX_COMPARED} runs to compare; {len(keys)} were named.", field="runs"
        )
    rows = TrainingRun.objects.select_related("coin", "dataset").prefetch_related("epoch_rows", "tags")
    found = {run.pk: run for run in rows.filter(pk__in=keys)}
    if missing := [key for key in keys if key not in found]:
        raise NotFound(f"There is no run {missing[0]}.")
    runs = [found[key] for key in keys]
    return Comparison(runs, find_differences([_describe(run) for run in runs]))


def find_differences(described: Sequence[dict[str, Any]]) -> list[Difference]:
    """The entries that are not the same in all documents, in the order in which they first occur."""
    names = dict.fromkeys(name for document in described for name in document)
    rows = [Difference(name, [document.get(name) for document in described]) for name in names]
    return [row for row in rows if any(value != row.values[0] for value in row.values)]


def _describe(run: TrainingRun) -> dict[str, Any]:
    facts = {
        "coin": run.coin.symbol,
        "dataset": run.dataset_id,
        "line": run.line,
        "recipe": run.recipe,
        "package": run.package or None,
        "seed": run.seed,
    }
    return {**facts, **lines.list_settings(run.line, run.parameters)}
