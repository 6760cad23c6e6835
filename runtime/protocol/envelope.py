"""The signed envelope of a snapshot: who signed it, when, and until when it is valid. Bytes in, a verified value out.

DSSE with Ed25519, under keys that the bot was given by hand. An attacker on the network can keep a bot from receiving
snapshots, but never make it run anything.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError
from securesystemslib.signer import SSlibKey

from runtime.errors import EnvelopeRefused, Misconfigured, SnapshotRefused
from runtime.protocol.snapshot import (
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

_SHOWN = 12


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of the service's audit chain: the number of an event, and its hash, which binds every event before it."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class SignedSnapshot:
    """A snapshot and the other signed fields. `issued_at` and `expires_at` are by the service's clock, in UTC.

    `key_id` names the pinned key that signed it. Bots prefetch two releases: `next`, which awaits approval, and `fallback`,
    which a pin leads to.
    """

    snapshot: Snapshot
    issued_at: datetime
    expires_at: datetime
    audit_head: AuditHead
    key_id: str
    next: ModelSet | None
    fallback: ModelSet | None

    @property
    def announced(self) -> tuple[ModelSet, ...]:
        """The releases to prefetch: the fallback first, since a pin comes without warning."""
        return tuple(release for release in (self.fallback, self.next) if release is not None)


class PublicKeys:
    """The keys a bot trusts, ready to verify with: one, or two while the service changes its key."""

    def __init__(self, texts: str | Iterable[str]) -> None:
        """Keys of 64 hex digits each, in one text separated by commas or as several. Raises Misconfigured."""
        separate = [texts] if isinstance(texts, str) else list(texts)
        words = [word.strip().lower() for text in separate for word in text.split(",") if word.strip()]
        if not words:
            raise Misconfigured(
                "there is no public key: a bot follows only what its service signed. `manage.py keys export` prints it"
                " (set CRPBOT_PUBLIC_KEY)"
            )
        self._keys = dict(_parse_key(word) for word in words)

    def __repr__(self) -> str:
        return f"PublicKeys({', '.join(key_id[:_SHOWN] for key_id in self._keys)})"

    def find_signer(self, sealed: Envelope) -> str:
        """Verify it; returns the id of the pinned key that signed it. Raises EnvelopeRefused."""
        signatures = {
            key_id: signature for key_id, signature in sealed.signatures.items() if key_id in self._keys
        }
        if not signatures:
            others = ", ".join(key_id[:_SHOWN] for key_id in sealed.signatures) or "nobody"
            raise EnvelopeRefused(
                f"it is signed by {make_printable(others)}, and this bot trusts"
                f" {', '.join(key_id[:_SHOWN] for key_id in self._keys)}: "
                "another service, or a key that was changed (give the bot the new public key)"
            )
        content = sealed.pae()
        for key_id, signature in signatures.items():
            try:
                self._keys[key_id].verify(bytes.fromhex(signature.signature), content)
                return key_id
            except (InvalidSignature, ValueError):
                continue
        raise EnvelopeRefused("its signature is invalid: it was changed on the way, or forged")


def verify_envelope(body: bytes, keys: PublicKeys) -> SignedSnapshot:
    """Parse an envelope that one of these keys signed. Raises EnvelopeRefused, and SnapshotRefused for its content."""
    sealed = _parse_envelope(body)
    return _build_signed_snapshot(sealed, keys.find_signer(sealed))


def parse_unverified(body: bytes) -> SignedSnapshot:
    """Parse an envelope without checking its signature: for this client's own files, never to run anything from.

    Raises EnvelopeRefused and SnapshotRefused.
    """
    return _build_signed_snapshot(_parse_envelope(body), "")


def _parse_key(word: str) -> tuple[str, Ed25519PublicKey]:
    """The key's id, computed as the service does, and the key."""
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(word))
    except ValueError:
        raise Misconfigured(
            f"{make_printable(word[:_SHOWN])}… is not a public key: it has 64 hex digits, as `manage.py keys export`"
            " prints them"
        ) from None
    return SSlibKey.from_crypto(public).keyid, public


def _parse_envelope(body: bytes) -> Envelope:
    if len(body) > MAX_ENVELOPE_BYTES:
        raise EnvelopeRefused(
            f"{len(body):,} bytes are more than an envelope can have ({MAX_ENVELOPE_BYTES:,})"
        )
    try:
        sealed = Envelope.from_dict(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError) as error:
        raise EnvelopeRefused(f"it is not a signed envelope: {type(error).__name__}: {error}") from error
    if not all(isinstance(key_id, str) for key_id in sealed.signatures):
        raise EnvelopeRefused("it is not a signed envelope: the id of a key is not text")
    if sealed.payload_type != PAYLOAD_TYPE:
        raise EnvelopeRefused(
            f"its content is {make_printable(str(sealed.payload_type)[:80])!r}, not a snapshot"
        )
    return sealed


def _build_signed_snapshot(sealed: Envelope, key_id: str) -> SignedSnapshot:
    document, snapshot = parse_snapshot(sealed.payload)
    _require_same_coins(document.get_texts("coins"), snapshot)
    head = document.get_object("audit_head")
    return SignedSnapshot(
        snapshot,
        issued_at=document.get_time("issued_at"),
        expires_at=document.get_time("expires_at"),
        audit_head=AuditHead(head.get("seq", int), head.get("hash", str)),
        key_id=key_id,
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
