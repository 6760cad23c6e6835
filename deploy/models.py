from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.functional import cached_property

from deploy.rules import (
    KEY_TRANSITIONS,
    RELEASE_TRANSITIONS,
    AlarmName,
    KeyState,
    MoveKind,
    Purpose,
    ReleaseState,
    Severity,
    allowed_actions,
)
from gates.catalogue.live import Tally
from gates.models import Diagnosis, GatePolicy
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
    parameters = models.JSONField(default=dict)
    seed = models.PositiveIntegerField(default=0)
    budget = models.ForeignKey(Budget, on_delete=models.PROTECT, related_name="releases")
    launched_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    deadline_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"release {self.pk} ({self.line})" if self.pk else f"a release of {self.line}"

    @property
    def state(self) -> str:
        return self.status.state

    @property
    def is_simulated(self) -> bool:
        return any(row.dataset.is_simulated for row in self.coins.all())

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


class FallbackRegistration(models.Model):
    """The release that a pin holds the bots on; the last registration counts. Append-only."""

    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="registrations")
    registered_by = models.CharField(max_length=150)
    reason = models.TextField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"fallback {self.pk}: {self.release}"


class PointerMove(models.Model):
    """The pointer: the last row says what every bot must use. Append-only, and guarded by the database."""

    revision = models.BigIntegerField(primary_key=True)
    previous = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="next"
    )
    release = models.ForeignKey(
        Release, on_delete=models.PROTECT, null=True, blank=True, related_name="moves"
    )
    policy = models.ForeignKey(
        GatePolicy, on_delete=models.PROTECT, null=True, blank=True, related_name="moves"
    )
    kind = models.CharField(max_length=12, choices=[(k.value, k.value) for k in MoveKind])
    moved_by = models.CharField(max_length=150)
    reason = models.TextField()
    moved_at = models.DateTimeField()
    audit_seq = models.BigIntegerField(help_text="its own event in the audit chain")
    is_advance = models.BooleanField(
        default=False, help_text="says again what the move before it said, under a higher revision (ADR 0011)"
    )

    class Meta:
        ordering = ["-revision"]
        constraints = [
            models.CheckConstraint(
                name="revisions_follow_one_another",
                condition=models.Q(revision=1, previous=None, kind=MoveKind.INHERITED)
                | (
                    # previous__isnull is said out loud: a CHECK that comes to NULL lets the row in.
                    models.Q(revision__gt=1, previous__isnull=False, previous=models.F("revision") - 1)
                    & ~models.Q(kind=MoveKind.INHERITED)
                )
                | models.Q(is_advance=True, previous__isnull=False, previous__lt=models.F("revision")),
            ),
            models.CheckConstraint(
                name="no_release_means_offline",
                condition=models.Q(kind=MoveKind.OFFLINE, release=None)
                | (~models.Q(kind=MoveKind.OFFLINE) & models.Q(release__isnull=False)),
            ),
            models.CheckConstraint(
                name="a_swap_names_its_policy",
                condition=~models.Q(kind=MoveKind.SWAP) | models.Q(policy__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"revision {self.revision}"

    @cached_property
    def deed(self) -> str:
        """What was done, as a person says it: a swap is a release that was *approved*, or *restored* after it was live.

        An advanced revision says what the move did that it repeats.
        """
        if self.kind != MoveKind.SWAP:
            return "pinned" if self.kind == MoveKind.PIN else self.kind
        swaps = PointerMove.objects.filter(kind=MoveKind.SWAP, release=self.release_id, is_advance=False)
        return "approved" if swaps.filter(revision__lte=self.revision).count() == 1 else "restored"


class Alarm(models.Model):
    """A trouble a person must end, from the moment it was found to the moment it was over.

    Whether there is trouble now is looked up each time (deploy.alarms.detect); this is its history, and says since when.
    """

    name = models.CharField(max_length=20, choices=[(a.value, a.value) for a in AlarmName])
    severity = models.CharField(max_length=10, choices=[(s.value, s.value) for s in Severity])
    sentence = models.TextField(help_text="what is wrong")
    remedy = models.TextField(help_text="what to do")
    raised_at = models.DateTimeField()
    cleared_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(cleared_at=None), name="an_alarm_is_raised_once"
            )
        ]

    def __str__(self) -> str:
        return f"alarm {self.pk} ({self.name})"


class SigningKey(models.Model):
    """The public half of a key that signs what bots are given; the private half lies in a folder (deploy.serving.keys)."""

    TRANSITIONS: ClassVar = KEY_TRANSITIONS

    key_id = models.CharField(max_length=64, unique=True, help_text="stands beside each of its signatures")
    public_hex = models.CharField(max_length=64, help_text="Ed25519, 32 bytes: what a bot pins")
    state = models.CharField(
        max_length=10, choices=[(s.value, s.value) for s in KeyState], default=KeyState.NEXT
    )
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    activated_at = models.DateTimeField(null=True, blank=True)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"signing key {self.key_id[:12]}"


class Bot(models.Model):
    """One running instance of a bot, as it last described itself; its name is that of its token's user.

    A heartbeat overwrites it. What must not be lost is in the audit chain; a bot silent for long is forgotten (ADR 0012).
    """

    name = models.CharField(max_length=150)
    instance = models.CharField(max_length=64)
    client_version = models.CharField(max_length=64)
    first_heard_at = models.DateTimeField()
    last_heard_at = models.DateTimeField(db_index=True)
    revision = models.BigIntegerField(null=True, blank=True, help_text="none where it has no model")
    line = models.CharField(max_length=32, blank=True)
    release_number = models.BigIntegerField(null=True, blank=True)
    bundles = models.JSONField(default=dict, blank=True, help_text="digest by coin, as it says")
    ready_for = models.BigIntegerField(
        null=True, blank=True, help_text="the next release, fetched, verified and loaded"
    )
    holds_fallback = models.BigIntegerField(
        null=True, blank=True, help_text="what a pin leads to, fetched, verified and loaded"
    )
    claim = models.CharField(
        max_length=64, help_text="digest of what it says it runs: the same again is not judged again"
    )
    last_error = models.CharField(max_length=1000, blank=True)
    stale_since = models.DateTimeField(
        null=True, blank=True, help_text="since when the service cannot reach it"
    )
    differs = models.TextField(blank=True, help_text="how that is not what its revision's release holds")
    differed_at_revision = models.BigIntegerField(
        null=True, blank=True, help_text="the pointer's, when that last went into the audit"
    )

    class Meta:
        ordering = ["name", "instance"]
        constraints = [models.UniqueConstraint(fields=["name", "instance"], name="an_instance_is_one_bot")]

    def __str__(self) -> str:
        return f"{self.name} ({self.instance})"


class Acknowledgement(models.Model):
    """That a bot runs a revision, the whole of its release: when it first said so, and how long after the move."""

    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="acknowledgements")
    move = models.ForeignKey(PointerMove, on_delete=models.PROTECT, related_name="acknowledgements")
    at = models.DateTimeField(db_index=True)
    seconds = models.FloatField(help_text="since the move")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["bot", "move"], name="a_revision_is_acknowledged_once")
        ]

    def __str__(self) -> str:
        return f"{self.bot} on revision {self.move_id}"


