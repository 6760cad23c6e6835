"""What a client writes down: which snapshot it follows, and the highest epoch it has seen of each service."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from runtime.disk import read_json, told_as_cache_failed, write_json
from runtime.envelope import PublicKeys, Signed, verify, without_verifying
from runtime.errors import CacheFailed, Refused
from runtime.snapshot import Snapshot

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
    """The highest epoch seen of one service, and what decided it (`Snapshot.content`)."""

    epoch: int
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
        self._marks_in_memory: dict[str, Mark] = {}

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
        for path in sorted(self.pointers.glob("*.json")):
            try:
                document = read_json(path) or {}
                yield from [_kept(document[key]) for key in ("current", "previous") if document.get(key)]
            except (OSError, *DAMAGE) as error:
                logger.warning("%s cannot be read, and what it alone names may go: %s", path, error)

    def mark(self, service: str) -> Mark | None:
        """The highest epoch seen of `service`, by this client or, on disk, by any other of the folder."""
        marks = [self._marks_in_memory.get(service), self._marks_on_disk().get(service)]
        # What was followed was also seen: a lost file of marks does not open the door to old epochs.
        for kept in self.followed():
            if kept.snapshot.service == service:
                marks.append(Mark(kept.snapshot.epoch, kept.snapshot.content))
        return max(filter(None, marks), key=lambda mark: mark.epoch, default=None)

    def raise_mark(self, service: str, mark: Mark) -> None:
        """Remember `mark`, which the caller found higher: in memory at once; that a disk is full is only logged."""
        self._marks_in_memory[service] = mark
        marks = self._marks_on_disk() | {service: mark}
        services = {name: {"epoch": one.epoch, "content": one.content} for name, one in sorted(marks.items())}
        try:
            write_json(self._marks, {"services": services}, draft_folder=self._draft_folder)
        except OSError as error:
            logger.warning("epoch %d of %s could not be noted on disk: %s", mark.epoch, service, error)

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
            services = (read_json(self._marks) or {"services": {}})["services"]
            return {name: Mark(int(mark["epoch"]), str(mark["content"])) for name, mark in services.items()}
        except (OSError, *DAMAGE) as error:
            logger.warning("the epochs seen so far cannot be read: %s", error)
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
