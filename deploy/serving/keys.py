"""The keys that sign what bots are given: public halves in the database, private halves in a folder of their own.

A bot pins public halves. To change the key: create another, give bots its public half beside the old one's, activate it
(both sign), take the old one from the bots, retire it. A private half is never in the database, in a log or in an answer.
"""

import os
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from securesystemslib.signer import CryptoSigner, SSlibKey

from accounts.rules import GATE
from audit import services as audit
from common.errors import InvalidInput, NotFound, Unavailable
from deploy.models import SigningKey
from deploy.rules import KeyState

HOW_TO_BEGIN = "Run `manage.py keys create --reason …`, then `manage.py keys activate KEY --reason …`."


def create(*, actor: object, reason: str) -> SigningKey:
    """A new key, which signs nothing until it is activated. Raises Unavailable where the folder cannot be written.

    The caller has decided. The file comes first: a row without its private half would be a key that cannot sign.
    """
    made = CryptoSigner.generate_ed25519()
    public = made.public_key
    key = SigningKey(key_id=public.keyid, public_hex=public.keyval["public"], created_by=str(actor))
    _write_private(key, made.private_bytes)
    with audit.locked():
        key.save(force_insert=True)
        detail = {"key_id": key.key_id, "public": key.public_hex}
        audit.record("signingkey.created", key, actor=actor, reason=reason, detail=detail)
    return key


def activate(key: SigningKey, *, actor: object, reason: str) -> None:
    """Let it sign. The caller has decided, and holds the audit head. Raises Unavailable without its private half."""
    load_signer(key)
    audit.transition(key, KeyState.ACTIVE, actor=actor, reason=reason, activated_at=timezone.now())


def retire(key: SigningKey, *, actor: object, reason: str) -> None:
    """End it for good, and delete its private half once that is committed. The caller has decided, and holds the head."""
    audit.transition(key, KeyState.RETIRED, actor=actor, reason=reason, retired_at=timezone.now())
    transaction.on_commit(lambda: _private_path(key).unlink(missing_ok=True))


def find(text: str) -> SigningKey:
    """The key of this id, or of an unmistakable beginning of it. Raises NotFound, InvalidInput."""
    found = (
        list(SigningKey.objects.filter(key_id__startswith=text.strip().lower())[:2]) if text.strip() else []
    )
    if not found:
        raise NotFound(f"There is no signing key {text!r}. `manage.py keys list` shows them.")
    if len(found) > 1:
        raise InvalidInput(f"More than one signing key begins with {text!r}: give more of it.")
    return found[0]


def list_active() -> list[SigningKey]:
    """The keys that sign now, the oldest first."""
    return list(SigningKey.objects.filter(state=KeyState.ACTIVE).order_by("pk"))


def list_pinned() -> list[SigningKey]:
    """What a bot that is set up now should pin: the keys that sign, and the one that is to sign next."""
    return list(SigningKey.objects.exclude(state=KeyState.RETIRED).order_by("pk"))


def export_public() -> str:
    """What a bot is given as its public key: `pinned`, with commas between. Raises Unavailable where there is none."""
    ensure_first()
    found = list_pinned()
    if not found:
        raise Unavailable(f"There is no signing key yet. {HOW_TO_BEGIN}")
    return ",".join(key.public_hex for key in found)


def is_initialized() -> bool:
    """Whether there ought to be a key: in the embedded profile the first one is made when it is first needed."""
    return not settings.IS_EMBEDDED or SigningKey.objects.exists()


def ensure_first() -> None:
    """Make the embedded profile's first key; nothing where there ever was one, nor in production."""
    if is_initialized():
        return
    with audit.locked():
        if not is_initialized():  # another process was first
            reason = "the embedded profile's first key"
            activate(create(actor=GATE, reason=reason), actor=GATE, reason=reason)


def require_active() -> list[SigningKey]:
    """The keys that sign now, the oldest first. Raises Unavailable, and says what to run, where there is none."""
    found = list_active()
    if not found:
        ensure_first()
        found = list_active()
    if not found:
        raise Unavailable(f"Nothing is signed for the bots: no signing key is active. {HOW_TO_BEGIN}")
    return found


def load_signer(key: SigningKey) -> CryptoSigner:
    """What signs with this key. Raises Unavailable where its private half is missing, damaged or another's."""
    path = _private_path(key)
    where = f"Nothing is signed for the bots: the private half of {key}"
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
        public = SSlibKey.from_crypto(private.public_key(), keyid=key.key_id)
        found = CryptoSigner(private, public)
    except OSError as error:
        raise Unavailable(
            f"{where} cannot be read in {path.parent} ({error.strerror}). Bring it back from a copy; or, where it is lost,"
            f" make another key and give bots its public half. {HOW_TO_BEGIN}"
        ) from error
    except (ValueError, TypeError, AttributeError):
        raise Unavailable(f"{where}, {path.name}, is damaged. Bring it back from a copy.") from None
    if public.keyval["public"] != key.public_hex:
        raise Unavailable(
            f"{where}, {path.name}, is that of another key. Bring the right one back from a copy."
        )
    return found


def _private_path(key: SigningKey) -> Path:
    return Path(settings.SIGNING_KEYS_DIR) / f"{key.key_id}.pem"


def _write_private(key: SigningKey, pem: bytes) -> None:
    path = _private_path(key)
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
