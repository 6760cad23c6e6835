"""The keys that sign snapshots."""

from typing import ClassVar

from django.db import models

from deploy.rules import KEY_TRANSITIONS, KeyState


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
