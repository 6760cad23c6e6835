"""What a backup is protected by: the signature of its manifest, and encryption where recipients are configured.

The manifest names everything else by the sha256 of the bytes that lie in the store, encrypted or not. So nobody who can
only write to the store changes a backup unnoticed. The key that signs is one of its own, beside those of the snapshots.
Encryption is that of age (https://age-encryption.org/v1): the service knows the recipients, and never an identity.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyrage
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.conf import settings
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from common.errors import Conflict, InvalidInput, Unavailable
from deploy.serving import keys

FILE_NAME = "backup.pem"
PAYLOAD_TYPE = "application/vnd.crpbot.backup+json"


@dataclass(frozen=True)
class Access:
    """What a reader of backups holds."""

    public_hex: str
    """The public half of the key that signed them: 32 bytes in hex."""
    identities: Sequence[Any] = field(default=(), repr=False)
    """Of age, to decrypt with."""

    @classmethod
    def build(cls, *, public_key: str = "", identity_file: str = "") -> "Access":
        """From what a person gives; without a public key, that of this service. Raises InvalidInput, Unavailable."""
        public_hex = _read_public(public_key) if public_key else get_public_hex()
        return cls(public_hex, _read_identities(Path(identity_file)) if identity_file else ())


def get_public_hex() -> str:
    """The public half of this service's own key. Raises Unavailable where there is none."""
    try:
        return str(_describe(_load()).keyval["public"])
    except FileNotFoundError:
        raise Unavailable(
            f"There is no {_path()}, the key that signed the backups of this service. Put a copy of the folder of the"
            " signing keys in place, or name its public half: --public-key HEX."
        ) from None


def sign(payload: bytes) -> bytes:
    """An envelope of these bytes. The first one makes the key. Raises Unavailable where the key cannot be used."""
    try:
        private = _load()
    except FileNotFoundError:
        keys.write_private(_path(), CryptoSigner.generate_ed25519().private_bytes)
        private = _load()
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(private, _describe(private)))
    return json.dumps(envelope.to_dict()).encode()


def open_envelope(envelope: bytes, public_hex: str) -> bytes:
    """The bytes that were signed. Raises Conflict where this key did not sign them."""
    read = _read_envelope(envelope)
    signed_by = [signature.keyid for signature in read.signatures.values()]
    try:
        # Whatever id the signature states: one key is trusted.
        trusted: list[Key] = [
            SSlibKey(each, "ed25519", "ed25519", {"public": public_hex}) for each in signed_by
        ]
        if read.payload_type != PAYLOAD_TYPE:
            raise VerificationError("its type is another")
        read.verify(trusted, 1)
    except (VerificationError, ValueError) as error:
        raise Conflict(
            f"It was not signed with the key {public_hex[:12]}… ({error}). Name the public key that `manage.py backup key`"
            " printed on the service that made it: --public-key HEX."
        ) from error
    return read.payload


def read_unverified(envelope: bytes) -> bytes:
    """The bytes that somebody signed, for what does no harm if they are wrong. Raises Conflict."""
    return _read_envelope(envelope).payload


def list_recipients() -> list[str]:
    """The configured recipients; without any, nothing is encrypted."""
    return sorted(set(settings.BACKUP_RECIPIENTS))


def encrypt(source: IO[bytes], target: IO[bytes], recipients: Sequence[str]) -> None:
    """Raises InvalidInput for what is no recipient."""
    try:
        pyrage.encrypt_io(source, target, [pyrage.x25519.Recipient.from_str(each) for each in recipients])
    except pyrage.RecipientError as error:
        raise InvalidInput(
            f"CRPBOT_BACKUP_RECIPIENTS names no recipient of age ({error}). `age-keygen` prints one: age1…"
        ) from error


def decrypt(source: IO[bytes], target: IO[bytes], access: Access) -> None:
    """Raises Conflict without an identity of a recipient, or for bytes that are damaged."""
    if not access.identities:
        raise Conflict(
            "The backup is encrypted. Name the file of an identity that can decrypt it: --identity FILE."
        )
    try:
        pyrage.decrypt_io(source, target, access.identities)
    except (pyrage.DecryptError, OSError) as error:  # OSError: bytes that were damaged
        raise Conflict(
            f"The backup cannot be decrypted ({error}). Name the identity of one of its recipients: --identity FILE."
        ) from error


def _read_envelope(envelope: bytes) -> Envelope:
    try:
        return Envelope.from_dict(json.loads(envelope))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Conflict(f"It cannot be read ({error}). Use another backup.") from error


def _read_public(text: str) -> str:
    try:
        if len(bytes.fromhex(text)) == 32:
            return text.lower()
    except ValueError:
        pass
    raise InvalidInput("The public key is 64 characters in hex: `manage.py backup key` prints it.")


def _read_identities(path: Path) -> list[Any]:
    try:
        lines = path.read_text().splitlines()
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        identities = [pyrage.x25519.Identity.from_str(line) for line in found]
    except (OSError, UnicodeDecodeError, pyrage.IdentityError) as error:
        raise InvalidInput(
            f"{path} has no identity of age ({error}): `age-keygen` writes such a file."
        ) from error
    if not identities:
        raise InvalidInput(f"{path} has no identity of age: `age-keygen` writes such a file.")
    return identities


def _load() -> Any:
    """The private half. Raises FileNotFoundError, Unavailable."""
    try:
        return load_pem_private_key(_path().read_bytes(), password=None)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise Unavailable(
            f"{_path()}, the key that signs backups, cannot be read ({error}). Restore it from a copy."
        ) from error


def _describe(private: Any) -> SSlibKey:
    return SSlibKey.from_crypto(private.public_key())


def _path() -> Path:
    return Path(settings.SIGNING_KEYS_DIR) / FILE_NAME
