"""The keys that sign snapshots: public halves in the database, private halves in a folder of their own.

A bot is given public halves once, and follows changes by itself (deploy.serving.key_sets). To change the key: create
another, activate it once bots trust it (both sign), retire the old one. A private half is never in the database, a log or
an answer.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from securesystemslib.signer import CryptoSigner, SSlibKey

from accounts.roles import GATE
from audit import services as audit
from common.errors import Conflict, InvalidInput, NotFound, Unavailable
from deploy.models import SigningKey
from deploy.rules import MOST_KEYS, KeyState
from deploy.serving import key_sets

_KEY_ID = re.compile("[0-9a-f]{12,64}")
HOW_TO_BEGIN = "Run `manage.py keys create --reason …`, then `manage.py keys activate KEY --reason …`."


def create(*, actor: object, reason: str) -> SigningKey:
    """A new key, which signs nothing until it is activated. Raises Unavailable where the folder cannot be written, Conflict.

    The caller has decided. The file comes first: a row without its private half would be a key that cannot sign.
    """
    signers = load_signers()
    signer = CryptoSigner.generate_ed25519()
    public = signer.public_key
    key = SigningKey(key_id=public.keyid, public_hex=public.keyval["public"], created_by=str(actor))
    write_private(_private_path(key), signer.private_bytes)
    try:
        _create_row(key, {**signers, key.key_id: signer}, actor=actor, reason=reason)
    except BaseException:
        _private_path(key).unlink(missing_ok=True)
        raise
    return key


def _create_row(key: SigningKey, signers: Mapping[str, CryptoSigner], *, actor: object, reason: str) -> None:
    with audit.locked():
        if SigningKey.objects.exclude(state=KeyState.RETIRED).count() >= MOST_KEYS:
            raise Conflict(f"There are {MOST_KEYS} keys that are not retired: retire one of them first.")
        key.save(force_insert=True)
        published = key_sets.publish(signers)
        detail = {"key_id": key.key_id, "public": key.public_hex, "key_set": published.version}
        audit.record("signingkey.created", key, actor=actor, reason=reason, detail=detail)


def import_from_folder(key_id: str, *, actor: object, reason: str) -> SigningKey:
    """A key whose private half lies in the folder and that the database does not know: it was made after a restored backup.

    It signs nothing until it is activated. The caller has decided. Raises InvalidInput, NotFound, Conflict, Unavailable.
    """
    if not _KEY_ID.fullmatch(key_id):
        raise InvalidInput(
            "The id of a key is the name of its file, or the first 12 characters or more.", field="key"
        )
    folder = Path(settings.SIGNING_KEYS_DIR)
    paths = [path for path in folder.glob(f"{key_id}*.pem") if len(path.stem) == 64]
    if len(paths) != 1:
        raise NotFound(f"{folder} has {len(paths) or 'no'} private halves that begin with {key_id}.")
    try:
        public = SSlibKey.from_crypto(load_pem_private_key(paths[0].read_bytes(), password=None).public_key())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unavailable(f"{paths[0]} cannot be read ({error}). Restore it from a copy.") from error
    if public.keyid != paths[0].stem:
        raise Conflict(
            f"{paths[0]} is the private half of the key {public.keyid[:12]}, as its name does not say."
        )
    if SigningKey.objects.filter(key_id=public.keyid).exists():
        raise Conflict(
            f"The signing key {public.keyid[:12]} is here already: `manage.py keys list` shows it."
        )
    key = SigningKey(key_id=public.keyid, public_hex=public.keyval["public"], created_by=str(actor))
    signers = load_signers()
    _create_row(key, {**signers, key.key_id: load_signer(key)}, actor=actor, reason=reason)
    return key


def activate(key: SigningKey, *, actor: object, reason: str) -> None:
    """Let it sign. The caller has decided, holds the audit head, and has loaded the private half before."""
    audit.transition(key, KeyState.ACTIVE, actor=actor, reason=reason, activated_at=timezone.now())


def retire(
    key: SigningKey, signers: Mapping[str, CryptoSigner], *, actor: object, reason: str, **detail: object
) -> None:
    """Retire it for good, and delete its private half after the commit. The caller has decided, and holds the head.

    `signers` are those of `load_signers`, read before the lock: they sign the set of keys without it.
    """
    audit.transition(
        key, KeyState.RETIRED, actor=actor, reason=reason, detail=detail, retired_at=timezone.now()
    )
    key_sets.publish(signers)
    transaction.on_commit(lambda: _private_path(key).unlink(missing_ok=True))


def find(text: str) -> SigningKey:
    """The key of this id, or of an unambiguous prefix of it. Raises NotFound, InvalidInput."""
    prefix = text.strip().lower()
    matches = list(SigningKey.objects.filter(key_id__startswith=prefix)[:2]) if prefix else []
    if not matches:
        raise NotFound(f"There is no signing key {text!r}. `manage.py keys list` shows them.")
    if len(matches) > 1:
        raise InvalidInput(f"More than one signing key begins with {text!r}: give more of it.")
    return matches[0]


def list_active() -> list[SigningKey]:
    """The keys that sign now, the oldest first."""
    return list(SigningKey.objects.filter(state=KeyState.ACTIVE).order_by("pk"))


def export_public() -> str:
    """What a bot is given as its public key: the version of the set of keys, a colon, and the keys, separated by commas.

    Raises Unavailable where there is none.
    """
    ensure_first()
    trusted = SigningKey.objects.exclude(state=KeyState.RETIRED).order_by("pk")
    if not trusted:
        raise Unavailable(f"There is no signing key yet. {HOW_TO_BEGIN}")
    return f"{key_sets.get_version()}:{','.join(key.public_hex for key in trusted)}"


def is_initialized() -> bool:
    """Whether a key is expected: in the embedded profile the first one is made when it is first needed."""
    return not settings.IS_EMBEDDED or SigningKey.objects.exists()


def ensure_first() -> None:
    """Create the embedded profile's first key. Does nothing in production, or where there was ever a key."""
    if is_initialized():
        return
    with audit.locked():
        if not is_initialized():  # another process was first
            reason = "the embedded profile's first key"
            activate(create(actor=GATE, reason=reason), actor=GATE, reason=reason)


