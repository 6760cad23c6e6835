"""What a person decides about the keys that sign: create, activate, retire. Their order is a rotation with overlap."""

from django.db import transaction

from accounts.rules import Actor, Role
from audit import services as audit
from common.errors import Conflict
from common.reasons import required_reason
from deploy.models import SigningKey
from deploy.rules import MOST_ACTIVE_KEYS
from deploy.serving import keys


def create_key(*, actor: Actor, reason: str) -> SigningKey:
    """A new key, which signs nothing until it is activated. Raises NotAllowed, InvalidInput, Unavailable (the folder)."""
    with audit.refusals_recorded("signingkey.create", SigningKey(), actor=actor, reason=reason):
        actor.require(Role.APPROVER, "make a signing key")
        return keys.create(actor=actor, reason=required_reason(reason))


def activate_key(key: SigningKey, *, actor: Actor, reason: str) -> SigningKey:
    """Let it sign, beside the one that does: bots of either key can follow.

    Raises NotAllowed, InvalidInput, Conflict, and Unavailable where its private half is missing.
    """
    with audit.refusals_recorded("signingkey.activate", key, actor=actor, reason=reason):
        actor.require(Role.APPROVER, "activate a signing key")
        reason = required_reason(reason)
        with transaction.atomic():
            audit.lock_head()
            key = SigningKey.objects.get(pk=key.pk)
            if len(keys.active()) >= MOST_ACTIVE_KEYS:
                raise Conflict(f"{MOST_ACTIVE_KEYS} keys sign already: retire one of them first.")
            keys.activate(key, actor=actor, reason=reason)
    return key


def retire_key(key: SigningKey, *, actor: Actor, reason: str) -> SigningKey:
    """End a key for good: bots that trust it alone hear nothing any more. Its private half is deleted.

    Raises NotAllowed, InvalidInput, and Conflict for the only one that signs.
    """
    with audit.refusals_recorded("signingkey.retire", key, actor=actor, reason=reason):
        actor.require(Role.APPROVER, "retire a signing key")
        reason = required_reason(reason)
        with transaction.atomic():
            audit.lock_head()
            key = SigningKey.objects.get(pk=key.pk)
            if [one.pk for one in keys.active()] == [key.pk]:
                raise Conflict("It alone signs; without it bots would hear nothing. Activate another first.")
            keys.retire(key, actor=actor, reason=reason)
    return key
