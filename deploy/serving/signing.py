"""The signed snapshot: an envelope that states who signed it, when, and until when it is valid.

A DSSE envelope (https://github.com/secure-systems-lab/dsse) with an Ed25519 signature by each active key. It is signed again
every minute, so that a bot detects a replayed answer. Every web process makes the same bytes.
"""

import base64
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from django.db.models import Prefetch, prefetch_related_objects
from django.utils import timezone
from securesystemslib.dsse import Envelope

from audit import heads, triggers
from audit.hash_chain import to_canonical_json
from audit.heads import KeptHead
from audit.models import AuditEvent
from common.errors import Unavailable
from deploy.models import PointerMove, Release, ReleaseCoin, SigningKey
from deploy.pointer import pointer, proof
from deploy.serving import key_sets, keys, revision_log, snapshot
from deploy.serving.revision_log import SignedRevision
from deploy.serving.snapshot import Snapshot
from gates.models import Diagnosis, GatePolicy

PAYLOAD_TYPE = "application/vnd.crpbot.snapshot+json"
VALID_FOR = timedelta(minutes=3)
"""From `issued_at`: a bot may miss two renewals before it reports *stale since*."""

_ATTEMPTS = 3
_ONLY_SIGNED = ("issued_at", "expires_at", "audit_head", "key_version", "coins", "next", "fallback")
"""What the signed snapshot says beyond the plain one, apart from each model's diagnosis."""


@dataclass(frozen=True)
class _Signable:
    """The content of the next envelope, as read from the database."""

    service: str
    move: PointerMove
    revision: SignedRevision
    is_logged: bool
    following: Release | None
    fallback: Release | None
    keys: Sequence[SigningKey]
    key_version: int
    issued_at: datetime

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for two that make the same bytes. The hash binds the move and every event before it."""
        announced = [release and release.pk for release in (self.following, self.fallback)]
        key_ids = tuple(key.key_id for key in self.keys)
        return self.revision.content, *announced, key_ids, self.key_version, self.issued_at


_last: tuple[tuple[object, ...], Snapshot] | None = None
"""This process's last envelope and its identity. It is read twice a second and changes once a minute."""


def get_envelope(now: datetime | None = None) -> Snapshot:
    """The signed snapshot of this moment.

    Raises Unavailable before the first pointer, without a key to sign with, and for a revision that is below the highest
    signed one or repeats it with other content: then the database was restored from a backup (rule 21).
    """
    global _last
    for _ in range(_ATTEMPTS):
        signable = _read_signable(now or timezone.now())
        if _last is not None and _last[0] == signable.identity and signable.is_logged:
            return _last[1]
        if (payload := _build_payload(signable)) is not None:
            _last = signable.identity, _sign(signable, payload)
            return _last[1]
    raise Unavailable("The pointer is moving. Ask again shortly.")


@lru_cache(maxsize=1)
def _extract_payload(envelope: Snapshot) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(base64.b64decode(json.loads(envelope.body)["payload"]))
    return payload


def extract_key_version(envelope: Snapshot) -> int:
    """The version of the key set that an envelope of this process tells bots of."""
    return int(_extract_payload(envelope)["key_version"])


@lru_cache(maxsize=1)
def extract_document(envelope: Snapshot) -> Snapshot:
    """The plain snapshot that an envelope of this process is about, byte for byte, and valid as long as the envelope.

    Kept for the last envelope: many bots ask for it while the database is away.
    """
    payload = _extract_payload(envelope)
    document = {name: value for name, value in payload.items() if name not in _ONLY_SIGNED}
    document["models"] = {
        coin: {name: value for name, value in model.items() if name != "diagnosis"}
        for coin, model in document["models"].items()
    }
    return Snapshot(envelope.revision, snapshot.to_json(document), envelope.expires_at)


