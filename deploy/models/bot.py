"""What bots report: what they run, which moves they acknowledged, what they predicted."""

from django.db import models

from deploy.models.pointer import PointerMove
from gates.catalogue.live import Tally
from gates.models import GatePolicy
from training.models import Coin


class Bot(models.Model):
    """One running instance of a bot, as it last described itself; its name is that of its token's user.

    A heartbeat overwrites it. What must not be lost is in the audit chain; a bot silent for long is forgotten (ADR 0012).
    """

    name = models.CharField(max_length=150)
    instance = models.CharField(max_length=64)
    client_version = models.CharField(max_length=64)
    protocol = models.PositiveSmallIntegerField(help_text="in which its heartbeats are written")
    first_heard_at = models.DateTimeField()
    # No index: each heartbeat changes it, and PostgreSQL updates a row in place only if no indexed column changes.
    last_heard_at = models.DateTimeField()
    revision = models.BigIntegerField(null=True, blank=True, help_text="none where it has no model")
    line = models.CharField(max_length=32, blank=True)
    release_number = models.BigIntegerField(null=True, blank=True)
    bundles = models.JSONField(default=dict, blank=True, help_text="digest by coin, as it says")
    prefetched_next = models.BigIntegerField(
        null=True, blank=True, help_text="the next release, fetched, verified and loaded"
    )
    prefetched_fallback = models.BigIntegerField(
        null=True, blank=True, help_text="what a pin leads to, fetched, verified and loaded"
    )
    reported_digest = models.CharField(
        max_length=64, help_text="digest of what it says it runs: the same again is not judged again"
    )
    last_error = models.CharField(max_length=1000, blank=True)
    stale_since = models.DateTimeField(
        null=True, blank=True, help_text="since when the service cannot reach it"
    )
    audit_seq = models.BigIntegerField(
        null=True, blank=True, help_text="the highest audit head that it has seen signed"
    )
    audit_hash = models.CharField(max_length=64, blank=True)
    clock_error_seconds = models.IntegerField(
        null=True, blank=True, help_text="how far its clock is ahead of the service's, to ten seconds"
    )
    trusted_keys = models.JSONField(default=list, blank=True, help_text="ids of the keys that it trusts")
    is_stopped = models.BooleanField(
        default=False, help_text="its last heartbeat said that it stops, or a person retired it since"
    )
    mismatch = models.TextField(blank=True, help_text="how that is not what its revision's release holds")
    mismatch_revision = models.BigIntegerField(
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
    move = models.ForeignKey(PointerMove, on_delete=models.PROTECT, related_name="windows", db_index=False)
    coin = models.ForeignKey(Coin, on_delete=models.PROTECT, related_name="+", db_index=False)
    policy = models.ForeignKey(
        GatePolicy,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        help_text="whose live part judged it",
    )
    first_at = models.DateTimeField(help_text="by the bot's clock")
    last_at = models.DateTimeField()
    received_at = models.DateTimeField(db_index=True)
    predictions = models.PositiveIntegerField()
    non_finite = models.PositiveIntegerField(help_text="answers that were not finite")
    down = models.PositiveIntegerField()
    neutral = models.PositiveIntegerField()
    up = models.PositiveIntegerField()
    confidence = models.JSONField(help_text="counts by the bands of mlcore.confidence_bands")
    logit_min = models.FloatField(null=True, blank=True)
    logit_max = models.FloatField(null=True, blank=True)
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
        indexes = [models.Index(fields=["move", "coin", "id"], name="live_windows_of_a_coin")]
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
            self.logit_min,
            self.logit_max,
            self.out_of_range or 0,
            0 if self.out_of_range is None else self.predictions - self.non_finite,
        )


class LiveTotal(models.Model):
    """Running totals of one bot's windows of one coin under one revision, so that nothing has to add the windows up."""

    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="live_totals", db_index=False)
    move = models.ForeignKey(
        PointerMove, on_delete=models.PROTECT, related_name="live_totals", db_index=False
    )
    coin = models.ForeignKey(Coin, on_delete=models.PROTECT, related_name="+", db_index=False)
    predictions = models.PositiveBigIntegerField(default=0)
    non_finite = models.PositiveBigIntegerField(default=0)
    down = models.PositiveBigIntegerField(default=0)
    neutral = models.PositiveBigIntegerField(default=0)
    up = models.PositiveBigIntegerField(default=0)
    out_of_range = models.PositiveBigIntegerField(default=0)
    ranged = models.PositiveBigIntegerField(default=0, help_text="predictions whose feature range is known")
    recent = models.JSONField(
        default=list, help_text="the newest windows that the next one is judged with, newest first"
    )
    last_first_at = models.DateTimeField(
        null=True, help_text="the beginning of its newest window, which names it"
    )
    received_at = models.DateTimeField(help_text="when its newest window came")
    breach = models.TextField(blank=True, help_text="of its newest window")
    warning = models.TextField(blank=True, help_text="of its newest window")

    class Meta:
        ordering = ["bot", "coin"]
        indexes = [
            models.Index(fields=["move", "coin"], name="live_totals_of_a_coin"),
            models.Index(
                fields=["move"], condition=~models.Q(breach="", warning=""), name="flagged_live_totals"
            ),
        ]
        constraints = [models.UniqueConstraint(fields=["bot", "move", "coin"], name="one_live_total_each")]

    def __str__(self) -> str:
        return f"{self.predictions} predictions of {self.coin} by {self.bot}"

    @property
    def whole(self) -> Tally:
        """All predictions, as far as windows are kept. Only the counts: no confidence and no logits."""
        return Tally(
            self.predictions,
            self.non_finite,
            (self.down, self.neutral, self.up),
            out_of_range=self.out_of_range,
            ranged=self.ranged,
        )

    def add(self, window: LiveWindow) -> None:
        """Add a window, stored or not, to the sums."""
        tally = window.tally
        self.predictions += tally.predictions
        self.non_finite += tally.non_finite
        self.down, self.neutral, self.up = (
            sum(each) for each in zip(self.whole.classes, tally.classes, strict=True)
        )
        self.out_of_range += tally.out_of_range
        self.ranged += tally.ranged
