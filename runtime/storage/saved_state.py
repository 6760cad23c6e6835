"""What a client saves: the snapshot it follows, and the highest revision and audit head seen of each service."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from runtime.errors import CacheFailed, Refused
from runtime.protocol.envelope import AuditHead, PublicKeys, SignedSnapshot, parse_unverified, verify_envelope
from runtime.protocol.snapshot import ModelSet, Snapshot
from runtime.storage.disk import FileIdentity, get_file_identity, read_json, translate_disk_errors, write_json

logger = logging.getLogger(__name__)

DAMAGE = (ValueError, KeyError, TypeError, AttributeError, Refused)
"""What reading a damaged document raises."""


@dataclass(frozen=True, slots=True)
class ReceivedSnapshot:
    """A verified snapshot: the envelope as received, its parsed content, its ETag, and when it was last confirmed."""

    body: bytes
    signed: SignedSnapshot
    etag: str | None
    confirmed_at: datetime

    @property
    def snapshot(self) -> Snapshot:
        return self.signed.snapshot

    @property
    def mark(self) -> "RevisionMark":
        return RevisionMark(self.snapshot.revision, self.snapshot.content)


@dataclass(frozen=True, slots=True)
class RevisionMark:
    """The highest revision seen of one service, with its `Snapshot.content`."""

    revision: int
    content: str


class SavedState:
    """The saved state in one cache folder, for the service at `url`. Writers hold the folder's lock."""

    def __init__(self, folder: Path, url: str, keys: PublicKeys, *, draft_folder: Path) -> None:
        self.pointers = folder / "pointers"
        self._pointer_file = self.pointers / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
        self._revisions_file = folder / "revisions.json"
        self._url = url
        self._keys = keys
        self._draft_folder = draft_folder
        self._highest: dict[str, RevisionMark] = {}
        self._heads: dict[str, AuditHead] = {}
        self._last_read_identity: FileIdentity | None = None
        # A followed snapshot was also seen: a lost revisions file does not let old revisions in.
        for current, previous in self._read_pointer_files():
            for received in (current, *previous):
                self._raise_mark(received.snapshot.service, received.mark)
                self._raise_head(received.snapshot.service, received.signed.audit_head)
        self._is_unsaved = False

    def load_current(self) -> ReceivedSnapshot | None:
        """The snapshot last followed from this address, with its signature verified again; None if there is none.

        Raises CacheFailed if it cannot be read, or is not signed by a key that this bot trusts now.
        """
        try:
            with translate_disk_errors(self._pointer_file):
                received = next(_read_pointer_file(self._pointer_file), None)
            return received and replace(received, signed=verify_envelope(received.body, self._keys))
        except Refused as error:
            raise CacheFailed(f"{self._pointer_file} is not to be trusted: {error}") from error
        except DAMAGE as error:
            raise CacheFailed(f"{self._pointer_file} is damaged: {error}") from error

    def save_current(self, received: ReceivedSnapshot) -> None:
        """Save this as the current snapshot; one of other content becomes the previous. Raises CacheFailed."""
        previous = self._find_previous(received)
        document = {
            "url": self._url,
            "current": _serialize(received),
            "previous": _serialize(previous) if previous else None,
        }
        with translate_disk_errors(self._pointer_file):
            write_json(self._pointer_file, document, draft_folder=self._draft_folder)

    def list_model_sets(self) -> Iterator[ModelSet]:
        """What must stay in the folder: both snapshots of each address, and what the current one announces."""
        for current, previous in self._read_pointer_files():
            yield current.snapshot
            yield from current.signed.announced
            yield from (received.snapshot for received in previous)

    def get_highest_revision(self, service: str) -> RevisionMark | None:
        """The highest revision seen of `service`, by this client or, on disk, by any other of the folder."""
        self._raise_to_saved_marks()
        return self._highest.get(service)

    def record_revision(self, service: str, mark: RevisionMark) -> None:
        """Remember a higher revision: in memory at once, on the disk with `save_revisions`."""
        self._highest[service] = mark
        self._is_unsaved = True

    def get_highest_head(self, service: str) -> AuditHead | None:
        """The highest audit head seen of `service`: heartbeats report it, so that a chain cut short is detected."""
        return self._heads.get(service)

    def record_head(self, service: str, head: AuditHead) -> None:
        """Remember a higher audit head, as `record_revision` does. Of two with the same number the first one stays."""
        self._is_unsaved |= self._raise_head(service, head)

    def save_revisions(self) -> None:
        """Save what was remembered since. A full disk is only logged; the next call tries again."""
        if not self._is_unsaved:
            return
        self._raise_to_saved_marks()
        document = {
            "services": {service: asdict(mark) for service, mark in sorted(self._highest.items())},
            "audit_heads": {service: asdict(head) for service, head in sorted(self._heads.items())},
        }
        try:
            write_json(self._revisions_file, document, draft_folder=self._draft_folder)
            self._is_unsaved = False
        except OSError as error:
            logger.warning("the highest revisions seen could not be saved: %s", error)

    def _read_pointer_files(self) -> Iterator[tuple[ReceivedSnapshot, list[ReceivedSnapshot]]]:
        """The current snapshot of each address, and the previous one if there is one."""
        for path in sorted(self.pointers.glob("*.json")):
            try:
                if snapshots := list(_read_pointer_file(path)):
                    yield snapshots[0], snapshots[1:]
            except (OSError, *DAMAGE) as error:
                logger.warning(
                    "%s cannot be read; bundles that only it names may be deleted: %s", path, error
                )

    def _raise_mark(self, service: str, mark: RevisionMark) -> None:
        known = self._highest.get(service)
        if known is None or mark.revision > known.revision:
            self._highest[service] = mark

    def _raise_head(self, service: str, head: AuditHead) -> bool:
        known = self._heads.get(service)
        if known is not None and head.seq <= known.seq:
            return False
        self._heads[service] = head
        return True

    def _find_previous(self, received: ReceivedSnapshot) -> ReceivedSnapshot | None:
        content = received.snapshot.content
        try:
            saved = _read_pointer_file(self._pointer_file)
            return next((previous for previous in saved if previous.snapshot.content != content), None)
        except (OSError, *DAMAGE) as error:
            logger.warning("the saved pointer cannot be read and is replaced: %s", error)
            return None

    def _raise_to_saved_marks(self) -> None:
        try:
            # Called at every move, while others hardly ever write: an unchanged file is not read again.
            identity = get_file_identity(self._revisions_file)
            if identity is None or identity != self._last_read_identity:
                saved = read_json(self._revisions_file) or {"services": {}}
                for service, mark in saved["services"].items():
                    self._raise_mark(service, RevisionMark(int(mark["revision"]), str(mark["content"])))
                for service, head in saved.get("audit_heads", {}).items():
                    self._raise_head(service, AuditHead(int(head["seq"]), str(head["hash"])))
                self._last_read_identity = identity
        except (OSError, *DAMAGE) as error:
            logger.warning("the highest revisions seen cannot be read: %s", error)


def _read_pointer_file(path: Path) -> Iterator[ReceivedSnapshot]:
    """The current snapshot of one address, then the previous one; nothing without a file. Raises OSError and DAMAGE."""
    if (document := read_json(path)) is not None:
        yield _deserialize(document["current"])
        if document["previous"]:
            yield _deserialize(document["previous"])


def _serialize(received: ReceivedSnapshot) -> dict[str, Any]:
    return {
        "body": received.body.decode(),
        "sha256": hashlib.sha256(received.body).hexdigest(),
        "etag": received.etag,
        "confirmed_at": received.confirmed_at.isoformat(),
    }


def _deserialize(document: dict[str, Any]) -> ReceivedSnapshot:
    body = document["body"].encode()
    if hashlib.sha256(body).hexdigest() != document["sha256"]:
        raise ValueError("the saved snapshot's sha256 differs")
    # Not verified here: files of other addresses are signed by other services, and name what must stay in the cache.
    confirmed_at = datetime.fromisoformat(document["confirmed_at"])
    return ReceivedSnapshot(body, parse_unverified(body), document["etag"], confirmed_at)