def find_problem(move: PointerMove | None = None) -> str | None:
    """Why bots get no signed snapshot now; None where they do, or where there is nothing to sign yet. Signs nothing.

    A caller that has read the pointer passes it.
    """
    move = move or pointer.get_current()
    if move is None or not keys.is_initialized():
        return None
    try:
        _require_ahead(revision_log.read_highest(snapshot.get_service_name()), _read_signed_revision(move))
        for key in keys.require_active():
            keys.load_signer(key)
        _require_proof(move)
    except Unavailable as reason:
        return reason.message
    return None


def find_log_problem() -> str | None:
    """Why the next revision could not be logged, and so not be signed; None where it could. Writes a file to find out."""
    return revision_log.find_problem() if keys.is_initialized() else None


def read_highest() -> SignedRevision | None:
    """The highest revision that was signed. From the disk: not under the lock of the audit head."""
    return revision_log.read_highest(snapshot.get_service_name())


def count_missing_revisions(highest: SignedRevision | None) -> int:
    """By how much the revision must be advanced before it may be signed; 0 where it may be signed already."""
    move = pointer.get_current()
    return 0 if move is None else _count_missing(highest, _read_signed_revision(move))


def _read_signable(now: datetime) -> _Signable:
    service = snapshot.get_service_name()
    # The log is read before the pointer, so that a revision signed meanwhile by another process is never above it.
    highest = revision_log.read_highest(service)
    move = pointer.get_current()
    if move is None:
        raise Unavailable(snapshot.NO_POINTER)
    active = keys.require_active()
    revision = _read_signed_revision(move)
    _require_ahead(highest, revision)
    return _Signable(
        service,
        move,
        revision,
        is_logged=highest == revision,
        following=pointer.get_announced(),
        fallback=pointer.get_pinnable(),
        keys=active,
        key_version=key_sets.get_version(),
        # The beginning of the minute, or the move where that is later: the same in every process.
        issued_at=max(now.replace(second=0, microsecond=0), move.moved_at.replace(microsecond=0)),
    )


def _build_payload(signable: _Signable) -> bytes | None:
    """The bytes to sign, once their revision is logged; None where another process logged a higher one.

    Raises Unavailable where the audit chain does not show that this service made the move.
    """
    _require_proof(signable.move)
    if signable.is_logged:
        document = _build_document(signable)
        # Not at a move, which every bot waits for: the revision log binds every event before it.
        heads.keep(KeptHead(signable.service, **document["audit_head"]))
        return to_canonical_json(document).encode()
    # Writing to the disk is slow and every bot waits, so the document is built meanwhile.
    with ThreadPoolExecutor(max_workers=1) as disk:
        logged = disk.submit(revision_log.raise_to, signable.service, signable.revision)
        payload = to_canonical_json(_build_document(signable)).encode()
        return payload if logged.result() else None


def _require_proof(move: PointerMove) -> None:
    if move.release:
        _list_release_coins(move.release)  # those that are proved are those that are signed
    if forgery := proof.find_forgery(move):
        raise Unavailable(f"Nothing is signed for the bots: {forgery}. {proof.REMEDY}")
    if missing := triggers.find_missing():
        raise Unavailable(
            f"Nothing is signed for the bots while database guards are missing or altered ({missing[0]}, …)."
            " Run `manage.py migrate`, which installs them, and `manage.py verify_audit`."
        )


def _read_signed_revision(move: PointerMove) -> SignedRevision:
    # Without its event, the proof refuses it.
    return SignedRevision(move.revision, move.audit_event.hash if move.audit_event else "")


def _count_missing(highest: SignedRevision | None, revision: SignedRevision) -> int:
    if highest is None or revision.number > highest.number or revision == highest:
        return 0
    return highest.number + 1 - revision.number


def _require_ahead(highest: SignedRevision | None, revision: SignedRevision) -> None:
    missing = _count_missing(highest, revision)
    if highest is None or not missing:
        return
    state = "signed already" if revision.number < highest.number else "signed already with another content"
    raise Unavailable(
        f"Nothing is signed for the bots: revision {revision.number} was {state} (the last was {highest.number}), so the"
        " database was restored from an older backup. An approver runs"
        f" `manage.py advance_revision --by {missing} --reason …`; bots keep what they have."
    )


