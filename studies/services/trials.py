"""What a worker does for a trial beyond training it: prune it, and add up its stop window for the selection bias."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from mlcore.fitting.prepared import Trained
from studies import sampling, selection_bias
from studies.models import Trial
from studies.rules import STUDY_PRUNED, Objective, TrialState
from training.models import Epoch, TrainingRun
from training.rules import JobState


class TrialObserver:
    """Watches runs that are trials; any other run costs it one query of an indexed column."""

    def find_stop_reason(self, run: TrainingRun, epoch: int) -> str | None:
        """Why the trial is pruned after this epoch, or None. A pruned trial stays pruned when its run is resumed."""
        trial = Trial.objects.select_related("study").filter(run=run, study__prunes=True).first()
        if trial is None:
            return None
        if not trial.is_pruned:
            objective = Objective(trial.study.objective)
            own = dict(
                Epoch.objects.filter(run=run, number__lte=epoch).values_list("number", _column(objective))
            )
            figures = {number: figure for number, figure in own.items() if figure is not None}
            if not sampling.should_prune(_list_complete(trial, epoch), figures, objective=objective):
                return None
            Trial.objects.filter(pk=trial.pk).update(is_pruned=True)
        return f"{STUDY_PRUNED} after epoch {epoch}: its {trial.study.objective} is worse than the median of the study"

    def look_at_bundle(self, run: TrainingRun, folder: Path, trained: Trained) -> None:
        trial = Trial.objects.filter(run=run).first()
        if trial is not None:
            Trial.objects.filter(pk=trial.pk).update(stop_blocks=add_up_stop_window(folder, trained))


def add_up_stop_window(folder: Path, trained: Trained) -> dict[str, Any]:
    """What `selection_bias.add_up_rows` gives for the stop window, from the files that would be shipped."""
    from mlcore.bundle.predictor import Predictor  # a web process knows this module, and loads no onnxruntime

    prepared, recipe = trained.prepared, trained.recipe
    logits = Predictor(folder).logits(prepared.examples.features[prepared.examples.split.stop])
    return selection_bias.add_up_rows(
        logits,
        prepared.stop_labels,
        prepared.class_weights if recipe.weighs_classes else np.ones(3, dtype=np.float32),
        smoothing=recipe.label_smoothing or 0.0,
        horizon=recipe.horizon,
    )


def _list_complete(trial: Trial, epoch: int) -> list[sampling.PastTrial]:
    """The complete trials of the study with their figures up to this epoch."""
    objective = Objective(trial.study.objective)
    others = Trial.objects.filter(study=trial.study, run__state=JobState.SUCCEEDED).values_list(
        "run_id", f"run__{objective.column}"
    )
    epochs: dict[int, dict[int, float]] = defaultdict(dict)
    rows = Epoch.objects.filter(run__trial__study=trial.study, run__state=JobState.SUCCEEDED, number=epoch)
    for run_id, figure in rows.values_list("run_id", _column(objective)):
        if figure is not None:
            epochs[run_id][epoch] = figure
    return [
        sampling.PastTrial({}, TrialState.COMPLETE, objective=figure, epochs=epochs[run_id])
        for run_id, figure in others
        if figure is not None
    ]


def _column(objective: Objective) -> str:
    return objective.column.removeprefix("best_")
