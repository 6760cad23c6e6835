"""One study on one simulated market, with the sampler, the pruner and the estimate of the service, and no database.

Two workers are taken in turns: two trials are chosen, each without the other's figure, then both are trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import torch

from mlcore.data.simulate import simulate
from mlcore.features.examples import build_examples
from mlcore.features.labels import assign_classes
from mlcore.fitting.checkpoint import EpochReport
from mlcore.fitting.fit import Prepared, Trained, fit, prepare
from mlcore.fitting.network import build_network
from mlcore.fitting.recipes import RECIPES, Recipe
from studies import sampling, selection_bias
from studies.rules import Objective, Sampler, TrialState
from studies.sampling import PastTrial
from studies.search_space import read_ranges

COIN = "BTC"
WORKERS = 2
RANGES: Mapping[str, Any] = {
    "batch_size": {"kind": "log", "low": 16, "high": 2048},
    "learning_rate": {"kind": "log", "low": 1e-5, "high": 1e-2},
    "patience": {"kind": "int", "low": 1, "high": 8},
    "hidden_widths": {
        "kind": "choice",
        "choices": ["16-16-8", "32-32-16", "64-32-16", "128-64-32", "256-128-64"],
    },
}
FRESH_BARS = 20_000


@dataclass(frozen=True)
class Setting:
    """What a study of this benchmark searches, and how long."""

    drift: float
    seed: int
    objective: str = Objective.LOSS.value
    sampler: str = Sampler.TPE.value
    prunes: bool = True
    bars: int = 4_000
    trials: int = 40
    epochs: int = 8

    @property
    def frame(self) -> pl.DataFrame:
        """No two seeds share their candles."""
        return simulate(COIN, self.bars, self.drift, 10_000 + self.seed)

    @property
    def recipe(self) -> Recipe:
        return RECIPES["v7_fixed"].with_parameters(epochs=self.epochs)


@dataclass
class Found:
    """The trials of one study, and what they cost."""

    trials: list[PastTrial] = field(default_factory=list)
    models: dict[int, Trained] = field(default_factory=dict)
    """Of the complete trials, by their place."""
    epochs: int = 0
    updates: int = 0
    """Of the weights: an epoch of small batches has many."""


class _Pruned(Exception):
    pass


def search(setting: Setting) -> Found:
    """Run the whole study. The same setting finds the same."""
    prepared, found = prepare(setting.frame, setting.recipe), Found()
    objective = Objective(setting.objective)
    ranges = read_ranges(setting.recipe, RANGES, objective)
    while len(found.trials) < setting.trials:
        turn = min(WORKERS, setting.trials - len(found.trials))
        before = list(found.trials)
        chosen: list[PastTrial] = []
        for _ in range(turn):
            values = sampling.suggest(
                ranges,
                before + chosen,
                objective=objective,
                sampler=Sampler(setting.sampler),
                seed=setting.seed,
            )
            chosen.append(PastTrial(values, TrialState.RUNNING))
        for trial in chosen:
            found.trials.append(_train(setting, prepared, trial, before, found))
    return found


def _train(
    setting: Setting, prepared: Prepared, trial: PastTrial, before: list[PastTrial], found: Found
) -> PastTrial:
    objective = Objective(setting.objective)
    column = objective.column.removeprefix("best_")
    recipe = setting.recipe.with_parameters(**trial.values)
    complete = [past for past in before if past.state == TrialState.COMPLETE]
    epochs: dict[int, float] = {}
    best: list[float] = []

    def look(report: EpochReport, state: bytes) -> None:
        epochs[report.number] = getattr(report, column)
        found.epochs += 1
        found.updates += -(-len(prepared.fit[1]) // (recipe.batch_size or 1))
        if report.is_best:
            best[:] = [epochs[report.number]]
        may_prune = setting.prunes and report.number < report.epochs
        if may_prune and sampling.should_prune(complete, epochs, objective=objective):
            raise _Pruned

    try:
        model = fit(prepared, recipe, seed=setting.seed, device="cpu", on_epoch=look)
    except _Pruned:
        return replace(trial, state=TrialState.PRUNED, objective=best[0], epochs=epochs)
    found.models[len(found.trials)] = model
    return replace(trial, state=TrialState.COMPLETE, objective=best[0], epochs=epochs)


def find_best(setting: Setting, found: Found) -> int:
    """The place of the best complete trial."""
    sign = 1 if Objective(setting.objective).is_minimized else -1
    return min(found.models, key=lambda place: sign * (found.trials[place].objective or 0.0))


def measure_optimism(setting: Setting, found: Found) -> dict[str, float | None]:
    """The estimated optimism of the best figure, and the real one by fresh candles of the same market.

    The real one is by how much the best trial loses on fresh candles beyond what the trials lose on average: the average
    is what the stop window itself is easier or harder than the fresh candles.
    """
    objective = Objective(setting.objective)
    names = ("losses", "weights") if objective.is_minimized else ("hits", "rows")
    prepared = next(iter(found.models.values())).prepared
    stop = _add_up(found, prepared.stop[0], prepared.stop_labels)
    bias = selection_bias.estimate(
        *([blocks[name] for blocks in stop.values()] for name in names), is_minimized=objective.is_minimized
    )
    frame = simulate(COIN, FRESH_BARS, setting.drift, 50_000 + setting.seed)
    fresh = build_examples(frame, setting.recipe.input)
    rows = prepared.scaler.transform(fresh.features)
    new = _add_up(found, rows, assign_classes(fresh.scaled_returns, prepared.cuts))

    def figure(blocks: dict[str, Any]) -> float:
        return float(sum(blocks[names[0]]) / sum(blocks[names[1]]))

    sign = 1 if objective.is_minimized else -1
    lost = {place: sign * (figure(new[place]) - figure(stop[place])) for place in stop}
    best = find_best(setting, found)
    return {
        "best": found.trials[best].objective,
        "fresh": figure(new[best]),
        "estimated": None if bias is None else bias.optimism,
        "real": lost[best] - float(np.mean(list(lost.values()))),
    }


@torch.no_grad()
def _add_up(found: Found, rows: np.ndarray, truth: np.ndarray) -> dict[int, dict[str, Any]]:
    """The sums of each complete trial over these scaled rows."""
    sums = {}
    for place, model in found.models.items():
        recipe = model.recipe
        widths = (rows.shape[1], *(recipe.hidden_widths or ()), 3)
        network = build_network(recipe.dropout or (), 0, widths)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in model.weights.items()})
        logits = network.eval()(torch.from_numpy(rows)).numpy()
        weights = model.prepared.class_weights if recipe.weighs_classes else np.ones(3, dtype=np.float32)
        sums[place] = selection_bias.add_up_rows(
            logits, truth, weights, smoothing=recipe.label_smoothing or 0.0, horizon=recipe.horizon
        )
    return sums
