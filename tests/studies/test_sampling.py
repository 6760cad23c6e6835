"""The sampler and the pruner on past trials, and the estimate of the selection bias: pure, and the same each time."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mlcore.fitting.recipes import RECIPES
from studies import sampling, selection_bias
from studies.rules import Objective, Sampler, TrialState
from studies.sampling import PastTrial
from studies.search_space import Value, parse_range, read_ranges

RANGES = read_ranges(
    RECIPES["v7_fixed"],
    {
        "learning_rate": parse_range("log 1e-5 1e-2"),
        "batch_size": parse_range("log 16 1024"),
        "epochs": parse_range("int 1 50"),
        "hidden_widths": parse_range("choice 32-32-16 64-32-16"),
    },
    Objective.LOSS,
)


def suggest(
    past: list[PastTrial],
    *,
    objective: Objective = Objective.LOSS,
    sampler: Sampler = Sampler.TPE,
    seed: int = 1,
) -> dict[str, Value]:
    return sampling.suggest(RANGES, past, objective=objective, sampler=sampler, seed=seed)


def search(count: int, loss: Callable[[dict[str, Value]], float], **changes: Any) -> list[float]:
    past: list[PastTrial] = []
    for _ in range(count):
        values = suggest(past, **changes)
        past.append(PastTrial(values, TrialState.COMPLETE, objective=loss(values)))
    return [trial.objective or 0.0 for trial in past]


def distance(values: dict[str, Value]) -> float:
    """How far the learning rate is from 3e-4 and the batch size from 64, in orders of magnitude."""
    rate, size = math.log10(float(values["learning_rate"])), math.log10(float(values["batch_size"]))
    return (rate + 3.52) ** 2 + (size - 1.8) ** 2


class TestTheSampler:
    def test_keeps_to_the_ranges_and_types(self) -> None:
        for sampler in Sampler:
            for seed in range(8):
                values = suggest([], sampler=sampler, seed=seed)
                assert 1e-5 <= float(values["learning_rate"]) <= 1e-2
                assert isinstance(values["batch_size"], int) and 16 <= values["batch_size"] <= 1024
                assert isinstance(values["epochs"], int)
                assert values["hidden_widths"] in ("32-32-16", "64-32-16")

    def test_answers_the_same_to_the_same_trials(self) -> None:
        past = [PastTrial(suggest([]), TrialState.COMPLETE, objective=1.0)]
        assert suggest(past) == suggest(past)
        assert suggest(past) != suggest(past, seed=2)
        assert suggest(past) != suggest([])

    def test_learns_from_what_was_found(self) -> None:
        learned, drawn = search(40, distance), search(40, distance, sampler=Sampler.RANDOM)
        assert np.mean(learned[20:]) < 0.5 * np.mean(drawn[20:])

    def test_goes_up_where_more_is_better(self) -> None:
        found = search(40, lambda values: -distance(values), objective=Objective.ACCURACY)
        assert np.mean(found[20:]) > np.mean(found[:10])

    def test_does_not_repeat_what_is_at_work(self) -> None:
        past = [PastTrial(suggest([], seed=n), TrialState.COMPLETE, objective=float(n)) for n in range(12)]
        first = suggest(past)
        second = suggest([*past, PastTrial(first, TrialState.RUNNING)])
        assert first != second

    def test_takes_trials_without_a_figure(self) -> None:
        values = suggest([])
        states = (TrialState.FAILED, TrialState.PRUNED, TrialState.CANCELLED, TrialState.QUEUED)
        past = [PastTrial(values, state) for state in states]
        past.append(PastTrial(values, TrialState.COMPLETE))
        assert suggest(past)


class TestThePruner:
    def past(self, count: int = 6) -> list[PastTrial]:
        """Trials whose loss at epoch 4 is 1.0, 1.1, …"""
        return [
            PastTrial({}, TrialState.COMPLETE, objective=0.9, epochs={4: 1 + n / 10}) for n in range(count)
        ]

    def test_stops_what_is_worse_than_the_median(self) -> None:
        worse = {1: 2.0, 2: 1.9, 3: 1.8, 4: 1.7}
        assert sampling.should_prune(self.past(), worse, objective=Objective.LOSS)
        assert not sampling.should_prune(self.past(), {**worse, 4: 1.01}, objective=Objective.LOSS)
        assert not sampling.should_prune(self.past(), worse, objective=Objective.ACCURACY)

    def test_waits_for_a_few_trials_and_epochs(self) -> None:
        worse = {1: 2.0, 2: 1.9, 3: 1.8, 4: 1.7}
        assert not sampling.should_prune(self.past(4), worse, objective=Objective.LOSS)
        assert not sampling.should_prune(self.past(), {1: 2.0}, objective=Objective.LOSS)
        assert not sampling.should_prune(self.past(), {}, objective=Objective.LOSS)


class TestTheSelectionBias:
    BLOCKS, ROWS = 40, 30

    def hits(self, random: np.random.Generator, accuracies: list[float]) -> np.ndarray:
        """[trials, blocks]: hits of models that are right independently of each other."""
        return np.array([random.binomial(self.ROWS, share, self.BLOCKS) for share in accuracies], dtype=float)

    def estimate(self, sums: np.ndarray, *, is_minimized: bool = False) -> selection_bias.SelectionBias:
        weights = np.full_like(sums, self.ROWS)
        found = selection_bias.estimate(sums.tolist(), weights.tolist(), is_minimized=is_minimized)
        assert found is not None
        return found

    def test_is_about_what_the_best_of_forty_equal_models_gains_by_luck(self) -> None:
        random = np.random.default_rng(5)
        found = [self.estimate(self.hits(random, [0.5] * 40)) for _ in range(30)]
        real = np.mean([bias.best for bias in found]) - 0.5
        assert 0.02 < real < 0.05
        assert np.mean([bias.optimism for bias in found]) == pytest.approx(real, rel=0.25)

    def test_is_small_where_one_model_is_really_better(self) -> None:
        random = np.random.default_rng(6)
        found = [self.estimate(self.hits(random, [0.7, *[0.5] * 39])) for _ in range(10)]
        assert np.mean([bias.optimism for bias in found]) < 0.005

    def test_never_makes_the_best_figure_better(self) -> None:
        random = np.random.default_rng(7)
        for _ in range(10):
            sums = self.hits(random, [0.5] * 5)
            assert self.estimate(sums).corrected <= self.estimate(sums).best
            lower = self.estimate(sums, is_minimized=True)
            assert lower.corrected >= lower.best == sums.sum(1).min() / (self.BLOCKS * self.ROWS)

    @pytest.mark.parametrize(("trials", "blocks"), [(1, 40), (5, 7), (0, 40)])
    def test_is_unknown_from_too_little(self, trials: int, blocks: int) -> None:
        sums = [[1.0] * blocks] * trials
        assert selection_bias.estimate(sums, sums, is_minimized=True) is None

    def test_sums_the_rows_that_training_reports(self) -> None:
        random = np.random.default_rng(8)
        logits = random.normal(size=(1_500, 3)).astype(np.float32)
        labels, weights = random.integers(0, 3, 1_500), np.array([0.8, 1.3, 1.0], dtype=np.float32)
        sums = selection_bias.add_up_rows(logits, labels, weights, smoothing=0.15, horizon=8)
        assert sums["block_bars"] == 72 and len(sums["hits"]) == 21
        assert sum(sums["rows"]) == 1_500
        assert sum(sums["hits"]) == (logits.argmax(1) == labels).sum()
        loss = torch.nn.functional.cross_entropy(
            torch.from_numpy(logits),
            torch.from_numpy(labels),
            torch.from_numpy(weights),
            label_smoothing=0.15,
        )
        assert sum(sums["losses"]) / sum(sums["weights"]) == pytest.approx(float(loss), rel=1e-5)

    def test_has_shorter_blocks_in_a_short_window(self) -> None:
        logits = np.zeros((200, 3), dtype=np.float32)
        sums = selection_bias.add_up_rows(
            logits, np.zeros(200, dtype=int), np.ones(3, dtype=np.float32), smoothing=0, horizon=8
        )
        assert sums["block_bars"] == 10 and len(sums["rows"]) == 20
