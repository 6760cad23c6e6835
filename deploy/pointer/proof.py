"""Whether the audit chain shows that this service itself made a move. Asked before a revision is signed.

Database guards refuse most forgeries, and the owner of the database can take the guards away. The events of the audit
chain carry a code that only the service can make, so a forged move has no authentic event, or lacks those before it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from django.conf import settings
from django.db.models import QuerySet

from accounts.models import ApiToken, RoleGrant
from accounts.roles import Role, Scope
from audit import heads
from audit import services as audit
from audit.heads import KeptHead
from audit.models import AuditEvent
from common.errors import Unavailable
from deploy.models import PointerMove, Release, ServiceIdentity, Statement
from deploy.rules import MoveKind, ReleaseState
from gates.models import Diagnosis
from mlcore.verdict import Verdict

REMEDY = (
    "Nobody may trust it: compare the database with its last backup, and run `manage.py verify_audit`. Where only"
    " CRPBOT_SECRET_KEY was replaced, name the earlier one in CRPBOT_SECRET_KEY_FALLBACKS."
)

_NEEDED: Mapping[str, Sequence[tuple[str, str]]] = {
    MoveKind.INHERITED: [("releasestatus", f"releasestatus.{ReleaseState.LIVE}")],
    MoveKind.SWAP: [
        ("releasestatus", f"releasestatus.{ReleaseState.AWAITING_APPROVAL}"),
        ("releasestatus", f"releasestatus.{ReleaseState.LIVE}"),
    ],
    MoveKind.PIN: [("release", "fallback.registered")],
    MoveKind.OFFLINE: [],
}
"""By the kind of a move, the events that must precede it: the type of their object, the release, and their kind."""


def find_forgery(move: PointerMove) -> str | None:
    """What the audit chain does not show about this move and its release; None where it shows everything.

    Bots wait for it after each move, so it asks few queries.
    """
    event, service = move.audit_event, ServiceIdentity.get_name()
    if event is None or not audit.is_authentic(event):
        return f"the audit event of revision {move.revision} was not written by this service"
    detail = json.loads(event.body)["detail"]
    bundles = move.release.digests if move.release else {}
    policy = move.policy.number if move.policy else None
    kind = "pointer.advanced" if move.is_advance else f"pointer.{move.kind}"
    written: tuple[object, ...] = (event.kind, event.object_type, event.object_id, event.actor, event.reason)
    written += tuple(detail.get(key) for key in ("service", "release", "bundles", "policy"))
    expected: tuple[object, ...] = (kind, "pointermove", str(move.revision), move.moved_by, move.reason)
    expected += (service, move.release_id, bundles, policy)
    if written != expected or move.kind not in _NEEDED:
        return f"revision {move.revision} differs from its audit event {event.seq}"
    if absent := _find_missing_event(move, before=event.seq):
        return f"the audit chain has no event {absent} for release {move.release_id} before revision {move.revision}"
    if move.kind == MoveKind.SWAP and move.release and (coin := _find_unproven_coin(move, move.release)):
        return f"the audit chain does not show that {coin} of revision {move.revision} passed its policy"
    signed = Statement.objects.filter(bundle__release_coins__release=move.release_id, audit_seq__lt=event.seq)
    if (forged := find_forged_statement(signed.select_related("bundle__coin"))) is not None:
        return f"the audit chain does not show that this service wrote the {forged}"
    if name := _find_forged_approver():
        return f"the audit chain does not show that {name} was given the approver role or an approver's token"
    if lost := find_lost_head(service):
        return (
            f"the audit chain was cut short or rewritten: it does not hold event {lost.seq} as it was kept in"
            f" {settings.AUDIT_HEADS_FILE}. Where a backup was restored, an approver runs"
            " `manage.py advance_revision --by N --reason …`"
        )
    return None


def find_forged_statement(statements: Iterable[Statement]) -> Statement | None:
    """One whose body was changed, or that no authentic event of its bundle names."""
    by_seq = {statement.audit_seq: statement for statement in statements}
    events = {event.seq: event for event in AuditEvent.objects.filter(seq__in=by_seq)} if by_seq else {}
    forged = (one for seq, one in by_seq.items() if not _is_of_event(one, events.get(seq)))
    return next(forged, None)


def _is_of_event(statement: Statement, event: AuditEvent | None) -> bool:
    if event is None or not statement.is_intact or not audit.is_authentic(event):
        return False
    written = (event.kind, event.object_type, event.object_id)
    expected = (Statement.EVENT, "bundle", str(statement.bundle_id))
    return written == expected and json.loads(event.body)["detail"].get("statement") == statement.sha256


def _find_unproven_coin(move: PointerMove, release: Release) -> str | None:
    """A coin of the release that did not pass the move's policy, by its diagnosis and that one's authentic event."""
    release_coins = list(release.coins.all())
    bundles = [row.bundle_id for row in release_coins]
    rows = Diagnosis.objects.filter(bundle__in=bundles, policy=move.policy_id).order_by("id")
    judged: dict[tuple[int | None, int], Diagnosis] = {
        (row.bundle_id, row.dataset_id): row for row in rows.prefetch_related("results")
    }
    recorded = _list_events("diagnosis", [row.pk for row in judged.values()], f"diagnosis.{Verdict.PASSED}")
    events = {event.object_id: event for event in recorded.order_by("-seq")}
    for release_coin in release_coins:
        diagnosis = judged.get((release_coin.bundle_id, release_coin.dataset_id))
        if diagnosis is None or diagnosis.verdict != Verdict.PASSED:
            return release_coin.coin.symbol
        event = events.get(str(diagnosis.pk))
        if event is None or not audit.is_authentic(event):
            return release_coin.coin.symbol
        gates = {result.gate: result.verdict for result in diagnosis.results.all()}
        detail = json.loads(event.body)["detail"]
        if (detail.get("digest"), detail.get("gates")) != (diagnosis.digest, gates):
            return release_coin.coin.symbol
    return None


def _find_forged_approver() -> str | None:
    """Somebody whose approver role or token no authentic event gave: what they approve would have an authentic event."""
    holders = dict(RoleGrant.objects.filter(role=Role.APPROVER).values_list("user_id", "user__username"))
    granted = {
        event.object_id: event.kind == "role.granted"
        for event in _list_events("user", holders, "role.granted", "role.withdrawn").order_by("seq")
        if audit.is_authentic(event) and json.loads(event.body)["detail"].get("role") == Role.APPROVER
    }
    tokens = ApiToken.objects.filter(scope=Scope.APPROVER, revoked_at=None).select_related("user")
    owned = {(str(token.pk), token.digest, token.user.username): token.user.username for token in tokens}
    for event in _list_events("apitoken", [token.pk for token in tokens], "token.issued"):
        detail = json.loads(event.body)["detail"]
        if audit.is_authentic(event) and detail.get("scope") == Scope.APPROVER:
            owned.pop((event.object_id, detail.get("digest"), detail.get("user")), None)
    forged = [name for pk, name in holders.items() if not granted.get(str(pk))]
    return next(iter([*forged, *owned.values()]), None)


def _list_events(object_type: str, keys: Iterable[int], *kinds: str) -> QuerySet[AuditEvent]:
    return AuditEvent.objects.filter(
        object_type=object_type, object_id__in=[str(key) for key in keys], kind__in=kinds
    )


def find_lost_head(service: str) -> KeptHead | None:
    """The head that was kept last, where the chain does not hold it and no approver has stated its loss."""
    try:
        last = heads.read_last(service)
    except OSError as error:
        raise Unavailable(
            f"Nothing is signed: {settings.AUDIT_HEADS_FILE} cannot be read ({error})."
        ) from error
    if last is None or heads.is_held(last):
        return None
    accepted = {"seq": last.seq, "hash": last.hash}
    advances = AuditEvent.objects.filter(kind="pointer.advanced").order_by("-seq")
    for event in advances.iterator(chunk_size=20):
        if audit.is_authentic(event) and json.loads(event.body)["detail"].get(audit.LOST_HEAD) == accepted:
            return None
    return last


def _find_missing_event(move: PointerMove, *, before: int) -> str | None:
    """The kind of an event that must precede this move and that no authentic one shows."""
    needed = _NEEDED[move.kind]
    if not needed:
        return None
    events = AuditEvent.objects.filter(
        object_type__in={object_type for object_type, _ in needed},
        object_id=str(move.release_id),
        kind__in=[kind for _, kind in needed],
        seq__lt=before,
    )
    found = {(event.object_type, event.kind) for event in events if audit.is_authentic(event)}
    return next((kind for object_type, kind in needed if (object_type, kind) not in found), None)
