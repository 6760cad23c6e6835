"""The pointer's moves, and the registered fallback."""

from django.db import models
from django.utils.functional import cached_property

from audit.models import AuditEvent
from deploy.models.release import Release
from deploy.rules import MoveKind
from gates.models import GatePolicy


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

    origin = models.JSONField(default=dict, blank=True, help_text="what asked for it (common.correlation)")

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
    def audit_event(self) -> AuditEvent | None:
        """Its own event in the audit chain, read once; None where the chain was cut short."""
        return AuditEvent.objects.filter(pk=self.audit_seq).first()

    @cached_property
    def action_label(self) -> str:
        """What was done, as a person says it: a swap is a release that was *approved*, or *restored* after it was live.

        An advanced revision says what the move did that it repeats.
        """
        if self.kind != MoveKind.SWAP:
            return "pinned" if self.kind == MoveKind.PIN else self.kind
        swaps = PointerMove.objects.filter(kind=MoveKind.SWAP, release=self.release_id, is_advance=False)
        return "approved" if swaps.filter(revision__lte=self.revision).count() == 1 else "restored"
