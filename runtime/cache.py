"""What a bot keeps on disk so that it starts without the service. A crash at any moment leaves a usable folder.

    lock                  held while a client downloads or deletes
    marks.json            the highest epoch seen of each service
    pointers/<url>.json   of each address: the current and the previous snapshot, as they came
    bundles/<sha256>/     whole bundles, named by their digest
    unfinished/           what a crash may leave behind; emptied by the next client that holds the lock

A file or folder appears under its final name only when it is whole and on the disk (written elsewhere, fsync, rename).
The pointer is written after the bundles it names, and bundles are deleted after the pointer that no longer does.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from runtime.errors import CacheFailed, SnapshotRefused
from runtime.snapshot import Model, Snapshot, parse

logger = logging.getLogger(__name__)

FORMAT = 1
_LOCK_STEP_S = 0.02
_DAMAGE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    SnapshotRefused,
)  # what reading a damaged file raises


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot that was followed: the body as it came, the same parsed, its ETag, when it was last confirmed."""

    body: bytes
    snapshot: Snapshot
    etag: str | None
    confirmed_at: datetime


@dataclass(frozen=True, slots=True)
class Mark:
    """The highest epoch seen of one service, and what decided it (`Snapshot.content`)."""

    epoch: int
    content: str


class Cache:
    """The folder of one bot; clients of several services, and several processes, may share it.

    Raises CacheFailed where the folder can neither be found nor made.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self._url = url
        self._bundles = folder / "bundles"
        self._unfinished = folder / "unfinished"
        self._pointer = folder / "pointers" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
        self._marks_file = folder / "marks.json"
        self._marks: dict[str, Mark] = {}
        with _disk(folder):
            for needed in (self._bundles, self._unfinished, self._pointer.parent):
                needed.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Opened once: taking the lock must work on a disk that has meanwhile filled up.
            self._lock = os.open(folder / "lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Give the lock file back. Closing twice does no harm."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @contextmanager
    def exclusive(self, timeout_s: float) -> Iterator[None]:
        """Keep other clients of this folder from writing; raises CacheFailed after `timeout_s` of waiting."""
        give_up_at = time.monotonic() + timeout_s
        while not self._try_lock():
            if time.monotonic() > give_up_at:
                raise CacheFailed(
                    f"{self.folder} is being written by another client for over {timeout_s:g} s"
                )
            time.sleep(_LOCK_STEP_S)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _try_lock(self) -> bool:
        try:
            with _disk(self.folder / "lock"):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except CacheFailed as error:
            if isinstance(error.__cause__, BlockingIOError):
                return False
            raise
        return True

    # The pointer

    def current(self) -> Kept | None:
        """The snapshot that was last followed, or None. Raises CacheFailed where it is there but unreadable."""
        try:
            with _disk(self._pointer):
                document = self._read(self._pointer)
            return None if document is None else _kept(document["current"])
        except _DAMAGE as error:
            raise CacheFailed(f"{self._pointer} is damaged: {error}") from error

    def keep(self, kept: Kept) -> None:
        """Make `kept` the current snapshot; one of other content becomes the previous. Raises CacheFailed.

        The caller holds the lock, as for everything below that writes.
        """
        before = self._before(kept)
        document = {
            "format": FORMAT,
            "url": self._url,
            "current": _plain(kept),
            "previous": None if before is None else _plain(before),
        }
        with _disk(self._pointer):
            self._write(self._pointer, document)

    def _before(self, kept: Kept) -> Kept | None:
        try:
            document = self._read(self._pointer)
            if document is None:
                return None
            current = _kept(document["current"])
            if current.snapshot.content != kept.snapshot.content:
                return current
            return _kept(document["previous"]) if document["previous"] else None
        except (OSError, *_DAMAGE) as error:
            logger.warning("the kept pointer cannot be read and is replaced: %s", error)
            return None

    # The marks

    def mark(self, service: str) -> Mark | None:
        """The highest epoch seen of `service`, by this client or, on disk, by any other of this folder."""
        found = [self._marks.get(service), self._marks_on_disk().get(service), *self._followed(service)]
        return max(filter(None, found), key=lambda mark: mark.epoch, default=None)

    def _followed(self, service: str) -> Iterator[Mark]:
        # What was followed was also seen: a lost file of marks does not open the door to old epochs.
        for kept in self._all_kept():
            if kept.snapshot.service == service:
                yield Mark(kept.snapshot.epoch, kept.snapshot.content)

    def raise_mark(self, service: str, mark: Mark) -> None:
        """Remember `mark`, which the caller found higher. In memory at once; a full disk is only logged."""
        self._marks[service] = mark
        marks = self._marks_on_disk() | {service: mark}
        services = {name: {"epoch": one.epoch, "content": one.content} for name, one in sorted(marks.items())}
        try:
            self._write(self._marks_file, {"format": FORMAT, "services": services})
        except OSError as error:
            logger.warning("epoch %d of %s could not be noted on disk: %s", mark.epoch, service, error)

    def _marks_on_disk(self) -> dict[str, Mark]:
        try:
            services = (self._read(self._marks_file) or {"services": {}})["services"]
            return {name: Mark(int(mark["epoch"]), str(mark["content"])) for name, mark in services.items()}
        except (OSError, *_DAMAGE) as error:
            logger.warning("the epochs seen so far cannot be read: %s", error)
            return {}

    # The bundles

    def bundle(self, model: Model) -> Path:
        """Where this model's bundle lies or would lie."""
        return self._bundles / model.bundle.removeprefix("sha256:")

    def holds(self, model: Model) -> bool:
        """Whether something lies there, sound or not."""
        with _disk(self.bundle(model)):
            return self.bundle(model).exists()

    def admit(
        self, model: Model, fetch: Callable[[str, BinaryIO], None], verify: Callable[[Path], None]
    ) -> Path:
        """Bring a bundle in: `fetch(name, target)` writes each file, `verify(folder)` judges the whole.

        Only a verified bundle that is on the disk gets its name; one of that name that is there already goes. Raises
        CacheFailed (the disk) and whatever `fetch` and `verify` raise.
        """
        target = self.bundle(model)
        with _disk(target):
            draft = Path(tempfile.mkdtemp(dir=self._unfinished))
            try:
                for name in model.files:
                    with (draft / name).open("wb") as file:
                        fetch(name, file)
                        _to_disk(file)
                verify(draft)
                _sync_folder(draft)
                self._discard(target)
                draft.rename(target)
                _sync_folder(self._bundles)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return target

    def prune(self, wanted: Collection[Model]) -> None:
        """Delete every bundle but `wanted` and those of the current and previous snapshots.

        What cannot be deleted is only logged: a bot must be able to follow the pointer all the same.
        """
        names = {self.bundle(model).name for model in wanted}
        for kept in self._all_kept():
            names |= {self.bundle(model).name for model in kept.snapshot.models.values()}
        try:
            for folder in self._bundles.iterdir():
                if folder.name not in names:
                    self._discard(folder)
            for left in self._unfinished.iterdir():
                _remove(left)
        except OSError as error:
            logger.warning("old bundles stay in %s: %s", self.folder, error)

    def _discard(self, folder: Path) -> None:
        # Out of `bundles` in one step: a crash never leaves half a bundle under its name.
        if os.path.lexists(folder):
            grave = Path(tempfile.mkdtemp(dir=self._unfinished))
            folder.rename(grave / folder.name)
            shutil.rmtree(grave)

    def _all_kept(self) -> Iterator[Kept]:
        for path in sorted(self._pointer.parent.glob("*.json")):
            try:
                document = self._read(path) or {}
                yield from (_kept(document[key]) for key in ("current", "previous") if document.get(key))
            except (OSError, *_DAMAGE) as error:
                logger.warning("%s cannot be read, and what it alone names may go: %s", path, error)

    # Files

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"{path.name} is not of format {FORMAT}")
        return document

    def _write(self, path: Path, document: dict[str, Any]) -> None:
        handle, name = tempfile.mkstemp(dir=self._unfinished)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(json.dumps(document, indent=1).encode())
                _to_disk(file)
            Path(name).rename(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


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
        raise ValueError("the kept snapshot is damaged: its sha256 differs")
    return Kept(body, parse(body), document["etag"], datetime.fromisoformat(document["confirmed_at"]))


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn what the disk raises into CacheFailed."""
    try:
        yield
    except OSError as error:
        raise CacheFailed(f"{path}: {error.strerror or error}") from error


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
