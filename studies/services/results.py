"""What a study has found: its best trial, the figures so far, and how optimistic the best one is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from common.errors import Conflict
from studies import selection_bias
from studies.models import Study, Trial
from studies.rules import Objective, TrialState
from studies.selection_bias import SelectionBias
from studies.services.advance import list_trials
from training.services import lines


@dataclass(frozen=True)
class Results:
    """The trials of a study, added up."""

    trials: list[Trial]
    """In order, each with its run."""
    best: Trial | None
    counts: dict[str, int]
    """Of trials by state; states that none is in are left out."""
    spent_usd: Decimal
    billed_seconds: float

    @property
    def ended(self) -> int:
        return sum(count for state, count in self.counts.items() if TrialState(state).has_ended)


def summarize(study: Study) -> Results:
    """Add up the trials of a study so far."""
    trials = list_trials(study)
    counts = Counter(str(trial.state) for trial in trials)
    return Results(
        trials,
        find_best(study, trials),
        {str(state): counts[state] for state in TrialState if counts[state]},
        sum((trial.run.spent_usd for trial in trials), Decimal(0)),
        sum(trial.run.billed_seconds for trial in trials),
    )


def find_best(study: Study, trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the best figure; of equal ones the first. None before the first is complete."""
    sign = 1 if Objective(study.objective).is_minimized else -1
    complete = [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE and read_figure(study, trial) is not None
    ]
    return min(complete, key=lambda trial: sign * (read_figure(study, trial) or 0.0), default=None)


def read_figure(study: Study, trial: Trial) -> float | None:
    """The objective of a trial: of its best epoch so far."""
    figure: float | None = getattr(trial.run, Objective(study.objective).column)
    return figure


def require_best(study: Study) -> Trial:
    """Raises Conflict where no trial is complete."""
    best = find_best(study, list_trials(study))
    if best is None:
        raise Conflict(f"{study} has no complete trial yet: there are no parameters to launch.")
    return best


def list_best_parameters(study: Study, best: Trial) -> dict[str, Any]:
    """What a launch of the study's line changes to train the best trial again."""
    return lines.merge_settings(study.parameters, best.parameters)


def estimate_bias(study: Study) -> SelectionBias | None:
    """The optimism of the best figure; None for too few trials or too short a stop window.

    Trials whose sums are of other blocks, as by another version, are left out.
    """
    objective = Objective(study.objective)
    names = ("losses", "weights") if objective == Objective.LOSS else ("hits", "rows")
    rows = study.trials.filter(stop_blocks__isnull=False).select_related("run").order_by("number")
    blocks: list[Any] = [trial.stop_blocks for trial in rows if trial.state == TrialState.COMPLETE]
    alike = [each for each in blocks if each["rows"] == blocks[0]["rows"]]
    if not alike:
        return None
    sums, weights = ([each[name] for each in alike] for name in names)
    return selection_bias.estimate(sums, weights, is_minimized=objective.is_minimized)
