from typing import Any

from django.db import models

from audit.hash_chain import GENESIS


class AuditHead(models.Model):
    """The end of the chain. Every decision locks this single row first.

    A lock taken later would deadlock two decisions; without a lock the chain would fork.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    seq = models.BigIntegerField(default=0)
    hash = models.CharField(max_length=64, default=GENESIS)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="one_audit_head")]


class AuditEvent(models.Model):
    """A decision or refusal. Names are stored as text and survive the deletion of their objects."""

    seq = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField(db_index=True)
    actor = models.CharField(max_length=150)
    kind = models.CharField(max_length=64)
    object_type = models.CharField(max_length=64)
    object_id = models.CharField(max_length=100)
    object_name = models.CharField(max_length=200)
    reason = models.TextField(blank=True)
    body = models.TextField(help_text="canonical JSON, covered by the hash")
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)
    mac = models.CharField(max_length=64, help_text="over the hash, with the service's secret key")

    class Meta:
        ordering = ["-seq"]
        indexes = [
            models.Index(fields=["object_type", "object_id"]),
            models.Index(fields=["object_id"]),
            # With the number, so that the newest of one kind or actor are found without sorting all of them.
            models.Index(fields=["kind", "seq"]),
            models.Index(fields=["actor", "seq"]),
        ]

    def __str__(self) -> str:
        return f"event {self.seq}: {self.kind} {self.object_name}"

    def build_columns(self) -> dict[str, Any]:
        """The columns that repeat the body, in the form of the body."""
        names = ("seq", "actor", "kind", "object_type", "object_id", "object_name", "reason")
        return {"at": self.at.isoformat(), **{name: getattr(self, name) for name in names}}
