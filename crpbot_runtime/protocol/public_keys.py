"""The keys a bot trusts: those it was given by hand, and those that signed sets of keys lead to from them.

As the root of The Update Framework (https://theupdateframework.github.io/specification): the sets are numbered, and each is
signed by a key of the one before. So a bot that was off while keys changed follows them one by one, and never goes back.
"""

import json
from collections.abc import Iterable, Iterator, KeysView, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError
from securesystemslib.signer import SSlibKey

from crpbot_runtime.errors import EnvelopeRefused, KeysRefused, Misconfigured, SignerUnknown, SnapshotRefused
from crpbot_runtime.protocol.snapshot import Fields, decode_json, make_printable

KEYS_PAYLOAD_TYPE = "application/vnd.crpbot.keys+json"
MAX_KEY_SETS_BYTES = 256 * 1024
"""Two hundred sets of two keys, which is more than the service sends."""
MAX_KEYS = 8
"""In one set. The service has one, and two or three while it changes them."""
SHOWN = 12
"""Letters of a key's id in messages."""

_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError)


class PublicKeys:
    """The keys a bot trusts, ready to verify with. It never changes: `follow` returns another.

    `version` is that of the set of keys, 0 where it is not known; `service` is whose set it is, once that is known.
    """

    def __init__(self, texts: str | Iterable[str]) -> None:
        """Keys of 64 hex digits each, separated by commas or as several texts. Raises Misconfigured.

        The first text may begin with the version of the set, as in ``3:4f2c…``: then no older set is ever followed.
        """
        listed = (
            [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, Iterable) else [texts]
        )
        if not all(isinstance(text, str) for text in listed):
            raise Misconfigured("a public key is text, as `manage.py keys export` prints it")
        words = ",".join(listed)
        prefix, colon, rest = words.partition(":")
        self.version = _parse_version(prefix) if colon else 0
        self.service: str | None = None
        hexes = [word.strip().lower() for word in (rest if colon else words).split(",") if word.strip()]
        if not hexes:
            raise Misconfigured(
                "there is no public key: a bot follows only what its service signed. `manage.py keys export` prints it"
                " (set CRPBOT_PUBLIC_KEY)"
            )
        try:
            self._keys = dict(map(_parse_key, hexes))
        except ValueError as error:
            raise Misconfigured(f"{error}, as `manage.py keys export` prints them") from None

    @property
    def key_ids(self) -> KeysView[str]:
        """The ids of the trusted keys, as envelopes and heartbeats name them."""
        return self._keys.keys()

    @property
    def _identity(self) -> tuple[object, ...]:
        return self.version, self.service, frozenset(self._keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKeys) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return f"PublicKeys(version {self.version}: {self._show_ids()})"

    def find_signers(self, sealed: Envelope) -> tuple[str, ...]:
        """Verify an envelope; returns the ids of the trusted keys that signed it. Raises EnvelopeRefused."""
        signatures = {
            key_id: signature for key_id, signature in sealed.signatures.items() if key_id in self._keys
        }
        if not signatures:
            others = ", ".join(key_id[:SHOWN] for key_id in sealed.signatures) or "nobody"
            raise SignerUnknown(
                f"it is signed by {make_printable(others)}, and this bot trusts {self._show_ids()}: "
                "another service, or its key was changed out of band (give the bot the new public key)"
            )
        content = sealed.pae()
        signers = tuple(
            key_id
            for key_id, signature in signatures.items()
            if _is_valid(self._keys[key_id], signature.signature, content)
        )
        if not signers:
            raise EnvelopeRefused("its signature is invalid: it was changed on the way, or forged")
        return signers

    def follow(self, body: bytes) -> "PublicKeys":
        """The keys that these sets of keys, oldest first, lead to; these keys if there is nothing newer.

        Sets up to this version are skipped. From then on each must follow the one before and be signed by a key of it.
        Raises KeysRefused, and then nothing is followed.
        """
        keys = self
        for sealed in _parse_key_sets(body):
            keys = keys._follow_one(sealed)
        return keys

    def _follow_one(self, sealed: Envelope) -> "PublicKeys":
        fields, version = _parse_key_set(sealed)
        if version <= self.version:
            return self
        is_start = self.version == 0
        try:
            self.find_signers(sealed)
        except SignerUnknown:
            if is_start:
                return self  # an older set, from before the key that this bot was given
            raise KeysRefused(f"set {version} is signed by no key of set {self.version}") from None
        except EnvelopeRefused as error:
            raise KeysRefused(f"set {version}: {error}") from error
        if not is_start and version != self.version + 1:
            raise KeysRefused(f"set {version} comes after set {self.version}: one between is missing")
        return self._succeed(fields, version)

    def _succeed(self, fields: Fields, version: int) -> "PublicKeys":
        try:
            service, texts = fields.get("service", str), fields.get_texts("keys")
            if self.service not in (None, service):
                raise KeysRefused(f"set {version} is of another service, {make_printable(service[:SHOWN])}")
            if not 0 < len(texts) <= MAX_KEYS:
                raise KeysRefused(f"set {version} has {len(texts)} keys, and must have 1 to {MAX_KEYS}")
            successor = PublicKeys(texts)
        except (SnapshotRefused, Misconfigured) as error:
            raise KeysRefused(f"set {version}: {error}") from error
        successor.version, successor.service = version, service
        return successor

    def _show_ids(self) -> str:
        return ", ".join(key_id[:SHOWN] for key_id in self._keys)