def require_active() -> list[SigningKey]:
    """The keys that sign now, the oldest first. Raises Unavailable, and says what to run, where there is none."""
    if not (active := list_active()):
        ensure_first()
        active = list_active()
    if not active:
        raise Unavailable(f"Nothing is signed for the bots: no signing key is active. {HOW_TO_BEGIN}")
    return active


def load_signers() -> dict[str, CryptoSigner]:
    """The signers of all keys that are not retired, by key id, without those whose private half cannot be used."""
    signers = {}
    for key in SigningKey.objects.exclude(state=KeyState.RETIRED):
        with suppress(Unavailable):
            signers[key.key_id] = load_signer(key)
    return signers


def load_signer(key: SigningKey) -> CryptoSigner:
    """The signer of this key. Raises Unavailable where its private half is missing, damaged or another key's."""
    path = _private_path(key)
    problem = f"Nothing is signed for the bots: the private half of {key}"
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
        public = SSlibKey.from_crypto(private.public_key(), keyid=key.key_id)
        signer = CryptoSigner(private, public)
    except OSError as error:
        raise Unavailable(
            f"{problem} cannot be read in {path.parent} ({error.strerror}). Restore it from a copy; or, if it is lost,"
            f" create another key and give bots its public half. {HOW_TO_BEGIN}"
        ) from error
    except (ValueError, TypeError, AttributeError):
        raise Unavailable(f"{problem}, {path.name}, is damaged. Restore it from a copy.") from None
    if public.keyval["public"] != key.public_hex:
        raise Unavailable(
            f"{problem}, {path.name}, is that of another key. Restore the right one from a copy."
        )
    return signer


def _private_path(key: SigningKey) -> Path:
    return Path(settings.SIGNING_KEYS_DIR) / f"{key.key_id}.pem"


def write_private(path: Path, pem: bytes) -> None:
    """Write a private half to a new file, which only this user reads. Raises Unavailable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(pem)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise Unavailable(
            f"No key was made: {path.parent} cannot be written ({error.strerror}). CRPBOT_SIGNING_KEYS_DIR names the folder."
        ) from error
