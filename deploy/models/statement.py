"""Signed statements about bundles."""

import hashlib
from typing import ClassVar

from django.db import models

from training.models import Bundle, TrainingRun


class Statement(models.Model):
    """An in-toto statement, signed by the service, that a second training gave the same model. Append-only."""

    EVENT: ClassVar = "bundle.reproduced"

    bundle = models.OneToOneField(Bundle, on_delete=models.PROTECT, related_name="statement")
    run = models.ForeignKey(
        TrainingRun, on_delete=models.PROTECT, related_name="+", help_text="the second training"
    )
    body = models.TextField(help_text="the signed envelope (DSSE)")
    sha256 = models.CharField(max_length=64, help_text="of the body")
    audit_seq = models.BigIntegerField(help_text="its own event in the audit chain")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"statement about {self.bundle}"

    @property
    def is_intact(self) -> bool:
        """Whether the body is what was recorded."""
        return hashlib.sha256(self.body.encode()).hexdigest() == self.sha256
