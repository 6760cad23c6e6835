"""What a release is, what state it is in, and its coins."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from deploy.rules import RELEASE_TRANSITIONS, Purpose, ReleaseState, allowed_actions
from gates.models import Diagnosis, GatePolicy
from studies.models import Study
from training.models import Budget, Bundle, Coin, Dataset, TrainingRun


class Release(models.Model):
    """One bundle for every required coin, gated, approved, swapped and rolled back as one.

    What it is never changes; how it stands is its ReleaseStatus.
    """

    line = models.CharField(max_length=32)
    purpose = models.CharField(
        max_length=12, choices=[(p.value, p.value) for p in Purpose], default=Purpose.CANDIDATE
    )
    policy = models.ForeignKey(GatePolicy, on_delete=models.PROTECT, related_name="releases")
    interval_seconds = models.PositiveIntegerField(help_text="of the bars of all its coins")
    parameters = models.JSONField(default=dict)
    seed = models.PositiveIntegerField(default=0)
    is_reproduced = models.BooleanField(
        default=False, help_text="whether a second worker trains each of its models again, to compare the two"
    )
    budget = models.ForeignKey(Budget, on_delete=models.PROTECT, related_name="releases")
    study = models.ForeignKey(
        Study,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="releases",
        help_text="whose best trial it trains again",
    )
    best_of = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="trials of that study when it was launched"
    )
    launched_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    deadline_at = models.DateTimeField()
    origin = models.JSONField(default=dict, blank=True, help_text="what asked for it (common.correlation)")

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        about = f"{self.line}, {self.selection}" if self.selection else self.line
        return f"release {self.pk} ({about})" if self.pk else f"a release of {about}"

    @property
    def selection(self) -> str:
        """ "best of 40 trials of study 3": what its parameters were chosen from; empty without a study."""
        return "" if self.study_id is None else f"best of {self.best_of} trials of study {self.study_id}"

    @property
    def state(self) -> str:
        return self.status.state

    @property
    def is_cancelled(self) -> bool:
        """Whether it was rejected because somebody cancelled it, and not by its gates."""
        return self.state == ReleaseState.REJECTED and self.status.cancel_requested_at is not None

    @property
    def shown_state(self) -> str:
        return "cancelled" if self.is_cancelled else self.state

    @property
    def is_simulated(self) -> bool:
        return any(row.dataset.is_simulated for row in self.coins.all())

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each coin's bundle, by symbol."""
        is_loaded = "coins" in getattr(self, "_prefetched_objects_cache", {})
        rows = self.coins.all() if is_loaded else self.coins.select_related("coin", "bundle")
        return {row.coin.symbol: row.bundle.digest for row in rows if row.bundle}

    @property
    def is_overdue(self) -> bool:
        return timezone.now() >= self.deadline_at

    @property
    def allowed_actions(self) -> frozenset[str]:
        return allowed_actions(self.purpose, self.state)


class ReleaseStatus(models.Model):
    """How a release stands. Written by audit.transition alone."""

    TRANSITIONS: ClassVar = RELEASE_TRANSITIONS

    release = models.OneToOneField(Release, on_delete=models.PROTECT, primary_key=True, related_name="status")
    state = models.CharField(
        max_length=20, choices=[(s.value, s.value) for s in ReleaseState], default=ReleaseState.BUILDING
    )
    reason = models.TextField(blank=True, help_text="why it stands so: coin, gate, figure and threshold")
    settled_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["state"], condition=models.Q(state=ReleaseState.LIVE), name="at_most_one_live_release"
            )
        ]

    def __str__(self) -> str:
        return str(self.release)


class ReleaseCoin(models.Model):
    """One coin's place in a release; run, bundle and diagnosis are each written once."""

    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="coins")
    coin = models.ForeignKey(Coin, on_delete=models.PROTECT, related_name="+")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="+")
    run = models.OneToOneField(
        TrainingRun, on_delete=models.PROTECT, null=True, blank=True, related_name="release_coin"
    )
    bundle = models.ForeignKey(
        Bundle, on_delete=models.PROTECT, null=True, blank=True, related_name="release_coins"
    )
    diagnosis = models.ForeignKey(
        Diagnosis, on_delete=models.PROTECT, null=True, blank=True, related_name="release_coins"
    )

    class Meta:
        ordering = ["coin__symbol"]
        constraints = [
            models.UniqueConstraint(fields=["release", "coin"], name="a_release_holds_a_coin_once")
        ]

    def __str__(self) -> str:
        return f"{self.coin} of {self.release}"

    @property
    def second_run(self) -> TrainingRun | None:
        """The second training of its model, where the release was launched with one."""
        if self.run is None or not self.release.is_reproduced:
            return None
        return next(iter(self.run.reproductions.all()), None)

    @property
    def statement(self) -> models.Model | None:
        """The signed statement about its bundle, where the release was launched with a second training."""
        return getattr(self.bundle, "statement", None) if self.release.is_reproduced else None
