"""The envelope a snapshot comes in: who signed it, when, and until when it holds. Bytes in, a verified value out.

DSSE with Ed25519, under keys that the bot was given by hand. Whoever can change an answer on its way, or answers in the
service's place, can then keep a bot from hearing, but never make it run anything.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError
from securesystemslib.signer import SSlibKey

from runtime.errors import EnvelopeRefused, Misconfigured, SnapshotRefused
from runtime.protocol.snapshot import MAX_BODY_BYTES, Announced, Snapshot, announced, parse, parse_time

PAYLOAD_TYPE = "application/vnd.crpbot.snapshot+json"
MAX_ENVELOPE_BYTES = 2 * MAX_BODY_BYTES
"""The payload in base64, and a few signatures."""

_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Signed:
    """A snapshot, and what its signature covers besides. `issued_at` and `expires_at` are the service's clock, in UTC.

    `key_id` says which of the pinned keys signed it. Two releases are to be fetched ahead: `next`, which awaits approval,
    and `fallback`, which a pin leads to.
    """

    snapshot: Snapshot
    issued_at: datetime
    expires_at: datetime
    audit_seq: int
    audit_hash: str
    key_id: str
    next: Announced | None
    fallback: Announced | None

    @property
    def announced(self) -> tuple[Announced, ...]:
        """What to have at hand before a move names it: the fallback first, since a pin comes without warning."""
        return tuple(one for one in (self.fallback, self.next) if one is not None)

    def is_expired(self, now: datetime) -> bool:
        """Whether the service has not vouched for it lately: *stale since*, and no reason to stop."""
        return now > self.expires_at


class PublicKeys:
    """The keys a bot trusts, ready to verify with: one, or two while the service changes its key."""

    def __init__(self, texts: str | Iterable[str]) -> None:
        """Keys of 64 hex digits each, in one text separated by commas or as several. Raises Misconfigured."""
        found = [texts] if isinstance(texts, str) else list(texts)
        words = [word.strip().lower() for text in found for word in text.split(",") if word.strip()]
        if not words:
            raise Misconfigured(
                "there is no public key: a bot follows only what its service has signed. `manage.py keys export` prints it"
                " (set CRPBOT_PUBLIC_KEY)"
            )
        self._keys = dict(_key(word) for word in words)

    def __repr__(self) -> str:
        return f"PublicKeys({', '.join(key_id[:_SHOWN] for key_id in self._keys)})"

    def verify(self, sealed: Envelope) -> str:
        """The id of the pinned key that signed it. Raises EnvelopeRefused."""
        signatures = {key_id: one for key_id, one in sealed.signatures.items() if key_id in self._keys}
        if not signatures:
            others = ", ".join(key_id[:_SHOWN] for key_id in sealed.signatures) or "nobody"
            raise EnvelopeRefused(
                f"it is signed by {_printable(others)}, and this bot trusts {', '.join(k[:_SHOWN] for k in self._keys)}: "
                "another service, or a key that was changed (give the bot the new public key)"
            )
        content = sealed.pae()
        for key_id, signature in signatures.items():
            try:
                self._keys[key_id].verify(bytes.fromhex(signature.signature), content)
                return key_id
            except (InvalidSignature, ValueError):
                continue
        raise EnvelopeRefused("its signature is wrong: it was changed on the way, or made by somebody else")


def verify(body: bytes, keys: PublicKeys) -> Signed:
    """Read an envelope that one of these keys signed. Raises EnvelopeRefused, and SnapshotRefused for what is inside."""
    sealed = _opened(body)
    key_id = keys.verify(sealed)
    return _read(sealed, key_id)


def without_verifying(body: bytes) -> Signed:
    """What an envelope says, whoever signed it: for this client's own notes, and never to run anything from.

    Raises EnvelopeRefused and SnapshotRefused.
    """
    return _read(_opened(body), "")


def _key(word: str) -> tuple[str, Ed25519PublicKey]:
    """A key by its id, which is computed here as the service computes it; the object is made once, not per message."""
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(word))
    except ValueError:
        raise Misconfigured(
            f"{_printable(word[:_SHOWN])}… is no public key: it has 64 hex digits, as `manage.py keys export` prints them"
        ) from None
    return SSlibKey.from_crypto(public).keyid, public


def _opened(body: bytes) -> Envelope:
    if len(body) > MAX_ENVELOPE_BYTES:
        raise EnvelopeRefused(
            f"{len(body):,} bytes are more than an envelope can have ({MAX_ENVELOPE_BYTES:,})"
        )
    try:
        sealed = Envelope.from_dict(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError) as error:
        raise EnvelopeRefused(f"it is not a signed envelope: {type(error).__name__}: {error}") from error
    if sealed.payload_type != PAYLOAD_TYPE:
        raise EnvelopeRefused(f"its content is {_printable(str(sealed.payload_type)[:80])!r}, not a snapshot")
    return sealed


def _read(sealed: Envelope, key_id: str) -> Signed:
    document, snapshot = parse(sealed.payload)
    _expect_its_coins(document, snapshot)
    issued_at, expires_at = (parse_time(document, name) for name in ("issued_at", "expires_at"))
    head = _head(document)
    ahead = (announced(document, key) for key in ("next", "fallback"))
    return Signed(snapshot, issued_at, expires_at, *head, key_id, *ahead)


def _expect_its_coins(document: Mapping[str, Any], snapshot: Snapshot) -> None:
    """The release's coins are named apart from what is announced for each: none may be missing, none too many."""
    coins = document.get("coins")
    if not isinstance(coins, list) or not all(isinstance(coin, str) for coin in coins):
        raise SnapshotRefused("coins is not a list of names")
    if missing := sorted(set(coins) - snapshot.models.keys()):
        raise SnapshotRefused(
            f"nothing is announced for {_printable(', '.join(missing))}, which the release is of"
        )
    if extra := sorted(snapshot.models.keys() - set(coins)):
        raise SnapshotRefused(f"{', '.join(extra)} is announced, and the release is not of it")


def _head(document: Mapping[str, Any]) -> tuple[int, str]:
    head = document.get("audit_head")
    if (
        not isinstance(head, dict)
        or type(head.get("seq")) is not int
        or not isinstance(head.get("hash"), str)
    ):
        raise SnapshotRefused("audit_head is not the number and hash of an event")
    return head["seq"], head["hash"]


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
