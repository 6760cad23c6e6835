"""What bots are given: the snapshot in an envelope that says who signed it, when, and until when it holds.

A DSSE envelope (https://github.com/secure-systems-lab/dsse) with an Ed25519 signature by each active key. It is signed anew
every minute, so that an answer that something on the way keeps repeating shows. Every web process makes the same bytes.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from django.utils import timezone
from securesystemslib.dsse import Envelope as DsseEnvelope

from audit.models import AuditEvent
from audit.rules import to_canonical_json
from common.errors import Unavailable
from deploy.models import PointerMove, Release, ReleaseCoin, SigningKey
from deploy.outcomes import list_release_coins
from deploy.pointer import pointer
from deploy.serving import keys, revision_log, snapshot
from deploy.serving.revision_log import SignedRevision
from gates.models import Diagnosis, GatePolicy

PAYLOAD_TYPE = "application/vnd.crpbot.snapshot+json"
VALID_FOR = timedelta(minutes=3)
"""From `issued_at`: two renewals may be missed before a bot says *stale since*."""

_ATTEMPTS = 3


@dataclass(frozen=True)
class Envelope:
    """One signed snapshot, ready to send. The ETag is the digest of the body."""

    body: bytes
    etag: str
    revision: int
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class _Signable:
    """What the next envelope is to say, as the database has it."""

    service: str
    move: PointerMove
    mark: SignedRevision
    is_marked: bool
    following: Release | None
    fallback: Release | None
    keys: Sequence[SigningKey]
    issued_at: datetime

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for two that come to the same bytes. The hash binds the move and every event before it."""
        announced = [release and release.pk for release in (self.following, self.fallback)]
        return self.mark.content, *announced, tuple(key.key_id for key in self.keys), self.issued_at


_last: tuple[tuple[object, ...], Envelope] | None = None
"""This process's last envelope and what it was made of: asked for twice a second, it changes once a minute."""


def get_envelope(now: datetime | None = None) -> Envelope:
    """The signed snapshot of this moment.

    Raises Unavailable before the first pointer, without a key to sign with, and for a revision below the highest that was
    ever signed, or the same with another content: then the database was brought back from a backup.
    """
    global _last
    for _ in range(_ATTEMPTS):
        signable = _read_signable(now or timezone.now())
        if _last is not None and _last[0] == signable.identity and signable.is_marked:
            return _last[1]
        if (payload := _build_payload(signable)) is not None:
            _last = signable.identity, _sign(signable, payload)
            return _last[1]
    raise Unavailable("The pointer is moving. Ask again shortly.")


def find_problem() -> str | None:
    """Why bots get no signed snapshot now; None where they do, or where nothing was to be signed yet. Signs nothing."""
    now = pointer.get_current()
    if now is None or not keys.is_initialized():
        return None
    try:
        _require_ahead(revision_log.read_highest(snapshot.get_service_name()), _read_signed_revision(now))
        for key in keys.require_active():
            keys.load_signer(key)
    except Unavailable as reason:
        return reason.message
    return None


def count_missing_revisions() -> int:
    """By how much the revision must be advanced before it may be signed; 0 where nothing is in the way."""
    now = pointer.get_current()
    if now is None:
        return 0
    mark = revision_log.read_highest(snapshot.get_service_name())
    return (
        0 if mark is None or _is_ahead(mark, _read_signed_revision(now)) else mark.revision + 1 - now.revision
    )


def _read_signable(now: datetime) -> _Signable:
    service = snapshot.get_service_name()
    # The mark before the pointer: what another process signed meanwhile is then never above what is read here.
    seen = revision_log.read_highest(service)
    move = pointer.get_current()
    if move is None:
        raise Unavailable(snapshot.NO_POINTER)
    active = keys.require_active()
    mark = _read_signed_revision(move)
    _require_ahead(seen, mark)
    return _Signable(
        service,
        move,
        mark,
        is_marked=seen == mark,
        following=pointer.get_announced(),
        fallback=pointer.get_pinnable(),
        keys=active,
        issued_at=_compute_issued_at(move, now),
    )


def _build_payload(signable: _Signable) -> bytes | None:
    """What is to be signed, once its revision is written down; None where another process wrote down a higher one."""
    if signable.is_marked:
        return to_canonical_json(_build_document(signable)).encode()
    # The disk takes its time, and every bot waits: what the document says is looked up meanwhile.
    with ThreadPoolExecutor(max_workers=1) as disk:
        marked = disk.submit(revision_log.raise_to, signable.service, signable.mark)
        payload = to_canonical_json(_build_document(signable)).encode()
        return payload if marked.result() else None


