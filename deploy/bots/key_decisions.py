"""The decisions about signing keys: create, activate, retire. In this order they are a rotation with overlap.

Retiring a key that some bot still needs takes two people: one proposes it, another approves it. It is immediate, for a key
that was stolen.
"""

from contextlib import AbstractContextManager

from accounts.decisions import FirstPerson, decision
from accounts.roles import Actor, Role
from audit import services as audit
from common.errors import Conflict
from deploy.bots.key_trust import load_fleet_trust
from deploy.models import Bot, SigningKey
from deploy.rules import MOST_ACTIVE_KEYS, KeyState
from deploy.serving import keys

BOTS_NAMED = 3
_TO = {
    "propose_retirement": "propose to retire a signing key",
    "approve_retirement": "approve the retirement of a signing key",
}


def create_key(*, actor: Actor, reason: str) -> SigningKey:
    """A new key, which bots trust from then on, and which signs nothing until it is activated.

    Raises NotAllowed, InvalidInput, Unavailable (the folder), Conflict.
    """
    with _decision("create", SigningKey(), actor, reason) as reason:
        return keys.create(actor=actor, reason=reason)


def import_key(key_id: str, *, actor: Actor, reason: str) -> SigningKey:
    """Take a key back that was made after the backup that was restored, from the folder of the private halves.

    Raises NotAllowed, InvalidInput, NotFound, Conflict, Unavailable.
    """
    with _decision("import", SigningKey(), actor, reason) as reason:
        return keys.import_from_folder(key_id.strip().lower(), actor=actor, reason=reason)


def activate_key(key: SigningKey, *, actor: Actor, reason: str) -> SigningKey:
    """Let it sign, in addition to the active one: bots that trust either key can follow.

    Raises NotAllowed, InvalidInput, Conflict, and Unavailable where its private half is missing.
    """
    with _decision("activate", key, actor, reason) as reason:
        if key.state != KeyState.RETIRED:
            keys.load_signer(key)
        with audit.locked():
            key = SigningKey.objects.get(pk=key.pk)
            if len(keys.list_active()) >= MOST_ACTIVE_KEYS:
                raise Conflict(f"{MOST_ACTIVE_KEYS} keys sign already: retire one of them first.")
            keys.activate(key, actor=actor, reason=reason)
    return key


def retire_key(key: SigningKey, *, actor: Actor, reason: str) -> SigningKey:
    """Retire a key for good. Its private half is deleted, and bots that follow the next set of keys forget it.

    Raises NotAllowed, InvalidInput, and Conflict for the only one that signs or while some bot trusts no other.
    """
    with _decision("retire", key, actor, reason) as reason:
        signers = keys.load_signers()
        with audit.locked():
            key = _get_retirable(key)
            if cut_off := load_fleet_trust().list_cut_off(key):
                raise Conflict(
                    f"{_count(cut_off)} no other key that signs: without {key} they follow no move, not even a pin,"
                    " until they fetch the next set of keys. Wait until they have followed; or propose its retirement, and"
                    " have another approver approve it."
                )
            keys.retire(key, signers, actor=actor, reason=reason)
    return key


def propose_retirement(key: SigningKey, *, actor: Actor, reason: str) -> SigningKey:
    """Propose to retire a key although some bots need it, such as a stolen one. Nothing changes until another approves.

    Raises NotAllowed, InvalidInput, and Conflict for a key that cannot be retired.
    """
    with _decision("propose_retirement", key, actor, reason) as reason, audit.locked():
        key = _get_retirable(key)
        key.retirement_proposed_by, key.retirement_reason = actor.name, reason
        key.save(update_fields=["retirement_proposed_by", "retirement_reason"])
        detail = {"cut_off": len(load_fleet_trust().list_cut_off(key))}
        audit.record("signingkey.retirement_proposed", key, actor=actor, reason=reason, detail=detail)
    return key


def approve_retirement(key: SigningKey, *, actor: Actor, reason: str, cut_off: int) -> SigningKey:
    """Retire a key at once, as another approver has proposed. `cut_off` is how many bots the approver saw would be cut off.

    Raises NotAllowed for who proposed it, InvalidInput, and Conflict without a proposal or if more bots would be cut off.
    """
    first = FirstPerson(key.retirement_proposed_by, f"proposed to retire {key}")
    with _decision("approve_retirement", key, actor, reason, first) as reason:
        signers = keys.load_signers()
        with audit.locked():
            proposed_by = key.retirement_proposed_by
            key = _get_retirable(key)
            if not key.retirement_proposed_by or key.retirement_proposed_by != proposed_by:
                raise Conflict(
                    f"Nobody has proposed to retire {key}, or somebody else since. Look at it again."
                )
            bots = load_fleet_trust().list_cut_off(key)
            if len(bots) > cut_off:
                raise Conflict(
                    f"{_count(bots)} no other key that signs, more than the {cut_off} that you saw. Look at it again."
                )
            detail = {"proposed_by": proposed_by, "cut_off": [str(bot) for bot in bots]}
            keys.retire(key, signers, actor=actor, reason=reason, **detail)
    return key


def _get_retirable(key: SigningKey) -> SigningKey:
    """The row as it is now. Raises Conflict."""
    key = SigningKey.objects.get(pk=key.pk)
    if key.state == KeyState.RETIRED:
        raise Conflict(f"{key} is retired already.")
    if [active.pk for active in keys.list_active()] == [key.pk]:
        raise Conflict("It is the only active key; without it bots cannot follow. Activate another first.")
    return key


def _count(bots: list[Bot]) -> str:
    named = ", ".join(str(bot) for bot in bots[:BOTS_NAMED])
    more = f" and {len(bots) - BOTS_NAMED} more" if len(bots) > BOTS_NAMED else ""
    return f"{named}{more} trust{'s' if len(bots) == 1 else ''}"


def _decision(
    verb: str, key: SigningKey, actor: Actor, reason: str, first_person: FirstPerson | None = None
) -> AbstractContextManager[str]:
    return decision(
        f"signingkey.{verb}",
        key,
        actor=actor,
        role=Role.APPROVER,
        to=_TO.get(verb, f"{verb} a signing key"),
        reason=reason,
        first_person=first_person,
    )
