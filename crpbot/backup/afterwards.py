"""What a restore does with the time since the backup: what was closed stays closed, what was rolled back stays rolled back.

It runs in the transaction of the restore. What it cannot decide is listed for a person.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.utils import timezone

from accounts import services as accounts
from accounts.models import ApiToken, User
from accounts.roles import Role
from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict
from crpbot.backup.journal import Since
from deploy.models import ReleaseStatus, SigningKey
from deploy.pointer import pointer
from deploy.pointer.fallback import check_fallback
from deploy.pointer.pin import pin_in_transaction
from deploy.rules import KeyState, ReleaseState

ACTOR = "manage.py backup"
REASON = "closed since the backup that was restored"


@dataclass
class Afterwards:
    """What was carried out, and what a person has to decide, each in a sentence."""

    done: list[str] = field(default_factory=list)
    to_decide: list[str] = field(default_factory=list)


def carry_over(since: Since) -> Afterwards:
    """Close, revoke and roll back what the journal says was. The caller is in the transaction of the restore."""
    found = Afterwards(
        to_decide=[f"{since.gap} Check every account, token and release."] if since.gap else []
    )
    _close_accounts(since.events, found)
    _withdraw_roles(since.events, found)
    _revoke_tokens(since.events, found)
    _roll_back(since.events, found)
    found.to_decide += [*_list_changed_credentials(since.events), *_list_keys(since.events)]
    return found


def _close_accounts(events: Sequence[AuditEvent], found: Afterwards) -> None:
    for event in _find_last(events, "user.closed").values():
        user = _find_user(event)
        if user is not None and user.is_active:
            _try(partial(accounts.close_account, user, actor=ACTOR), f"account {user} closed", found)


def _withdraw_roles(events: Sequence[AuditEvent], found: Afterwards) -> None:
    last: dict[tuple[str, str], AuditEvent] = {}
    for event in events:
        if event.kind in ("role.granted", "role.withdrawn"):
            last[event.object_id, _get_detail(event).get("role", "")] = event
    for (_, role), event in last.items():
        user = _find_user(event)
        if event.kind == "role.withdrawn" and user is not None and user.grants.filter(role=role).exists():
            withdraw = partial(accounts.withdraw, user, Role(role), actor=ACTOR)
            _try(withdraw, f"role {role} of {user} withdrawn", found)


def _find_user(event: AuditEvent) -> User | None:
    """The account of an event, where the restored database has it: a later one may have its number."""
    return User.objects.filter(pk=int(event.object_id), username=event.object_name).first()


def _revoke_tokens(events: Sequence[AuditEvent], found: Afterwards) -> None:
    for event in _find_last(events, "token.revoked").values():
        token = (
            ApiToken.objects.filter(pk=int(event.object_id), revoked_at=None).select_related("user").first()
        )
        if token is not None and str(token)[:200] == event.object_name:
            accounts.revoke_token(token, actor=ACTOR, reason=REASON)
            found.done.append(f"token {token.pk} revoked: {token}")


def _roll_back(events: Sequence[AuditEvent], found: Afterwards) -> None:
    """Only what ended as rolled back: a release that an approver restored afterwards was wanted again."""
    prefix = "releasestatus."
    for pk, event in _find_last(events, prefix).items():
        status = ReleaseStatus.objects.filter(release=int(pk)).select_related("release").first()
        if (
            event.kind != f"{prefix}{ReleaseState.ROLLED_BACK}"
            or status is None
            or str(status) != event.object_name
        ):
            continue
        reason = f"{status.release} was rolled back since the backup that was restored: {event.reason}"
        move = pointer.get_current()
        if status.state == ReleaseState.LIVE and move is not None and move.release_id == status.pk:
            pin_in_transaction(reason, actor=ACTOR, readiness=check_fallback())
            found.done.append(f"the pointer leaves it: {reason}")
        elif status.state == ReleaseState.AWAITING_APPROVAL:
            audit.transition(
                status, ReleaseState.DECLINED, actor=ACTOR, reason=reason, settled_at=timezone.now()
            )
            found.done.append(f"declined: {reason}")
        elif status.state != ReleaseState.ROLLED_BACK:
            found.to_decide.append(f"{reason}. Here it is {status.state}: do not use it again.")


def _list_changed_credentials(events: Sequence[AuditEvent]) -> Iterator[str]:
    said = {
        "user.password_set": "a new password: the one from before is valid again. Set another",
        "user.factor_removed": "a second factor removed: it counts again",
        "user.factors_removed": "all second factors removed: they count again",
        "user.linked": "linked with another account of the same person: link it again",
    }
    for kind, sentence in said.items():
        for event in _find_last(events, kind).values():
            user = _find_user(event)
            if user is not None and user.is_active:
                yield f"{event.object_name} had since {sentence}."


def _list_keys(events: Sequence[AuditEvent]) -> Iterator[str]:
    created = _find_last(events, "signingkey.created")
    retired = {event.object_name for event in _find_last(events, "signingkey.retired").values()}
    for event in created.values():
        key_id = str(_get_detail(event).get("key_id", ""))
        if event.object_name not in retired and not SigningKey.objects.filter(key_id=key_id).exists():
            yield (
                f"The {event.object_name} was made since. Bots may trust no other: import it with `manage.py keys import"
                f" {key_id[:12]} --reason …`, and activate it."
            )
    for key in SigningKey.objects.exclude(state=KeyState.RETIRED):
        if str(key) in retired:
            yield f"The {key} was retired since: retire it again."


def _find_last(events: Sequence[AuditEvent], kind: str) -> Mapping[str, AuditEvent]:
    """The last event of each object, of the kinds that begin so."""
    return {event.object_id: event for event in events if event.kind.startswith(kind)}


def _get_detail(event: AuditEvent) -> Mapping[str, Any]:
    detail: Mapping[str, Any] = json.loads(event.body)["detail"]
    return detail


def _try(act: Callable[[], Any], sentence: str, found: Afterwards) -> None:
    try:
        act()
    except Conflict as refusal:  # the last administrator stays
        found.to_decide.append(f"{sentence}, since the backup, and not here: {refusal.message}")
    else:
        found.done.append(sentence)