class Convergence(models.Model):
    """The moment at which every live bot had acknowledged a move. Append-only; a move overtaken before has none."""

    move = models.OneToOneField(
        PointerMove, on_delete=models.PROTECT, primary_key=True, related_name="convergence"
    )
    at = models.DateTimeField()
    bots = models.PositiveIntegerField()
    slowest_seconds = models.FloatField(
        null=True, blank=True, help_text="of those that were there when it moved"
    )

    class Meta:
        ordering = ["-move"]

    def __str__(self) -> str:
        return f"{self.bots} bots on revision {self.move_id}"


class LiveWindow(models.Model):
    """Some predictions of one coin by one bot under one revision, counted; judged once, when it came.

    Append-only, and forgotten with its age; what moved the pointer stands in the audit.
    """

    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="windows")
    move = models.ForeignKey(PointerMove, on_delete=models.PROTECT, related_name="windows")
    coin = models.ForeignKey(Coin, on_delete=models.PROTECT, related_name="+")
    policy = models.ForeignKey(
        GatePolicy, on_delete=models.PROTECT, related_name="+", help_text="whose live part judged it"
    )
    first_at = models.DateTimeField(help_text="by the bot's clock")
    last_at = models.DateTimeField()
    received_at = models.DateTimeField(db_index=True)
    predictions = models.PositiveIntegerField()
    non_finite = models.PositiveIntegerField(help_text="answers that were no numbers")
    down = models.PositiveIntegerField()
    neutral = models.PositiveIntegerField()
    up = models.PositiveIntegerField()
    confidence = models.JSONField(help_text="counts by the bands of mlcore.confidence_bands")
    logit_least = models.FloatField(null=True, blank=True)
    logit_greatest = models.FloatField(null=True, blank=True)
    out_of_range = models.PositiveBigIntegerField(
        null=True,
        blank=True,
        help_text="feature values outside what training saw; none where nobody knows that",
    )
    breach = models.TextField(
        blank=True, help_text="what tripped, with its figures; none for another revision's"
    )
    warning = models.TextField(blank=True, help_text="what wanders, with its figures")

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["move", "bot", "coin", "id"], name="live_windows_of_a_bot")]
        constraints = [
            models.UniqueConstraint(
                fields=["bot", "move", "coin", "first_at"], name="a_window_sent_again_counts_once"
            ),
            models.CheckConstraint(
                name="a_window_adds_up",
                condition=models.Q(
                    predictions=models.F("down")
                    + models.F("neutral")
                    + models.F("up")
                    + models.F("non_finite")
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.predictions} predictions of {self.coin} by {self.bot}"

    @property
    def tally(self) -> Tally:
        return Tally(
            self.predictions,
            self.non_finite,
            (self.down, self.neutral, self.up),
            tuple(self.confidence),
            self.logit_least,
            self.logit_greatest,
            self.out_of_range or 0,
            0 if self.out_of_range is None else self.predictions - self.non_finite,
        )


class ServiceIdentity(models.Model):
    """The name by which bots tell this service's revisions from another's. One row, made once."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    name = models.CharField(max_length=64)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="one_service_identity")]

    def __str__(self) -> str:
        return self.name
