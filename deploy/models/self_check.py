"""What the service last found about itself, so that every process can report it."""

from django.db import models


class ReconcilePass(models.Model):
    """When reconcile last completed a pass. One row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    completed_at = models.DateTimeField(help_text="by the database's clock")

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="one_reconcile_pass")]

    def __str__(self) -> str:
        return f"reconcile pass of {self.completed_at}"


class StoredFile(models.Model):
    """One file of the live release or of the fallback, as reconcile last read it from the store."""

    sha256 = models.CharField(primary_key=True, max_length=64)
    is_intact = models.BooleanField()
    read_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"stored file {self.sha256}"
