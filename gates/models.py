from __future__ import annotations

import json
from typing import Any

from django.db import models

from gates.catalogue.gate import GateOutcome
from mlcore.verdict import Verdict
from training.models import Bundle, Coin, Dataset, Job, TrainingRun


class JsonDocument:
    """The document whose canonical JSON a text column holds; empty where the column is."""

    def __init__(self, column: str) -> None:
        self.column = column

    def __get__(self, row: models.Model, owner: type[models.Model]) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(getattr(row, self.column) or "{}")
        return document


class GatePolicy(models.Model):
    """What a bundle must show. Immutable and numbered; in force once adopted."""

    number = models.PositiveIntegerField(unique=True)
    body = models.TextField(help_text="canonical JSON: gates, their thresholds, which are required")
    required_gates = models.PositiveSmallIntegerField(help_text="how many gates the body requires")
    reason = models.TextField()
    proposed_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    document = JsonDocument("body")

    class Meta:
        ordering = ["-number"]
        verbose_name_plural = "gate policies"

    def __str__(self) -> str:
        return f"policy {self.number}"

    @property
    def predecessor(self) -> GatePolicy | None:
        """The policy that was in force when this one was proposed; none before the first."""
        earlier = PolicyAdoption.objects.filter(at__lte=self.created_at).exclude(policy=self)
        adoption = earlier.select_related("policy").first()
        return adoption.policy if adoption else None


class PolicyAdoption(models.Model):
    """A policy coming into force; the last one is the policy in force."""

    policy = models.ForeignKey(GatePolicy, on_delete=models.PROTECT, related_name="adoptions")
    adopted_by = models.CharField(max_length=150)
    reason = models.TextField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"adoption {self.pk} of {self.policy}"


class Measurement(Job):
    """One measurement of one bundle's files on one dataset: figures, without a verdict."""

    TASK = "gates.measure"

    bundle = models.ForeignKey(Bundle, on_delete=models.PROTECT, related_name="measurements")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="measurements")
    second_run = models.ForeignKey(
        TrainingRun,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="the second training that its model is compared with; none where there was none",
    )
    body = models.TextField(blank=True, help_text="canonical JSON of mlcore.evaluation.measure; written once")
    code_version = models.CharField(max_length=64, blank=True, help_text="of the worker that claimed it last")
    document = JsonDocument("body")

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["bundle", "dataset", "id"], name="measurements_of_a_bundle")]

    def __str__(self) -> str:
        return f"measurement {self.pk} of {self.bundle}"


class Attempt(models.Model):
    """A success of a measurement in the order of the audit chain, to count attempts by (ADR 0005). Append-only."""

    seq = models.BigIntegerField(primary_key=True, help_text="of the event of the success")
    measurement = models.OneToOneField(Measurement, on_delete=models.PROTECT, related_name="success")
    coin = models.ForeignKey(Coin, on_delete=models.PROTECT, related_name="+")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="+", db_index=False)
    bundle = models.ForeignKey(Bundle, on_delete=models.PROTECT, related_name="+")
    is_counted = models.BooleanField(
        help_text="false for bundles that are no attempt, such as the fallback's"
    )
    gate_percent = models.PositiveSmallIntegerField(
        help_text="the share of the dataset's rows in the gate window, as the bundle declares it"
    )
    chain = models.CharField(max_length=64, help_text="hash over this and all earlier successes of the coin")

    class Meta:
        ordering = ["-seq"]
        indexes = [
            models.Index(fields=["dataset", "is_counted", "seq", "bundle"], name="attempts_on_a_dataset")
        ]

    def __str__(self) -> str:
        return f"success {self.seq} of {self.bundle}"


class Diagnosis(models.Model):
    """The verdict on one measurement under one policy, both frozen here."""

    measurement = models.ForeignKey(Measurement, on_delete=models.PROTECT, related_name="diagnoses")
    coin = models.ForeignKey(Coin, on_delete=models.PROTECT, related_name="diagnoses")
    bundle = models.ForeignKey(Bundle, on_delete=models.PROTECT, related_name="diagnoses")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="diagnoses")
    policy = models.ForeignKey(GatePolicy, on_delete=models.PROTECT, related_name="diagnoses")
    policy_body = models.TextField(help_text="the policy as it was")
    measured = models.TextField(help_text="the measurement as it was")
    context_body = models.TextField(
        default="{}", help_text="canonical JSON of gates.context: the attempt, the verdicts on its candles"
    )
    verdict = models.CharField(max_length=16, choices=[(v.value, v.value) for v in Verdict])
    digest = models.CharField(max_length=71, help_text="sha256 over bundle, measurement, policy and results")
    created_at = models.DateTimeField(auto_now_add=True)
    document = JsonDocument("measured")
    """The measurement as it was; with no figures but the reason where there was none."""
    context_document = JsonDocument("context_body")
    """What the service knew beyond the measurement, as it was."""
    policy_document = JsonDocument("policy_body")
    """The policy as it was."""

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "diagnoses"
        constraints = [
            models.UniqueConstraint(
                fields=["measurement", "policy"], name="a_measurement_is_judged_once_by_a_policy"
            )
        ]

    def __str__(self) -> str:
        return f"diagnosis {self.pk} of {self.bundle}: {self.verdict}"

    @property
    def judged_document(self) -> dict[str, Any]:
        """All that the gates read: the measurement and its context."""
        return {**self.document, **self.context_document}


class GateResult(models.Model):
    """The outcome of one gate for one bundle: a stored `GateOutcome`."""

    diagnosis = models.ForeignKey(Diagnosis, on_delete=models.PROTECT, related_name="results")
    position = models.PositiveSmallIntegerField()
    gate = models.CharField(max_length=32)
    is_required = models.BooleanField()
    verdict = models.CharField(max_length=16, choices=[(v.value, v.value) for v in Verdict])
    figure = models.FloatField(null=True, help_text="the figure that decides, where it is finite")
    figure_word = models.CharField(max_length=16, blank=True, help_text="nan, inf or -inf where it is not")
    observed = models.CharField(max_length=200, help_text="the observed figures as a person reads them")
    threshold = models.CharField(max_length=200)
    sentence = models.TextField()

    class Meta:
        ordering = ["diagnosis", "position"]
        constraints = [models.UniqueConstraint(fields=["diagnosis", "gate"], name="a_gate_has_one_result")]

    def __str__(self) -> str:
        return f"{self.gate}: {self.verdict}"

    @property
    def outcome(self) -> GateOutcome:
        """The pure value, as the rules and reports read it."""
        return GateOutcome(
            verdict=Verdict(self.verdict),
            figure=float(self.figure_word) if self.figure_word else self.figure,
            observed=self.observed,
            sentence=self.sentence,
            gate=self.gate,
            is_required=self.is_required,
            threshold=self.threshold,
        )
