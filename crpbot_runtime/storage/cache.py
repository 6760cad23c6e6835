"""What a bot keeps on disk so that it starts without the service. A crash at any moment leaves a usable folder.

    lock                  held while a client downloads, writes or deletes
    revisions.json        the highest revision and audit head seen of each service, by the key that signed it
    pointers/<url>.json   for each address: the current and the previous snapshot, in their envelopes as received
    pointers/<url>.keys   for each address: the signed sets of keys that led to those the bot trusts
    bundles/<sha256>/     complete bundles, named by their digest
    unfinished/           what a crash may leave behind; emptied by the next client that follows a snapshot

A file or folder gets its final name only once it is complete and on the disk. The pointer is written after the bundles it
names, and bundles are deleted after the pointer that no longer names them. The folder holds at most four releases: current,
previous, fallback, and the one that awaits approval; a fifth during its download.
"""

import logging
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from crpbot_runtime.errors import CacheFailed
from crpbot_runtime.protocol.public_keys import PublicKeys
from crpbot_runtime.protocol.snapshot import Model
from crpbot_runtime.storage.disk import flush_folder, flush_to_disk, remove, translate_disk_errors
from crpbot_runtime.storage.saved_state import POINTERS, SavedState

logger = logging.getLogger(__name__)

BUNDLES, UNFINISHED, LOCK = "bundles", "unfinished", "lock"
_LOCK_STEP_S = 0.02


class Cache:
    """The folder of one bot. Clients of several services, and several processes, may share it.

    A folder that exists and cannot be written to is copied to a temporary one, which ends with the client; `problem`
    says so.
    Raises CacheFailed if the folder cannot be created.
    """

    def __init__(self, folder: Path, url: str, keys: PublicKeys) -> None:
        self.problem: CacheFailed | None = None
        with translate_disk_errors(folder):
            try:
                _prepare(folder)
            except OSError as error:
                if not folder.is_dir():
                    raise
                copy = Path(tempfile.mkdtemp(prefix="crpbot-"))
                self._delete_copy = weakref.finalize(self, _delete_copy, copy, os.getpid())
                self.problem = CacheFailed(
                    f"{folder} cannot be written to ({error.strerror}): this bot works from a temporary copy, and a restart"
                    " begins with what the folder holds; give it a folder of its own (cache_dir, CRPBOT_CACHE_DIR)"
                )
                shutil.copytree(folder, copy, dirs_exist_ok=True)
                for path in (copy, *copy.rglob("*")):
                    path.chmod(0o700)  # they are as read-only as what was copied
                folder = copy
                _prepare(folder)
        self.folder = folder
        self._bundles, self._unfinished = folder / BUNDLES, folder / UNFINISHED
        self._is_closed = False
        self._thread_lock = threading.Lock()
        self.saved_state = SavedState(folder, url, keys, draft_folder=self._unfinished)

    def close(self) -> None:
        """Write nothing more, and delete a temporary copy. Closing twice is harmless."""
        self._is_closed = True
        if self.problem is not None:
            self._delete_copy()

    def renew_after_fork(self) -> None:
        """In the child no thread holds the lock."""
        self._thread_lock = threading.Lock()

    @contextmanager
    def lock(self, timeout_s: float) -> Iterator[None]:
        """Keep other clients of this folder from writing. Raises CacheFailed after waiting for `timeout_s`."""
        # A new lock each time: it belongs to the thread and the process that made it. On a full disk it can still be taken.
        lock = FileLock(self.folder / LOCK, timeout_s, poll_interval=_LOCK_STEP_S)
        with self._thread_lock:
            if self._is_closed:
                raise CacheFailed(f"{self.folder} is closed, as its client is")
            with translate_disk_errors(self.folder / LOCK):
                try:
                    lock.acquire()
                except Timeout:
                    raise CacheFailed(
                        f"{self.folder} is being written by another client for over {timeout_s:g} s"
                    ) from None
            try:
                yield
            finally:
                lock.release()

    def locate_bundle(self, model: Model) -> Path:
        """The folder of this model's bundle, whether it exists or not."""
        return self._bundles / model.bundle.removeprefix("sha256:")

    def has_bundle(self, model: Model) -> bool:
        """Whether that folder exists, sound or not."""
        with translate_disk_errors(self.locate_bundle(model)):
            return self.locate_bundle(model).exists()

    def add_bundle(
        self, model: Model, fetch: Callable[[str, BinaryIO], None], verify: Callable[[Path], None]
    ) -> Path:
        """Add a bundle, replacing one of the same name. The caller holds the lock.

        `fetch(name, target)` writes each file; `verify(folder)` checks the whole before it gets its name. Raises
        CacheFailed for the disk, and whatever `fetch` and `verify` raise.
        """
        target = self.locate_bundle(model)
        with translate_disk_errors(target):
            draft = Path(tempfile.mkdtemp(dir=self._unfinished))
            try:
                for name in model.files:
                    with (draft / name).open("wb") as file:
                        fetch(name, file)
                        flush_to_disk(file)
                verify(draft)
                flush_folder(draft)
                self._remove_bundle(target)
                draft.replace(target)
                flush_folder(self._bundles)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return target

    def delete_unused(self, wanted: Collection[Model] = ()) -> None:
        """Delete every bundle but `wanted` and what the saved state names. The caller holds the lock.

        A failure to delete is only logged: a bot must be able to follow the pointer all the same.
        """
        names = {self.locate_bundle(model).name for model in wanted}
        for model_set in self.saved_state.list_model_sets():
            names |= {self.locate_bundle(model).name for model in model_set.models.values()}
        try:
            for folder in self._bundles.iterdir():
                if folder.name not in names:
                    self._remove_bundle(folder)
            for leftover in self._unfinished.iterdir():
                remove(leftover)
        except OSError as error:
            logger.warning("old bundles could not be deleted from %s: %s", self.folder, error)

    def _remove_bundle(self, folder: Path) -> None:
        # Moved out of `bundles` in one step: a crash never leaves half a bundle under its name.
        if os.path.lexists(folder):
            trash = Path(tempfile.mkdtemp(dir=self._unfinished))
            folder.replace(trash / folder.name)
            shutil.rmtree(trash)


def _prepare(folder: Path) -> None:
    """Create what is missing in the folder, and try whether it can be written to. Raises OSError."""
    for needed in (folder / BUNDLES, folder / UNFINISHED, folder / POINTERS):
        needed.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=needed):
            pass
    with suppress(Timeout), FileLock(folder / LOCK, blocking=False):
        pass


def _delete_copy(copy: Path, pid: int) -> None:
    if os.getpid() == pid:  # after a fork it stays the parent's
        shutil.rmtree(copy, ignore_errors=True)
