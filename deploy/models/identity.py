"""The name of this service."""

import uuid

from django.db import models


class ServiceIdentity(models.Model):
    """The name by which bots tell this service's revisions from another's. One row, made once."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    name = models.CharField(max_length=64)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="one_service_identity")]

    @classmethod
    def get_name(cls) -> str:
        """The name, which is made when it is first asked for."""
        identity, _ = cls.objects.get_or_create(pk=1, defaults={"name": f"crpbot-{uuid.uuid4()}"})
        return identity.name

    def __str__(self) -> str:
        return self.name
