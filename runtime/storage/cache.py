"""What a bot keeps on disk so that it starts without the service. A crash at any moment leaves a usable folder.

    lock                  held while a client downloads, writes or deletes
    marks.json            the highest revision seen of each service
    pointers/<url>.json   of each address: the current and the previous snapshot, in their envelopes as they came
    bundles/<sha256>/     whole bundles, named by their digest
    unfinished/           what a crash may leave behind; emptied by the next client that follows a snapshot

A file or folder appears under its final name only when it is whole and on the disk. The pointer is written after the
bundles it names, and bundles are deleted after the pointer that no longer does. There are those of four releases at most:
in use, before it (the last good one), the fallback, and what awaits approval; a fifth while it is being fetched.
"""

import fcntl
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runtime.errors import CacheFailed
from runtime.protocol.envelope import PublicKeys
from runtime.protocol.snapshot import Model
from runtime.storage.disk import flush_folder, flush_to_disk, remove, told_as_cache_failed
from runtime.storage.notes import Notes

logger = logging.getLogger(__name__)

_LOCK_STEP_S = 0.02


class Cache:
    """The folder of one bot; clients of several services, and several processes, may share it.

    Raises CacheFailed where the folder can neither be found nor made.
    """

    def __init__(self, folder: Path, url: str, keys: PublicKeys) -> None:
        self.folder = folder
        self._bundles = folder / "bundles"
        self._unfinished = folder / "unfinished"
        self._mine = threading.Lock()  # the file's lock holds off other clients, not this one's other threads
        self.notes = Notes(folder, url, keys, draft_folder=self._unfinished)
        with told_as_cache_failed(folder):
            for needed in (self._bundles, self._unfinished, self.notes.pointers):
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
        with self._mine:
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
        if self._lock < 0:
            raise CacheFailed(f"{self.folder} was given back: this client is closed")
        with told_as_cache_failed(self.folder / "lock"):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def bundle(self, model: Model) -> Path:
        """Where this model's bundle lies or would lie."""
        return self._bundles / model.bundle.removeprefix("sha256:")

    def holds(self, model: Model) -> bool:
        """Whether something lies there, sound or not."""
        with told_as_cache_failed(self.bundle(model)):
            return self.bundle(model).exists()

    def admit(
        self, model: Model, fetch: Callable[[str, BinaryIO], None], verify: Callable[[Path], None]
    ) -> Path:
        """Bring a bundle in: `fetch(name, target)` writes each file, `verify(folder)` judges the whole.

        Only a verified bundle that is on the disk gets its name; one of that name that is there already goes. Raises
        CacheFailed (the disk) and whatever `fetch` and `verify` raise. The caller holds the lock.
        """
        target = self.bundle(model)
        with told_as_cache_failed(target):
            draft = Path(tempfile.mkdtemp(dir=self._unfinished))
            try:
                for name in model.files:
                    with (draft / name).open("wb") as file:
                        fetch(name, file)
                        flush_to_disk(file)
                verify(draft)
                flush_folder(draft)
                self._discard(target)
                draft.rename(target)
                flush_folder(self._bundles)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return target

    def prune(self, wanted: Collection[Model]) -> None:
        """Delete every bundle but `wanted` and what the notes name. The caller holds the lock.

        What cannot be deleted is only logged: a bot must be able to follow the pointer all the same.
        """
        names = {self.bundle(model).name for model in wanted}
        for named in self.notes.named():
            names |= {self.bundle(model).name for model in named.models.values()}
        try:
            for folder in self._bundles.iterdir():
                if folder.name not in names:
                    self._discard(folder)
            for left in self._unfinished.iterdir():
                remove(left)
        except OSError as error:
            logger.warning("old bundles stay in %s: %s", self.folder, error)

    def _discard(self, folder: Path) -> None:
        # Out of `bundles` in one step: a crash never leaves half a bundle under its name.
        if os.path.lexists(folder):
            grave = Path(tempfile.mkdtemp(dir=self._unfinished))
            folder.rename(grave / folder.name)
            shutil.rmtree(grave)
