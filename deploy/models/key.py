"""The keys that sign snapshots, and the sets of them that bots trust."""

from typing import ClassVar

from django.db import models

from common.reasons import REASON_LIMIT
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
    retirement_proposed_by = models.CharField(max_length=150, blank=True)
    retirement_reason = models.CharField(max_length=REASON_LIMIT, blank=True)
    activated_at = models.DateTimeField(null=True, blank=True)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"signing key {self.key_id[:12]}"


class KeySet(models.Model):
    """The keys that bots trust from one change on, signed by keys of the set before. Append-only."""

    version = models.PositiveIntegerField(primary_key=True)
    key_ids = models.JSONField()
    body = models.TextField(help_text="the signed envelope")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-version"]

    def __str__(self) -> str:
        return f"set {self.version} of the signing keys"
