from typing import Any

from django.db import models

from audit.rules import GENESIS, Link


class AuditHead(models.Model):
    """The end of the chain. Every deciding transaction locks this one row first.

    Locked later, two deciding transactions deadlock; not locked, the chain forks.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    seq = models.BigIntegerField(default=0)
    hash = models.CharField(max_length=64, default=GENESIS)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="one_audit_head")]


class AuditEvent(models.Model):
    """One thing that was done or refused. Names are kept as text and outlive what they name."""

    seq = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField(db_index=True)
    actor = models.CharField(max_length=150, db_index=True)
    kind = models.CharField(max_length=64, db_index=True)
    object_type = models.CharField(max_length=64)
    object_id = models.CharField(max_length=100)
    object_name = models.CharField(max_length=200)
    reason = models.TextField(blank=True)
    body = models.TextField(help_text="The canonical text that the hash covers.")
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["-seq"]
        indexes = [models.Index(fields=["object_type", "object_id"])]

    def __str__(self) -> str:
        return f"event {self.seq}: {self.kind} {self.object_name}"

    def columns(self) -> dict[str, Any]:
        """The columns that repeat what the body says, in the body's own form."""
        return {
            "seq": self.seq,
            "at": self.at.isoformat(),
            "actor": self.actor,
            "kind": self.kind,
            "object_type": self.object_type,
            "object_id": self.object_id,
            "object_name": self.object_name,
            "reason": self.reason,
        }

    def as_link(self) -> Link:
        return Link(self.seq, self.previous_hash, self.hash, self.body, self.columns())
