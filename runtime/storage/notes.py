"""What a client writes down: which snapshot it follows, and the highest revision it has seen of each service."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from runtime.errors import CacheFailed, Refused
from runtime.protocol.envelope import PublicKeys, Signed, verify, without_verifying
from runtime.protocol.snapshot import Named, Snapshot
from runtime.storage.disk import Identity, identity, read_json, told_as_cache_failed, write_json

logger = logging.getLogger(__name__)

DAMAGE = (ValueError, KeyError, TypeError, AttributeError, Refused)
"""What reading a damaged document raises."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot that was followed: the envelope as it came, the same read, its ETag, when it was last confirmed."""

    body: bytes
    signed: Signed
    etag: str | None
    confirmed_at: datetime

    @property
    def snapshot(self) -> Snapshot:
        return self.signed.snapshot


@dataclass(frozen=True, slots=True)
class Mark:
    """The highest revision seen of one service, and what decided it (`Snapshot.content`)."""

    revision: int
    content: str


class Notes:
    """The notes in one cache folder, seen from the service at `url`. Whoever writes holds the folder's lock."""

    def __init__(self, folder: Path, url: str, keys: PublicKeys, *, draft_folder: Path) -> None:
        self.pointers = folder / "pointers"
        self._pointer = self.pointers / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
        self._marks = folder / "marks.json"
        self._url = url
        self._keys = keys
        self._draft_folder = draft_folder
        # What was followed was also seen: a lost file of marks does not open the door to old revisions.
        self._highest: dict[str, Mark] = {}
        self._marks_known: dict[str, Mark] = {}
        self._marks_read: Identity | None = None
        for kept in self.followed():
            self._lift(kept.snapshot.service, Mark(kept.snapshot.revision, kept.snapshot.content))
        self._is_unwritten = False

    def current(self) -> Kept | None:
        """The snapshot last followed from this address, its signature verified again; None where there is none.

        Raises CacheFailed where it cannot be read, or no longer is of a key that this bot trusts.
        """
        try:
            with told_as_cache_failed(self._pointer):
                document = read_json(self._pointer)
            if document is None:
                return None
            kept = _kept(document["current"])
            return replace(kept, signed=verify(kept.body, self._keys))
        except Refused as error:
            raise CacheFailed(f"{self._pointer} is not to be trusted: {error}") from error
        except DAMAGE as error:
            raise CacheFailed(f"{self._pointer} is damaged: {error}") from error

    def keep(self, kept: Kept) -> None:
        """Make `kept` the current snapshot; one of other content becomes the previous. Raises CacheFailed."""
        before = self._before(kept)
        previous = None if before is None else _plain(before)
        document = {"url": self._url, "current": _plain(kept), "previous": previous}
        with told_as_cache_failed(self._pointer):
            write_json(self._pointer, document, draft_folder=self._draft_folder)

    def followed(self) -> Iterator[Kept]:
        """The current and previous snapshots of every address that shares the folder."""
        for current, previous in self._pairs():
            yield from (current, *previous)

    def named(self) -> Iterator[Named]:
        """What must stay in the folder: of every address, both snapshots, and what the current one announces."""
        for current, previous in self._pairs():
            yield current.snapshot
            yield from current.signed.announced
            yield from (kept.snapshot for kept in previous)

    def _pairs(self) -> Iterator[tuple[Kept, list[Kept]]]:
        """The current snapshot of each address, and the one before it if there was any."""
        for path in sorted(self.pointers.glob("*.json")):
            try:
                if document := read_json(path):
                    before = [document["previous"]] if document["previous"] else []
                    yield _kept(document["current"]), [_kept(one) for one in before]
            except (OSError, *DAMAGE) as error:
                logger.warning("%s cannot be read, and what it alone names may go: %s", path, error)

    def mark(self, service: str) -> Mark | None:
        """The highest revision seen of `service`, by this client or, on disk, by any other of the folder."""
        if on_disk := self._marks_on_disk().get(service):
            self._lift(service, on_disk)
        return self._highest.get(service)

    def raise_mark(self, service: str, mark: Mark) -> None:
        """Remember `mark`, which the caller found higher: in memory at once, on the disk with `write_marks`."""
        self._highest[service] = mark
        self._is_unwritten = True

    def write_marks(self) -> None:
        """Write down what `raise_mark` remembered; that a disk is full is only logged, and tried again next time."""
        if not self._is_unwritten:
            return
        for service, mark in self._marks_on_disk().items():
            self._lift(service, mark)
        marks = sorted(self._highest.items())
        services = {name: {"revision": one.revision, "content": one.content} for name, one in marks}
        try:
            write_json(self._marks, {"services": services}, draft_folder=self._draft_folder)
            self._is_unwritten = False
        except OSError as error:
            logger.warning("the revisions seen so far could not be noted on disk: %s", error)

    def _lift(self, service: str, mark: Mark) -> None:
        known = self._highest.get(service)
        if known is None or mark.revision > known.revision:
            self._highest[service] = mark

    def _before(self, kept: Kept) -> Kept | None:
        try:
            document = read_json(self._pointer)
            if document is None:
                return None
            current = _kept(document["current"])
            if current.snapshot.content != kept.snapshot.content:
                return current
            return _kept(document["previous"]) if document["previous"] else None
        except (OSError, *DAMAGE) as error:
            logger.warning("the kept pointer cannot be read and is replaced: %s", error)
            return None

    def _marks_on_disk(self) -> dict[str, Mark]:
        try:
            # Asked for at every move, and hardly ever written by another: a file that is still the same is not read again.
            written = identity(self._marks)
            if written is None or written != self._marks_read:
                services = (read_json(self._marks) or {"services": {}})["services"]
                self._marks_known = {
                    name: Mark(int(mark["revision"]), str(mark["content"])) for name, mark in services.items()
                }
                self._marks_read = written
            return self._marks_known
        except (OSError, *DAMAGE) as error:
            logger.warning("the revisions seen so far cannot be read: %s", error)
            return {}


def _plain(kept: Kept) -> dict[str, Any]:
    return {
        "body": kept.body.decode(),
        "sha256": hashlib.sha256(kept.body).hexdigest(),
        "etag": kept.etag,
        "confirmed_at": kept.confirmed_at.isoformat(),
    }


def _kept(document: dict[str, Any]) -> Kept:
    body = document["body"].encode()
    if hashlib.sha256(body).hexdigest() != document["sha256"]:
        raise ValueError("the kept snapshot's sha256 differs")
    # Not verified here: the notes of other addresses hold other services' keys, and name what must stay in the cache.
    signed = without_verifying(body)
    return Kept(body, signed, document["etag"], datetime.fromisoformat(document["confirmed_at"]))
