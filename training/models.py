from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from django.db import models
from django.utils import timezone

from mlcore.verdict import Verdict
from training.rules import JOB_TRANSITIONS, JobState, Source


class Coin(models.Model):
    """A coin the bot trades. A release must carry every required one."""

    symbol = models.CharField(max_length=12, unique=True)
    name = models.CharField(max_length=60, blank=True)
    is_required = models.BooleanField(default=True)

    class Meta:
        ordering = ["symbol"]

    def __str__(self) -> str:
        return self.symbol


class Line(models.Model):
    """A family of models that the pointer can name: the recipe that trains it, and the settings it starts from."""

    name = models.CharField(max_length=32, unique=True)
    description = models.CharField(max_length=200, blank=True)
    recipe = models.CharField(
        max_length=64, blank=True, help_text="what trains its models; empty for a line of imported models"
    )
    defaults = models.JSONField(
        default=dict, blank=True, help_text="its settings that differ from the recipe"
    )
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name


class DatasetQuerySet(models.QuerySet["Dataset"]):
    def not_withdrawn(self) -> DatasetQuerySet:
        """Without withdrawn datasets."""
        return self.filter(withdrawn_at=None)

    def passed_first(self) -> DatasetQuerySet:
        """Datasets that passed their checks before all others, the newest first in each group."""
        passed = models.Q(verdict=Verdict.PASSED)
        return self.order_by(models.Case(models.When(passed, then=0), default=1), "-created_at", "-id")


class Dataset(models.Model):
    """The candles of one coin in canonical form, identified by their digest."""

    coin = models.ForeignKey(Coin, on_delete=models.PROTECT, related_name="datasets")
    digest = models.CharField(
        max_length=71, help_text="sha256:… over the canonical bytes, the name of the stored file"
    )
    source = models.CharField(max_length=16, choices=[(s.value, s.value) for s in Source])
    origin = models.CharField(
        max_length=200, help_text="the uploaded file's name, the exchange, or the simulator's settings"
    )
    is_simulated = models.BooleanField(default=False)
    rows = models.PositiveIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    interval_seconds = models.PositiveIntegerField()
    gaps = models.PositiveIntegerField(default=0)
    missing_bars = models.PositiveIntegerField(default=0)
    zero_volume_bars = models.PositiveIntegerField(default=0)
    size = models.PositiveBigIntegerField(help_text="bytes")
    verdict = models.CharField(max_length=16, choices=[(v.value, v.value) for v in Verdict])
    check_results = models.TextField(help_text="canonical JSON: the result of every check, and plot data")
    import_report = models.TextField(
        blank=True, help_text="canonical JSON: what was done with the file; empty without a file"
    )
    added_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    withdrawn_at = models.DateTimeField(
        null=True, blank=True, help_text="when it was withdrawn; never undone"
    )
    withdrawn_by = models.CharField(max_length=150, blank=True)
    withdrawn_reason = models.TextField(blank=True)

    objects = DatasetQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            # Not for withdrawn datasets: they may be imported again, and are then checked again.
            models.UniqueConstraint(
                fields=["coin", "digest"],
                condition=models.Q(withdrawn_at=None),
                name="one_dataset_per_coin_and_content",
            )
        ]

    def __str__(self) -> str:
        return f"{self.coin} {self.first_at:%Y-%m-%d}…{self.last_at:%Y-%m-%d} ({self.origin})"

    @property
    def is_withdrawn(self) -> bool:
        return self.withdrawn_at is not None


class Budget(models.Model):
    """The limits that the runs of one launch share."""

    spending_limit_usd = models.DecimalField(max_digits=12, decimal_places=6)
    time_limit_seconds = models.PositiveIntegerField(help_text="machine time of all its runs together")
    runs_expected = models.PositiveSmallIntegerField(
        default=1, help_text="the time limit is divided by this number"
    )

    @property
    def share_of_time_seconds(self) -> float:
        return self.time_limit_seconds / self.runs_expected

    @property
    def spent_usd(self) -> Decimal:
        return sum((run.spent_usd for run in self.runs.all()), Decimal(0))

    @property
    def machine_usd(self) -> Decimal | None:
        """What machines really cost for its runs; None where none ran on one."""
        parts = [run.machine_usd for run in self.runs.all() if run.machine_usd is not None]
        return sum(parts, Decimal(0)) if parts else None

    @property
    def committed_usd(self) -> Decimal:
        """The cost of ended runs plus the reservations of running ones."""
        return sum((run.committed_usd for run in self.runs.all()), Decimal(0))


