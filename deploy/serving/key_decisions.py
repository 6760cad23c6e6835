"""The decisions about signing keys: create, activate, retire. In this order they are a rotation with overlap."""

from contextlib import AbstractContextManager

from accounts.decisions import decision
from accounts.roles import Actor, Role
from audit import services as audit
from common.errors import Conflict
from deploy.models import SigningKey
from deploy.rules import MOST_ACTIVE_KEYS
from deploy.serving import keys


def create_key(*, actor: Actor, reason: str) -> SigningKey:
    """A new key, which signs nothing until it is activated. Raises NotAllowed, InvalidInput, Unavailable (the folder)."""
    with _decision("create", SigningKey(), actor, reason) as reason:
        return keys.create(actor=actor, reason=reason)


def activate_key(key: SigningKey, *, actor: Actor, reason: str) -> SigningKey:
    """Let it sign, in addition to the active one: bots that pin either key can follow.

    Raises NotAllowed, InvalidInput, Conflict, and Unavailable where its private half is missing.
    """
    with _decision("activate", key, actor, reason) as reason, audit.locked():
        key = SigningKey.objects.get(pk=key.pk)
        if len(keys.list_active()) >= MOST_ACTIVE_KEYS:
            raise Conflict(f"{MOST_ACTIVE_KEYS} keys sign already: retire one of them first.")
        keys.activate(key, actor=actor, reason=reason)
    return key


def retire_key(key: SigningKey, *, actor: Actor, reason: str) -> SigningKey:
    """Retire a key for good: bots that pin only this key cannot follow any more. Its private half is deleted.

    Raises NotAllowed, InvalidInput, and Conflict for the only one that signs.
    """
    with _decision("retire", key, actor, reason) as reason, audit.locked():
        key = SigningKey.objects.get(pk=key.pk)
        if [active.pk for active in keys.list_active()] == [key.pk]:
            raise Conflict(
                "It is the only active key; without it bots cannot follow. Activate another first."
            )
        keys.retire(key, actor=actor, reason=reason)
    return key


def _decision(verb: str, key: SigningKey, actor: Actor, reason: str) -> AbstractContextManager[str]:
    to = f"{verb} a signing key"
    return decision(f"signingkey.{verb}", key, actor=actor, role=Role.APPROVER, to=to, reason=reason)