def _read_signed_revision(move: PointerMove) -> SignedRevision:
    return SignedRevision(
        move.revision, AuditEvent.objects.values_list("hash", flat=True).get(pk=move.audit_seq)
    )


def _is_ahead(seen: SignedRevision, mark: SignedRevision) -> bool:
    return mark.revision > seen.revision or mark == seen


def _require_ahead(seen: SignedRevision | None, mark: SignedRevision) -> None:
    if seen is None or _is_ahead(seen, mark):
        return
    lacking = seen.revision + 1 - mark.revision
    signable = "signed already" if mark.revision < seen.revision else "signed already with another content"
    raise Unavailable(
        f"Nothing is signed for the bots: revision {mark.revision} was {signable} (the last was {seen.revision}), so the"
        " database is an older one, brought back from a backup. An approver runs"
        f" `manage.py advance_revision --by {lacking} --reason …`; bots keep what they have."
    )


def _compute_issued_at(move: PointerMove, now: datetime) -> datetime:
    """The beginning of the minute, or the move where that is later: the same in every process."""
    minute = now.replace(second=0, microsecond=0)
    return max(minute, move.moved_at.replace(microsecond=0))


def _sign(signable: _Signable, payload: bytes) -> Envelope:
    signed = DsseEnvelope(payload, PAYLOAD_TYPE, {})
    for key in signable.keys:
        signed.sign(keys.load_signer(key))
    body = json.dumps(signed.to_dict(), separators=(",", ":")).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    return Envelope(body, etag, signable.move.revision, signable.issued_at, signable.issued_at + VALID_FOR)


def _build_document(signable: _Signable) -> dict[str, Any]:
    """The plain snapshot, and what makes it proof: times, the end of the audit chain, every coin's diagnosis."""
    release, move = signable.move.release, signable.move
    release_coins = list_release_coins(release) if release else []
    document = snapshot.build_document(move, release_coins)
    for release_coin in release_coins:
        if release_coin.bundle is not None:
            document["models"][release_coin.coin.symbol]["diagnosis"] = _find_diagnosis_digest(
                release_coin, move.policy
            )
    return {
        **document,
        "issued_at": _format_utc(signable.issued_at),
        "expires_at": _format_utc(signable.issued_at + VALID_FOR),
        "audit_head": _read_audit_head(move, signable.issued_at),
        # Which coins the release is of, apart from what is announced for each: one left out by mistake shows.
        "coins": [release_coin.coin.symbol for release_coin in release_coins],
        "next": _describe_announced(signable.service, signable.following),
        # Also while the bots run it: what a pin leads to is said in one place.
        "fallback": _describe_announced(signable.service, signable.fallback),
    }


def _describe_announced(service: str, release: Release | None) -> dict[str, Any] | None:
    return None if release is None else _describe_release(service, release.pk)


@lru_cache(maxsize=16)
def _describe_release(service: str, number: int) -> dict[str, Any]:
    """What is announced has settled, and never changes: a process looks it up once, and not while a move waits."""
    release = Release.objects.get(pk=number)
    release_coins = [
        release_coin for release_coin in list_release_coins(release) if release_coin.bundle is not None
    ]
    models = {
        release_coin.coin.symbol: snapshot.describe_model(release_coin)
        | {"diagnosis": _find_diagnosis_digest(release_coin)}
        for release_coin in release_coins
    }
    simulated = any(model["simulated"] for model in models.values())
    return {"release": release.pk, "line": release.line, "simulated": simulated, "models": models}


def _find_diagnosis_digest(release_coin: ReleaseCoin, policy: GatePolicy | None = None) -> str | None:
    """The digest of the judgement that let this bundle through: under the move's policy, else of its own release."""
    of_the_move = Diagnosis.objects.filter(
        bundle=release_coin.bundle, dataset=release_coin.dataset, policy=policy
    ).first()
    signable = (of_the_move if policy else None) or release_coin.diagnosis
    return signable.digest if signable else None


def _read_audit_head(move: PointerMove, issued_at: datetime) -> dict[str, Any]:
    """The end of the chain as it was when the minute began; never before the move's own event."""
    last = AuditEvent.objects.filter(at__lte=issued_at, seq__gte=move.audit_seq).order_by("-seq").first()
    head = last or AuditEvent.objects.get(pk=move.audit_seq)
    return {"seq": head.seq, "hash": head.hash}


def _format_utc(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
