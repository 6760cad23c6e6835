"""Atomic files in a folder."""

import os
import tempfile
from pathlib import Path

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage


class AtomicFileStorage(FileSystemStorage):
    """A file appears only once all of it is on disk: temporary file, fsync, rename, fsync of the folder."""

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name  # names are hashes or keys of one attempt: writing one again writes the same bytes

    def _save(self, name: str, content: File) -> str:  # type: ignore[type-arg]  # takes no arguments at run time
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=".draft-")
        try:
            with os.fdopen(descriptor, "wb") as out:
                for chunk in content.chunks():
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            Path(draft).replace(target)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return name