class JobQuerySet(models.QuerySet[Any]):
    def due(self, now: datetime, *, resend_after: datetime) -> JobQuerySet:
        """Free jobs whose message was never sent, or was sent before `resend_after`.

        A message is only a hint: the claim refuses a superfluous one, and a lost one is sent again.
        """
        free = models.Q(state=JobState.QUEUED) | models.Q(state=JobState.RUNNING, lease_until__lt=now)
        unsent = models.Q(enqueued_at=None) | models.Q(enqueued_at__lt=resend_after)
        # The lease ran out after the last message: no other worker has been told.
        unsent |= models.Q(state=JobState.RUNNING, enqueued_at__lt=models.F("lease_until"))
        return self.filter(free & unsent)


class Job(models.Model):
    """Work that one worker at a time holds with a lease. See training.jobs.leases."""

    TRANSITIONS: ClassVar = JOB_TRANSITIONS
    TASK: ClassVar[str]  # the Celery task that claims such a row

    state = models.CharField(
        max_length=12, default=JobState.QUEUED, choices=[(s.value, s.value) for s in JobState]
    )
    attempt = models.PositiveIntegerField(
        default=0, help_text="incremented by each claim; every later write names it"
    )
    lease_until = models.DateTimeField(null=True, blank=True)
    enqueued_at = models.DateTimeField(null=True, blank=True)
    worker_name = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    failure = models.TextField(blank=True, help_text="why it failed or was stopped")
    origin = models.JSONField(default=dict, blank=True, help_text="what asked for it (common.correlation)")

    objects = JobQuerySet.as_manager()

    class Meta:
        abstract = True

    @property
    def has_ended(self) -> bool:
        return JobState(self.state).has_ended

    @property
    def elapsed_seconds(self) -> float | None:
        if self.started_at is None:
            return None
        return ((self.finished_at or timezone.now()) - self.started_at).total_seconds()


class TrainingRun(Job):
    """One training of one coin by one recipe on one dataset."""

    TASK = "training.train"

    coin = models.ForeignKey(Coin, on_delete=models.PROTECT, related_name="runs")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="runs")
    line = models.CharField(max_length=32)
    recipe = models.CharField(max_length=64, help_text="of its line, when it was launched")
    package = models.CharField(
        max_length=100,
        blank=True,
        help_text="name and version of what provides the recipe; empty for a built-in one",
    )
    parameters = models.JSONField(default=dict, help_text="differences from the recipe")
    seed = models.PositiveIntegerField()
    epochs = models.PositiveIntegerField(help_text="maximum")
    budget = models.ForeignKey(Budget, on_delete=models.PROTECT, related_name="runs")
    reproduces = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="reproductions",
        help_text="the run whose model it trains a second time, to compare the two",
    )
    launched_by = models.CharField(max_length=150)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    checkpoint = models.CharField(max_length=200, blank=True, help_text="key of the stored resume state")
    bundle = models.ForeignKey(
        "Bundle",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="runs",
        help_text="its result; a repeated run makes the same bytes and so names the same bundle",
    )
    device = models.CharField(max_length=100, blank=True)
    code_version = models.CharField(max_length=64, blank=True)
    rate_usd_per_hour = models.DecimalField(max_digits=10, decimal_places=4, default=0)
    reserved_usd = models.DecimalField(max_digits=12, decimal_places=6, default=0)
    allowed_seconds = models.FloatField(default=0, help_text="what the reservation pays for")
    billed_seconds = models.FloatField(default=0, help_text="machine time of all attempts")
    spent_usd = models.DecimalField(max_digits=12, decimal_places=6, default=0)
    machine_usd = models.DecimalField(
        max_digits=12,
        decimal_places=6,
        null=True,
        blank=True,
        help_text="its part of what the machines it ran on cost; none on other workers",
    )
    best_validation_loss = models.FloatField(null=True, blank=True, help_text="of its best epoch so far")
    best_validation_accuracy = models.FloatField(null=True, blank=True, help_text="of the same epoch")
    notes = models.TextField(blank=True, default="", db_default="", help_text="what a person wrote about it")

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["best_validation_loss", "id"], name="runs_by_loss"),
            models.Index(fields=["best_validation_accuracy", "id"], name="runs_by_accuracy"),
            models.Index(fields=["finished_at", "id"], name="runs_by_end"),
            models.Index(fields=["id"], name="runs_with_notes", condition=~models.Q(notes="")),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} ({self.coin} {self.line})"

    @property
    def committed_usd(self) -> Decimal:
        return max(self.reserved_usd, self.spent_usd) if self.state == JobState.RUNNING else self.spent_usd

    @property
    def progress(self) -> float:
        """Epochs done, as a share of those allowed; 1 once succeeded (early stopping ends sooner)."""
        if self.state == JobState.SUCCEEDED:
            return 1.0
        return min(1.0, len(self.epoch_rows.all()) / max(1, self.epochs))


