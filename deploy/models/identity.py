"""The name of this service."""

from django.db import models


class ServiceIdentity(models.Model):
    """The name by which bots tell this service's revisions from another's. One row, made once."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    name = models.CharField(max_length=64)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="one_service_identity")]

    def __str__(self) -> str:
        return self.name
