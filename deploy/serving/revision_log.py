"""The revision log: the highest signed revision, stored with the keys. A restored database does not know it."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.files.base import ContentFile

from common.errors import Unavailable
from training.atomic_storage import AtomicFileStorage

FILE_NAME = "signed.json"
_FORMAT = 1
_TRIAL_BYTES = 16 * 1024


@dataclass(frozen=True)
class SignedRevision:
    number: int
    content: str
    """The hash of its move's audit event, which binds the move and every event before it."""


def read_highest(service: str) -> SignedRevision | None:
    """The highest revision signed for this service; None before the first. Raises Unavailable where it cannot be read."""
    return _read().get(service)


def raise_to(service: str, revision: SignedRevision) -> bool:
    """Log on the disk that this revision is about to be signed; False where another process logged a higher one.

    Raises Unavailable where it cannot be written: a revision that is not logged is not signed.
    """
    with _exclusive():
        logged = _read()
        if service in logged and logged[service].number >= revision.number:
            return logged[service] == revision
        _write({**logged, service: revision})
        return True


def find_problem() -> str | None:
    """Why the log could not be written now; None where it could. Tries it: permissions do not show a full disk."""
    try:
        with tempfile.TemporaryFile(dir=_path().parent, prefix=".try-") as trial:
            trial.write(bytes(_TRIAL_BYTES))
            trial.flush()
            os.fsync(trial.fileno())
    except OSError as error:
        return (
            f"The revision log cannot be written to {_path().parent} ({error.strerror}). Make room there, or let the service"
            " write there."
        )
    return None


def _path() -> Path:
    return Path(settings.SIGNING_KEYS_DIR) / FILE_NAME


def _read() -> dict[str, SignedRevision]:
    try:
        document = json.loads(_path().read_bytes())
        if document["format"] != _FORMAT:
            raise ValueError(f"its format is {document['format']!r}")
        return {
            name: SignedRevision(int(entry["revision"]), str(entry["content"]))
            for name, entry in document["services"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(
            f"Nothing is signed: {_path()}, the log of the last signed revision, cannot be read ({error}). Restore it from"
            " a copy."
        ) from error


def _write(logged: dict[str, SignedRevision]) -> None:
    services = {
        name: {"revision": revision.number, "content": revision.content} for name, revision in logged.items()
    }
    document = json.dumps({"format": _FORMAT, "services": services}, indent=1, sort_keys=True)
    AtomicFileStorage(settings.SIGNING_KEYS_DIR).save(FILE_NAME, ContentFile(document.encode()))


@contextmanager
def _exclusive() -> Iterator[None]:
    try:
        lock = os.open(_path().with_suffix(".lock"), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
    except OSError as error:
        raise Unavailable(
            f"Nothing is signed: the revision log cannot be written to {_path().parent} ({error.strerror}). Let the"
            " service write there."
        ) from error