class Epoch(models.Model):
    """The results of one epoch of a run."""

    run = models.ForeignKey(TrainingRun, on_delete=models.PROTECT, related_name="epoch_rows")
    number = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField()
    train_loss = models.FloatField(null=True)
    validation_loss = models.FloatField(null=True)
    validation_accuracy = models.FloatField(null=True)
    seconds = models.FloatField()
    rows_per_second = models.FloatField()
    is_best = models.BooleanField()
    finished_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="an_epoch_is_reported_once")]


class RunTag(models.Model):
    """A word that a person put on a run, to find it by."""

    run = models.ForeignKey(TrainingRun, on_delete=models.PROTECT, related_name="tags")
    name = models.CharField(max_length=32)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="a_run_has_a_tag_once")]
        indexes = [models.Index(fields=["name", "run"], name="runs_of_a_tag")]

    def __str__(self) -> str:
        return self.name


class RunLine(models.Model):
    """One line of a run's log."""

    run = models.ForeignKey(TrainingRun, on_delete=models.PROTECT, related_name="log")
    at = models.DateTimeField(auto_now_add=True)
    attempt = models.PositiveIntegerField()
    text = models.TextField()

    class Meta:
        ordering = ["id"]


class Bundle(models.Model):
    """The immutable files of a trained model of one coin, identified by the digest of their manifest."""

    digest = models.CharField(max_length=71, unique=True)
    coin = models.ForeignKey(Coin, on_delete=models.PROTECT, related_name="bundles")
    line = models.CharField(max_length=32)
    dataset = models.ForeignKey(
        Dataset,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="bundles",
        help_text="its training data; unknown for an imported model that declares none",
    )
    origin = models.CharField(max_length=200, blank=True, help_text="the file of an imported model")
    interval_seconds = models.PositiveIntegerField(help_text="of the bars that it was trained on")
    manifest = models.TextField(help_text="the canonical manifest, as hashed")
    tracked_run = models.JSONField(
        null=True,
        blank=True,
        help_text="what a tracker such as MLflow recorded of the training of an imported model, as its manifest",
    )
    is_simulated = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.coin} {self.line} bundle {self.short_digest}"

    @property
    def short_digest(self) -> str:
        return self.digest.removeprefix("sha256:")[:12]


class Artifact(models.Model):
    """One file of a bundle; its bytes are stored under their own hash."""

    bundle = models.ForeignKey(Bundle, on_delete=models.PROTECT, related_name="artifacts")
    name = models.CharField(max_length=100)
    sha256 = models.CharField(max_length=64, db_index=True)
    size = models.PositiveBigIntegerField(help_text="bytes")

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["bundle", "name"], name="one_artifact_per_name")]

    def __str__(self) -> str:
        return f"{self.name} of {self.bundle}"


class Worker(models.Model):
    """A worker process, with the data of its last heartbeat."""

    name = models.CharField(max_length=100, unique=True)
    queues = models.CharField(max_length=100)
    slots = models.PositiveSmallIntegerField(default=1, help_text="parallel tasks")
    device = models.CharField(max_length=100, help_text="GPU name, or CPU")
    memory_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    cuda_version = models.CharField(max_length=20, blank=True)
    torch_version = models.CharField(max_length=40)
    code_version = models.CharField(max_length=64)
    rate_usd_per_hour = models.DecimalField(max_digits=10, decimal_places=4)
    started_at = models.DateTimeField()
    last_heard_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