def parse_sealed(document: object, payload_type: str, noun: str) -> Envelope:
    """The envelope in a JSON document, not verified. `noun` is what its content must be. Raises EnvelopeRefused."""
    try:
        if not isinstance(document, Mapping):
            raise TypeError("it is not an object")
        sealed = Envelope.from_dict(dict(document))
    except _UNREADABLE as error:
        raise EnvelopeRefused(f"it is not a signed envelope: {type(error).__name__}: {error}") from error
    if not all(isinstance(key_id, str) for key_id in sealed.signatures):
        raise EnvelopeRefused("it is not a signed envelope: the id of a key is not text")
    if sealed.payload_type != payload_type:
        raise EnvelopeRefused(
            f"its content is {make_printable(str(sealed.payload_type)[:80])!r}, not a {noun}"
        )
    return sealed


def _parse_key_sets(body: bytes) -> Iterator[Envelope]:
    if len(body) > MAX_KEY_SETS_BYTES:
        raise KeysRefused(
            f"{len(body):,} bytes are more than the sets of keys can have ({MAX_KEY_SETS_BYTES:,})"
        )
    try:
        documents = json.loads(body)["key_sets"]
        if not isinstance(documents, list):
            raise TypeError("they are not a list")
    except _UNREADABLE as error:
        raise KeysRefused(f"the sets of keys cannot be read: {type(error).__name__}: {error}") from error
    for document in documents:
        try:
            yield parse_sealed(document, KEYS_PAYLOAD_TYPE, "set of keys")
        except EnvelopeRefused as error:
            raise KeysRefused(f"a set of keys: {error}") from error


def _parse_key_set(sealed: Envelope) -> tuple[Fields, int]:
    try:
        fields = Fields(decode_json(sealed.payload))
        return fields, fields.get_positive("version")
    except SnapshotRefused as error:
        raise KeysRefused(f"a set of keys cannot be read: {error}") from error


def _is_valid(key: Ed25519PublicKey, signature: str, content: bytes) -> bool:
    try:
        key.verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _parse_version(text: str) -> int:
    if not text.strip().isdecimal() or len(text) > SHOWN or int(text) < 1:
        raise Misconfigured(
            f"{make_printable(text[:SHOWN])}… is no version of a set of keys: `manage.py keys export` prints the public key"
        )
    return int(text)


def _parse_key(word: str) -> tuple[str, Ed25519PublicKey]:
    """The key's id, computed as the service does, and the key. Raises ValueError."""
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(word))
    except ValueError:
        raise ValueError(
            f"{make_printable(word[:SHOWN])}… is not a public key: it has 64 hex digits"
        ) from None
    return SSlibKey.from_crypto(public).keyid, public