def _sign(signable: _Signable, payload: bytes) -> Snapshot:
    signed = Envelope(payload, PAYLOAD_TYPE, {})
    for key in signable.keys:
        signed.sign(keys.load_signer(key))
    body = json.dumps(signed.to_dict(), separators=(",", ":")).encode()
    return Snapshot(signable.move.revision, body, signable.issued_at + VALID_FOR)


def _build_document(signable: _Signable) -> dict[str, Any]:
    """The plain snapshot, with its times, the end of the audit chain and every coin's diagnosis."""
    move, following, fallback = signable.move, signable.following, signable.fallback
    release_coins = _list_release_coins(move.release) if move.release else []
    document = snapshot.build_document(move, release_coins, service=signable.service)
    judged = _list_diagnosis_digests(release_coins, move.policy)
    for release_coin in release_coins:
        if release_coin.bundle is not None:
            document["models"][release_coin.coin.symbol]["diagnosis"] = judged[release_coin.pk]
    return {
        **document,
        "issued_at": _format_utc(signable.issued_at),
        "expires_at": _format_utc(signable.issued_at + VALID_FOR),
        "audit_head": _read_audit_head(move, signable.issued_at),
        # A bot that trusts an older set of keys asks for the newer ones.
        "key_version": signable.key_version,
        # The coins of the release, listed apart from their models, so that a missing model is detected.
        "coins": [release_coin.coin.symbol for release_coin in release_coins],
        "next": following and _describe_release(signable.service, following.pk),
        # Also while the bots run it, so that a bot always finds the fallback in one place.
        "fallback": fallback and _describe_release(signable.service, fallback.pk),
    }


@lru_cache(maxsize=16)
def _describe_release(service: str, number: int) -> dict[str, Any]:
    """An announced release has settled and never changes, so a process reads it once, not while a move waits."""
    release = Release.objects.get(pk=number)
    release_coins = _list_release_coins(release)
    judged = _list_diagnosis_digests(release_coins)
    models = {
        release_coin.coin.symbol: snapshot.describe_model(release_coin)
        | {"diagnosis": judged[release_coin.pk]}
        for release_coin in release_coins
        if release_coin.bundle is not None
    }
    simulated = any(model["simulated"] for model in models.values())
    return {
        "release": release.pk,
        "line": release.line,
        "interval_seconds": release.interval_seconds,
        "simulated": simulated,
        "models": models,
    }


def _list_release_coins(release: Release) -> list[ReleaseCoin]:
    """The coins with what a snapshot says of them: not the gates, which a move would wait for. Read once for a release."""
    rows = ReleaseCoin.objects.select_related("coin", "dataset", "bundle__dataset", "diagnosis")
    prefetch_related_objects([release], Prefetch("coins", rows.prefetch_related("bundle__artifacts")))
    return list(release.coins.all())


def _list_diagnosis_digests(
    release_coins: Sequence[ReleaseCoin], policy: GatePolicy | None = None
) -> dict[int, str | None]:
    """By row, the digest of the diagnosis that passed its bundle: under the move's policy, else of its own release."""
    digests = {row.pk: row.diagnosis.digest if row.diagnosis else None for row in release_coins}
    if policy is not None:
        rows = Diagnosis.objects.filter(policy=policy, bundle__in=[row.bundle_id for row in release_coins])
        for bundle, dataset, digest in rows.order_by("id").values_list("bundle", "dataset", "digest"):
            digests |= {
                row.pk: digest
                for row in release_coins
                if (row.bundle_id, row.dataset_id) == (bundle, dataset)
            }
    return digests


def _read_audit_head(move: PointerMove, issued_at: datetime) -> dict[str, Any]:
    """The end of the chain when the minute began; never before the move's own event."""
    last = AuditEvent.objects.filter(at__lte=issued_at, seq__gte=move.audit_seq).order_by("-seq").first()
    head = last or move.audit_event
    assert head is not None  # the move was proved by it
    return {"seq": head.seq, "hash": head.hash}


def _format_utc(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
