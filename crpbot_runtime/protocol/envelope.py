"""The signed envelope of a snapshot: who signed it, when, and until when it is valid. Bytes in, a verified value out.

DSSE with Ed25519, under the keys that the bot trusts. An attacker on the network can keep a bot from receiving snapshots,
but never make it run anything.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.dsse import Envelope

from crpbot_runtime.errors import EnvelopeRefused, SnapshotRefused
from crpbot_runtime.protocol.public_keys import PublicKeys, parse_sealed
from crpbot_runtime.protocol.snapshot import (
    MAX_BODY_BYTES,
    ModelSet,
    Snapshot,
    make_printable,
    parse_announced,
    parse_snapshot,
)

PAYLOAD_TYPE = "application/vnd.crpbot.snapshot+json"
MAX_ENVELOPE_BYTES = 2 * MAX_BODY_BYTES
"""The payload in base64, and a few signatures."""


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of the service's audit chain: the number of an event, and its hash, which binds every event before it."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class SignedSnapshot:
    """A snapshot and the other signed fields. `issued_at` and `expires_at` are by the service's clock, in UTC.

    `key_ids` names the trusted keys that signed it, and `key_version` the service's latest set of keys. Bots prefetch two
    releases: `next`, which awaits approval, and `fallback`, which a pin leads to.
    """

    snapshot: Snapshot
    issued_at: datetime
    expires_at: datetime
    audit_head: AuditHead
    key_ids: tuple[str, ...]
    key_version: int
    next: ModelSet | None
    fallback: ModelSet | None

    @property
    def announced(self) -> tuple[ModelSet, ...]:
        """The releases to prefetch: the fallback first, since a pin comes without warning."""
        return tuple(release for release in (self.fallback, self.next) if release is not None)


def verify_envelope(body: bytes, keys: PublicKeys) -> SignedSnapshot:
    """Parse an envelope that one of these keys signed. Raises EnvelopeRefused, and SnapshotRefused for its content."""
    sealed = _parse_envelope(body)
    signed = _build_signed_snapshot(sealed, keys.find_signers(sealed))
    if keys.service not in (None, signed.snapshot.service):
        raise EnvelopeRefused("it is of another service than the keys that this bot trusts")
    return signed


def parse_unverified(body: bytes) -> SignedSnapshot:
    """Parse an envelope without checking its signatures: for this client's own files, never to run anything from.

    `key_ids` are those that it claims. Raises EnvelopeRefused and SnapshotRefused.
    """
    sealed = _parse_envelope(body)
    return _build_signed_snapshot(sealed, tuple(sealed.signatures))


def _parse_envelope(body: bytes) -> Envelope:
    if len(body) > MAX_ENVELOPE_BYTES:
        raise EnvelopeRefused(
            f"{len(body):,} bytes are more than an envelope can have ({MAX_ENVELOPE_BYTES:,})"
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EnvelopeRefused(f"it is not a signed envelope: {type(error).__name__}: {error}") from error
    return parse_sealed(document, PAYLOAD_TYPE, "snapshot")


def _build_signed_snapshot(sealed: Envelope, key_ids: tuple[str, ...]) -> SignedSnapshot:
    document, snapshot = parse_snapshot(sealed.payload)
    _require_same_coins(document.get_texts("coins"), snapshot)
    head = document.get_object("audit_head")
    return SignedSnapshot(
        snapshot,
        issued_at=document.get_time("issued_at"),
        expires_at=document.get_time("expires_at"),
        audit_head=AuditHead(head.get("seq", int), head.get("hash", str)),
        key_ids=key_ids,
        key_version=document.get("key_version", int),
        next=parse_announced(document, "next"),
        fallback=parse_announced(document, "fallback"),
    )


def _require_same_coins(coins: Collection[str], snapshot: Snapshot) -> None:
    """The coins are listed twice: on their own, and with their models. Both lists must agree."""
    if missing := sorted(set(coins) - snapshot.models.keys()):
        raise SnapshotRefused(
            f"there is no model for {make_printable(', '.join(missing))}, a coin of the release"
        )
    if extra := sorted(snapshot.models.keys() - set(coins)):
        raise SnapshotRefused(f"there is a model for {', '.join(extra)}, not a coin of the release")
