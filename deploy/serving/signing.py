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
from securesystemslib.dsse import Envelope as Dsse

from audit.models import AuditEvent
from audit.rules import to_canonical_json
from common.errors import Unavailable
from deploy.models import PointerMove, Release, ReleaseCoin, SigningKey
from deploy.outcomes import list_release_coins
from deploy.pointer import pointer
from deploy.serving import keys, revision_log, snapshot
from deploy.serving.revision_log import Mark
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
    mark: Mark
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


def envelope(now: datetime | None = None) -> Envelope:
    """The signed snapshot of this moment.

    Raises Unavailable before the first pointer, without a key to sign with, and for a revision below the highest that was
    ever signed, or the same with another content: then the database was brought back from a backup.
    """
    global _last
    for _ in range(_ATTEMPTS):
        found = _signable(now or timezone.now())
        if _last is not None and _last[0] == found.identity and found.is_marked:
            return _last[1]
        if (payload := _payload(found)) is not None:
            _last = found.identity, _signed(found, payload)
            return _last[1]
    raise Unavailable("The pointer is moving. Ask again shortly.")


def find_problem() -> str | None:
    """Why bots get no signed snapshot now; None where they do, or where nothing was to be signed yet. Signs nothing."""
    now = pointer.current()
    if now is None or not keys.is_begun():
        return None
    try:
        _require_ahead(revision_log.of(snapshot.service_name()), _mark(now))
        for key in keys.active_or_refuse():
            keys.signer(key)
    except Unavailable as reason:
        return reason.message
    return None


def revisions_lacking() -> int:
    """By how much the revision must be advanced before it may be signed; 0 where nothing is in the way."""
    now = pointer.current()
    if now is None:
        return 0
    mark = revision_log.of(snapshot.service_name())
    return 0 if mark is None or _is_ahead(mark, _mark(now)) else mark.revision + 1 - now.revision


def _signable(now: datetime) -> _Signable:
    service = snapshot.service_name()
    # The mark before the pointer: what another process signed meanwhile is then never above what is read here.
    seen = revision_log.of(service)
    move = pointer.current()
    if move is None:
        raise Unavailable(snapshot.NO_POINTER)
    active = keys.active_or_refuse()
    mark = _mark(move)
    _require_ahead(seen, mark)
    return _Signable(
        service,
        move,
        mark,
        is_marked=seen == mark,
        following=pointer.announced(),
        fallback=pointer.pinnable(),
        keys=active,
        issued_at=_issued_at(move, now),
    )


def _payload(found: _Signable) -> bytes | None:
    """What is to be signed, once its revision is written down; None where another process wrote down a higher one."""
    if found.is_marked:
        return to_canonical_json(_document(found)).encode()
    # The disk takes its time, and every bot waits: what the document says is looked up meanwhile.
    with ThreadPoolExecutor(max_workers=1) as disk:
        marked = disk.submit(revision_log.raise_to, found.service, found.mark)
        payload = to_canonical_json(_document(found)).encode()
        return payload if marked.result() else None


def _mark(move: PointerMove) -> Mark:
    return Mark(move.revision, AuditEvent.objects.values_list("hash", flat=True).get(pk=move.audit_seq))


def _is_ahead(seen: Mark, mark: Mark) -> bool:
    return mark.revision > seen.revision or mark == seen


def _require_ahead(seen: Mark | None, mark: Mark) -> None:
    if seen is None or _is_ahead(seen, mark):
        return
    lacking = seen.revision + 1 - mark.revision
    found = "signed already" if mark.revision < seen.revision else "signed already with another content"
    raise Unavailable(
        f"Nothing is signed for the bots: revision {mark.revision} was {found} (the last was {seen.revision}), so the"
        " database is an older one, brought back from a backup. An approver runs"
        f" `manage.py advance_revision --by {lacking} --reason …`; bots keep what they have."
    )


def _issued_at(move: PointerMove, now: datetime) -> datetime:
    """The beginning of the minute, or the move where that is later: the same in every process."""
    minute = now.replace(second=0, microsecond=0)
    return max(minute, move.moved_at.replace(microsecond=0))


def _signed(found: _Signable, payload: bytes) -> Envelope:
    sealed = Dsse(payload, PAYLOAD_TYPE, {})
    for key in found.keys:
        sealed.sign(keys.signer(key))
    body = json.dumps(sealed.to_dict(), separators=(",", ":")).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    return Envelope(body, etag, found.move.revision, found.issued_at, found.issued_at + VALID_FOR)


def _document(found: _Signable) -> dict[str, Any]:
    """The plain snapshot, and what makes it proof: times, the end of the audit chain, every coin's diagnosis."""
    release, move = found.move.release, found.move
    release_coins = list_release_coins(release) if release else []
    document = snapshot.document(move, release_coins)
    for release_coin in release_coins:
        if release_coin.bundle is not None:
            document["models"][release_coin.coin.symbol]["diagnosis"] = _diagnosis(release_coin, move.policy)
    return {
        **document,
        "issued_at": _iso(found.issued_at),
        "expires_at": _iso(found.issued_at + VALID_FOR),
        "audit_head": _audit_head(move, found.issued_at),
        # Which coins the release is of, apart from what is announced for each: one left out by mistake shows.
        "coins": [release_coin.coin.symbol for release_coin in release_coins],
        "next": _announced(found.service, found.following),
        # Also while the bots run it: what a pin leads to is said in one place.
        "fallback": _announced(found.service, found.fallback),
    }


def _announced(service: str, release: Release | None) -> dict[str, Any] | None:
    return None if release is None else _of_the_release(service, release.pk)


@lru_cache(maxsize=16)
def _of_the_release(service: str, number: int) -> dict[str, Any]:
    """What is announced has settled, and never changes: a process looks it up once, and not while a move waits."""
    release = Release.objects.get(pk=number)
    release_coins = [
        release_coin for release_coin in list_release_coins(release) if release_coin.bundle is not None
    ]
    models = {
        release_coin.coin.symbol: snapshot.model(release_coin) | {"diagnosis": _diagnosis(release_coin)}
        for release_coin in release_coins
    }
    simulated = any(model["simulated"] for model in models.values())
    return {"release": release.pk, "line": release.line, "simulated": simulated, "models": models}


def _diagnosis(release_coin: ReleaseCoin, policy: GatePolicy | None = None) -> str | None:
    """The digest of the judgement that let this bundle through: under the move's policy, else of its own release."""
    of_the_move = Diagnosis.objects.filter(
        bundle=release_coin.bundle, dataset=release_coin.dataset, policy=policy
    ).first()
    found = (of_the_move if policy else None) or release_coin.diagnosis
    return found.digest if found else None


def _audit_head(move: PointerMove, issued_at: datetime) -> dict[str, Any]:
    """The end of the chain as it was when the minute began; never before the move's own event."""
    last = AuditEvent.objects.filter(at__lte=issued_at, seq__gte=move.audit_seq).order_by("-seq").first()
    head = last or AuditEvent.objects.get(pk=move.audit_seq)
    return {"seq": head.seq, "hash": head.hash}


def _iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
