"""Backups and drills, as the service asks for them and carries them out; what a backup is belongs to crpbot.backup."""

from typing import ClassVar

from django.db import models

from deploy.rules import BACKUP_TRANSITIONS, BackupKind, BackupState


class BackupTask(models.Model):
    """One backup or drill: who asked for it, which process carries it out, and how it ended."""

    TRANSITIONS: ClassVar = BACKUP_TRANSITIONS

    kind = models.CharField(max_length=8, choices=[(kind.value, kind.value) for kind in BackupKind])
    state = models.CharField(
        max_length=8, choices=[(s.value, s.value) for s in BackupState], default=BackupState.WAITING
    )
    slot = models.PositiveSmallIntegerField(
        null=True, unique=True, default=1, help_text="1 until it has ended, so that there is one at a time"
    )
    reason = models.TextField(blank=True, help_text="why it was asked for; of a failed one, why it failed")
    requested_by = models.CharField(max_length=150)
    requested_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    heard_at = models.DateTimeField(
        null=True, blank=True, help_text="when its process last reported, by the database's clock"
    )
    ended_at = models.DateTimeField(null=True, blank=True)
    backup = models.CharField(
        max_length=40, blank=True, help_text="the name of the backup that was made or drilled"
    )
    result = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"

    @property
    def elapsed_seconds(self) -> float | None:
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


class BackupJournal(models.Model):
    """How far the journal beside the backups goes. One row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    seq = models.BigIntegerField(default=0, help_text="every audit event up to this one was looked at")
    problem = models.TextField(blank=True, help_text="why it could not be written")
    failing_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="one_backup_journal")]

    def __str__(self) -> str:
        return f"the journal up to event {self.seq}"
