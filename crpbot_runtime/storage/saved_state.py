"""What a client saves: the snapshot it follows, highest revisions and audit heads seen, and the keys it trusts."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from crpbot_runtime.errors import CacheFailed, Refused
from crpbot_runtime.protocol.envelope import AuditHead, SignedSnapshot, parse_unverified, verify_envelope
from crpbot_runtime.protocol.public_keys import PublicKeys
from crpbot_runtime.protocol.snapshot import ModelSet, Snapshot
from crpbot_runtime.storage.disk import (
    FileIdentity,
    get_file_identity,
    read_json,
    translate_disk_errors,
    write_json,
)

logger = logging.getLogger(__name__)

POINTERS = "pointers"

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
    """The saved state in one cache folder, for the service at `url`. Writers hold the folder's lock.

    `keys` are those that the bot trusts now. A bot that is given others by hand begins with those again: the saved sets of
    keys count only where they follow from the given ones.

    A seen revision counts only while a key that signed it is trusted. Otherwise a thief of a key could sign a revision
    so high that no bot would follow the service again, even after the key was retired (fast-forward).
    """

    def __init__(self, folder: Path, url: str, keys: PublicKeys, *, draft_folder: Path) -> None:
        self.pointers = folder / POINTERS
        name = hashlib.sha256(url.encode()).hexdigest()[:32]
        self._pointer_file = self.pointers / f"{name}.json"
        self._keys_file = self.pointers / f"{name}.keys"
        self._revisions_file = folder / "revisions.json"
        self._url = url
        self._draft_folder = draft_folder
        self._unsaved_key_sets: bytes | None = None
        self.keys = self._load_keys(keys)
        # By service and by the id of the key that signed them.
        self._highest: dict[str, dict[str, RevisionMark]] = {}
        self._heads: dict[str, dict[str, AuditHead]] = {}
        self._last_read_identity: FileIdentity | None = None
        # A followed snapshot was also seen: a lost revisions file does not let old revisions in.
        for current, previous in self._read_pointer_files():
            for received in (current, *previous):
                self._raise_marks(received.snapshot.service, received.signed.key_ids, received.mark)
                self._raise_heads(
                    received.snapshot.service, received.signed.key_ids, received.signed.audit_head
                )
        self._is_unsaved = False

    def load_current(self) -> ReceivedSnapshot | None:
        """The snapshot last followed from this address, with its signature verified again; None if there is none.

        Raises CacheFailed if it cannot be read, or is not signed by a key that this bot trusts now.
        """
        try:
            with translate_disk_errors(self._pointer_file):
                received = next(_read_pointer_file(self._pointer_file), None)
            return received and replace(received, signed=verify_envelope(received.body, self.keys))
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
        """The highest revision of `service` seen under a key trusted now, by this client or any other of the folder."""
        self._raise_to_saved_marks()
        marks = self._highest.get(service, {})
        trusted = [marks[key_id] for key_id in self.keys.key_ids if key_id in marks]
        return max(trusted, key=lambda mark: mark.revision, default=None)

    def record_revision(self, received: ReceivedSnapshot) -> None:
        """Remember its revision where it is higher: in memory at once, on the disk with `save_revisions`."""
        signed = received.signed
        self._is_unsaved |= self._raise_marks(signed.snapshot.service, signed.key_ids, received.mark)

    def follow_keys(self, key_sets: bytes) -> bool:
        """Trust the keys that these sets lead to, at once; on the disk with `save_revisions`. Returns whether they differ.

        Raises KeysRefused.
        """
        keys = self.keys.follow(key_sets)
        if keys == self.keys:
            return False
        logger.warning("the service changed its keys: this bot trusts %r from now on", keys)
        self.keys, self._unsaved_key_sets = keys, key_sets
        return True

    @property
    def has_unsaved_keys(self) -> bool:
        return self._unsaved_key_sets is not None

    def get_highest_head(self, service: str) -> AuditHead | None:
        """The highest audit head of `service` seen under a key trusted now: heartbeats report it."""
        heads = self._heads.get(service, {})
        trusted = [heads[key_id] for key_id in self.keys.key_ids if key_id in heads]
        return max(trusted, key=lambda head: head.seq, default=None)

    def record_head(self, signed: SignedSnapshot) -> None:
        """Remember a higher audit head, as `record_revision` does. Of two with the same number the first one stays."""
        self._is_unsaved |= self._raise_heads(signed.snapshot.service, signed.key_ids, signed.audit_head)

    def save_revisions(self) -> None:
        """Save what was remembered since. A full disk is only logged; the next call tries again.

        Call it under the lock of the folder.
        """
        self._save_keys()
        if not self._is_unsaved:
            return
        self._raise_to_saved_marks()
        document = {"services": _serialize_marks(self._highest), "audit_heads": _serialize_marks(self._heads)}
        try:
            write_json(self._revisions_file, document, draft_folder=self._draft_folder)
            self._is_unsaved = False
            # No other client writes under the lock, and the next move must not wait for what this one wrote itself.
            self._last_read_identity = get_file_identity(self._revisions_file)
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

    def _raise_marks(self, service: str, key_ids: Iterable[str], mark: RevisionMark) -> bool:
        """Returns whether any of them was raised."""
        marks = self._highest.setdefault(service, {})
        lower = [
            key_id for key_id in key_ids if key_id not in marks or marks[key_id].revision < mark.revision
        ]
        marks.update(dict.fromkeys(lower, mark))
        return bool(lower)

    def _load_keys(self, given: PublicKeys) -> PublicKeys:
        try:
            document = read_json(self._keys_file)
            return given if document is None else given.follow(document["key_sets"].encode())
        except (OSError, *DAMAGE) as error:
            # The sets are asked for again, and verified again.
            logger.warning("%s cannot be used, and the given keys are trusted: %s", self._keys_file, error)
            return given

    def _save_keys(self) -> None:
        key_sets = self._unsaved_key_sets
        if key_sets is None:
            return
        try:
            document = {"url": self._url, "key_sets": key_sets.decode()}
            write_json(self._keys_file, document, draft_folder=self._draft_folder)
            self._unsaved_key_sets = None
        except OSError as error:
            logger.warning("the keys that the service changed to could not be saved: %s", error)

    def _raise_heads(self, service: str, key_ids: Iterable[str], head: AuditHead) -> bool:
        """Returns whether any of them was raised."""
        heads = self._heads.setdefault(service, {})
        lower = [key_id for key_id in key_ids if key_id not in heads or heads[key_id].seq < head.seq]
        heads.update(dict.fromkeys(lower, head))
        return bool(lower)

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
                for service, marks in saved["services"].items():
                    for key_id, mark in marks.items():
                        read = RevisionMark(int(mark["revision"]), str(mark["content"]))
                        self._raise_marks(service, [key_id], read)
                for service, heads in saved.get("audit_heads", {}).items():
                    for key_id, head in heads.items():
                        self._raise_heads(service, [key_id], AuditHead(int(head["seq"]), str(head["hash"])))
                self._last_read_identity = identity
        except (OSError, *DAMAGE) as error:
            logger.warning("the highest revisions seen cannot be read: %s", error)


def _read_pointer_file(path: Path) -> Iterator[ReceivedSnapshot]:
    """The current snapshot of one address, then the previous one; nothing without a file. Raises OSError and DAMAGE."""
    if (document := read_json(path)) is not None:
        yield _deserialize(document["current"])
        if document["previous"]:
            yield _deserialize(document["previous"])


def _serialize_marks(marks: Mapping[str, Mapping[str, RevisionMark | AuditHead]]) -> dict[str, Any]:
    """By service, then by key."""
    return {
        service: {key_id: asdict(mark) for key_id, mark in sorted(of_service.items())}
        for service, of_service in sorted(marks.items())
    }


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
