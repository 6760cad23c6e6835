"""The highest revision ever signed, kept beside the keys: a database brought back from a backup does not know of it."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from common.errors import Unavailable

FILE_NAME = "signed.json"
_FORMAT = 1


@dataclass(frozen=True)
class SignedRevision:
    """A revision that was signed."""

    revision: int
    content: str
    """The hash of its move's audit event, which binds what it said and every event before it."""


def read_highest(service: str) -> SignedRevision | None:
    """The highest revision signed for this service; None before the first. Raises Unavailable where it cannot be read."""
    found = _read().get(service)
    return SignedRevision(*found) if found else None


def raise_to(service: str, mark: SignedRevision) -> bool:
    """Write down, on the disk, that this revision is about to be signed; False where another process wrote a higher one.

    Raises Unavailable where that is impossible: what could not be written down is not signed.
    """
    with _exclusive():
        marks = _read()
        if service in marks and marks[service][0] >= mark.revision:
            return marks[service] == (mark.revision, mark.content)
        _write({**marks, service: (mark.revision, mark.content)})
        return True


def _path() -> Path:
    return Path(settings.SIGNING_KEYS_DIR) / FILE_NAME


def _read() -> dict[str, tuple[int, str]]:
    try:
        document = json.loads(_path().read_bytes())
        if document["format"] != _FORMAT:
            raise ValueError(f"its format is {document['format']!r}")
        return {
            name: (int(one["revision"]), str(one["content"])) for name, one in document["services"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(
            f"Nothing is signed: {_path()}, which says what was signed last, cannot be read ({error}). Bring it back from"
            " a copy."
        ) from error


def _write(marks: dict[str, tuple[int, str]]) -> None:
    services = {
        name: {"revision": revision, "content": content} for name, (revision, content) in marks.items()
    }
    descriptor, draft = tempfile.mkstemp(dir=_path().parent)
    with os.fdopen(descriptor, "w") as out:
        out.write(json.dumps({"format": _FORMAT, "services": services}, indent=1, sort_keys=True))
        out.flush()
        os.fsync(out.fileno())
    Path(draft).rename(_path())
    folder = os.open(_path().parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename outlives a power cut only after this
    finally:
        os.close(folder)


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
            f"Nothing is signed: what was signed last cannot be written to {_path().parent} ({error.strerror}). Let the"
            " service write there."
        ) from error
