"""The next parameters of a study, and whether a trial is pruned, by Optuna's samplers and median pruner.

Optuna stores nothing: its study is built in memory from the trials' rows each time, so these are the only record. The same
rows give the same answer.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.rules import Objective, Sampler, TrialState
from studies.search_space import Range, Value

if TYPE_CHECKING:
    import optuna

RANDOM_TRIALS = 10
"""The first trials of TPE are random: it needs some to learn from."""
PRUNED_AFTER_TRIALS = 5
"""A median of fewer complete trials says little."""
WARM_UP_EPOCHS = 3
"""No trial is pruned before: the first epochs of a low learning rate say little about its end."""


@dataclass(frozen=True)
class PastTrial:
    """What is known of a trial."""

    values: Mapping[str, Value]
    state: TrialState
    objective: float | None = None
    """Of its best epoch; None without one."""
    epochs: Mapping[int, float] = field(default_factory=dict)
    """The objective after each epoch, by its number."""


def suggest(
    ranges: Sequence[Range],
    past: Sequence[PastTrial],
    *,
    objective: Objective,
    sampler: Sampler,
    seed: int,
) -> dict[str, Value]:
    """The parameters of the trial after those of `past`. Trials at work count as poor ones, so that no two are alike."""
    with _quietly():
        study = _build_study(ranges, past, objective, sampler, seed)
        trial = study.ask(_build_distributions(ranges))
    return {chosen.name: _to_value(chosen, trial.params[chosen.name]) for chosen in ranges}


def should_prune(past: Sequence[PastTrial], epochs: Mapping[int, float], *, objective: Objective) -> bool:
    """Whether a trial with these figures by epoch is worse than the median of the complete trials at the same epoch."""
    if not epochs:
        return False
    with _quietly():
        import optuna

        asked = PastTrial({}, TrialState.RUNNING, epochs=epochs)
        study = _build_study([], [*past, asked], objective, Sampler.RANDOM, 0)
        pruner = optuna.pruners.MedianPruner(PRUNED_AFTER_TRIALS, WARM_UP_EPOCHS)
        return bool(pruner.prune(study, study.get_trials()[-1]))


def _build_study(
    ranges: Sequence[Range], past: Sequence[PastTrial], objective: Objective, sampler: Sampler, seed: int
) -> "optuna.Study":
    import optuna

    study = optuna.create_study(
        direction="minimize" if objective.is_minimized else "maximize",
        sampler=_build_sampler(sampler, [seed, len(past)]),
    )
    distributions = _build_distributions(ranges)
    study.add_trials([_build_trial(trial, distributions) for trial in past])
    return study


def _build_sampler(sampler: Sampler, seed: Sequence[int]) -> "optuna.samplers.BaseSampler":
    import optuna

    drawn = int(np.random.SeedSequence(seed).generate_state(1)[0])
    if sampler == Sampler.RANDOM:
        return optuna.samplers.RandomSampler(seed=drawn)
    return optuna.samplers.TPESampler(
        seed=drawn, n_startup_trials=RANDOM_TRIALS, multivariate=True, constant_liar=True
    )


def _build_distributions(ranges: Sequence[Range]) -> dict[str, Any]:
    from optuna import distributions

    built: dict[str, Any] = {}
    for chosen in ranges:
        is_log = chosen.kind == "log"
        if chosen.kind == "choice":
            built[chosen.name] = distributions.CategoricalDistribution(chosen.choices)
        elif chosen.is_whole:
            built[chosen.name] = distributions.IntDistribution(int(chosen.low), int(chosen.high), log=is_log)
        else:
            built[chosen.name] = distributions.FloatDistribution(chosen.low, chosen.high, log=is_log)
    return built


def _build_trial(trial: PastTrial, distributions: Mapping[str, Any]) -> "optuna.trial.FrozenTrial":
    from optuna.trial import TrialState as State
    from optuna.trial import create_trial

    state = {
        TrialState.COMPLETE: State.COMPLETE if trial.objective is not None else State.FAIL,
        TrialState.PRUNED: State.PRUNED,
        TrialState.FAILED: State.FAIL,
        TrialState.CANCELLED: State.FAIL,
    }.get(trial.state, State.RUNNING)
    return create_trial(
        state=state,
        value=trial.objective if state == State.COMPLETE else None,
        params={name: trial.values[name] for name in distributions},
        distributions=dict(distributions),
        intermediate_values=dict(trial.epochs),
    )


def _to_value(chosen: Range, drawn: Any) -> Value:
    if chosen.kind == "choice":
        return next(choice for choice in chosen.choices if choice == drawn)
    return int(drawn) if chosen.is_whole else float(drawn)


class _quietly(warnings.catch_warnings):
    """Optuna says of each new study that it exists, and of some options that they are experimental."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
