from __future__ import annotations

from typing import ClassVar

from django.db import models

from studies.rules import STUDY_TRANSITIONS, Objective, Sampler, StudyState, TrialState, compute_trial_state
from training.models import Budget, Dataset, TrainingRun


class Study(models.Model):
    """A search over parameters of one line on one dataset, judged on the stop window alone."""

    TRANSITIONS: ClassVar = STUDY_TRANSITIONS

    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="studies")
    line = models.CharField(max_length=32)
    parameters = models.JSONField(
        default=dict, help_text="differences from the line, the same for all trials"
    )
    ranges = models.JSONField(help_text="{setting: {kind, low, high} or {kind, choices}}")
    objective = models.CharField(max_length=12, choices=[(o.value, o.value) for o in Objective])
    sampler = models.CharField(max_length=12, choices=[(s.value, s.value) for s in Sampler])
    prunes = models.BooleanField(help_text="whether trials worse than the median are stopped early")
    seed = models.PositiveIntegerField(help_text="of the sampler and of every trial")
    max_trials = models.PositiveSmallIntegerField()
    parallel = models.PositiveSmallIntegerField(help_text="trials at a time")
    budget = models.ForeignKey(Budget, on_delete=models.PROTECT, related_name="studies")
    launched_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    origin = models.JSONField(default=dict, blank=True, help_text="what asked for it (common.correlation)")
    state = models.CharField(
        max_length=12, default=StudyState.RUNNING, choices=[(s.value, s.value) for s in StudyState]
    )
    reason = models.TextField(blank=True, help_text="why it ended")
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "studies"
        indexes = [
            models.Index(
                fields=["id"], name="studies_at_work", condition=models.Q(state=StudyState.RUNNING.value)
            )
        ]

    def __str__(self) -> str:
        return f"study {self.pk} ({self.line})" if self.pk else f"a study of {self.line}"

    @property
    def has_ended(self) -> bool:
        return StudyState(self.state).has_ended


class Trial(models.Model):
    """One set of parameters of a study. Its run is an ordinary one; no release has it, so no gate measures it."""

    study = models.ForeignKey(Study, on_delete=models.PROTECT, related_name="trials")
    number = models.PositiveSmallIntegerField(help_text="from 1, in the order of sampling")
    parameters = models.JSONField(help_text="of the study's ranges")
    run = models.OneToOneField(TrainingRun, on_delete=models.PROTECT, related_name="trial")
    is_pruned = models.BooleanField(default=False)
    stop_blocks = models.JSONField(
        null=True,
        blank=True,
        help_text="{hits, rows, losses, weights}: sums over blocks of the stop window, for the selection bias",
    )

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["study", "number"], name="a_trial_has_a_number_once")]

    def __str__(self) -> str:
        return f"trial {self.number} of study {self.study_id}"

    @property
    def state(self) -> TrialState:
        return compute_trial_state(self.run.state, is_pruned=self.is_pruned)
