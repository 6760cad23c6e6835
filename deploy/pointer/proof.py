"""Whether the audit chain shows that this service itself made a move. Asked before a revision is signed.

Database guards refuse most forgeries, and the owner of the database can take the guards away. The events of the audit
chain carry a code that only the service can make, so a forged move has no authentic event, or lacks those before it.
"""

import json
from collections.abc import Mapping, Sequence

from audit import services as audit
from audit.models import AuditEvent
from deploy.models import PointerMove
from deploy.rules import MoveKind, ReleaseState

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
    """What the audit chain does not show about this move and its release; None where it shows everything."""
    event = AuditEvent.objects.filter(pk=move.audit_seq).first()
    if event is None or not audit.is_authentic(event):
        return f"the audit event of revision {move.revision} was not written by this service"
    detail = json.loads(event.body)["detail"]
    bundles = move.release.digests if move.release else {}
    written = (event.object_type, event.object_id, detail.get("release"), detail.get("bundles"))
    if written != ("pointermove", str(move.revision), move.release_id, bundles) or move.kind not in _NEEDED:
        return f"revision {move.revision} differs from its audit event {event.seq}"
    for object_type, kind in _NEEDED[move.kind]:
        if not _has_event(object_type, move.release_id, kind, before=event.seq):
            return f"the audit chain has no event {kind} for release {move.release_id} before revision {move.revision}"
    return None


def _has_event(object_type: str, release_id: int | None, kind: str, *, before: int) -> bool:
    events = AuditEvent.objects.filter(
        object_type=object_type, object_id=str(release_id), kind=kind, seq__lt=before
    )
    return any(audit.is_authentic(event) for event in events)
