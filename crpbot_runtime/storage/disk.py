"""Atomic writes: to a draft first, fsync, then rename. A crash leaves the old file or the new one, never a part."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from crpbot_runtime.errors import CacheFailed

FORMAT = 1

FileIdentity = tuple[int, int, int]


@contextmanager
def translate_disk_errors(path: Path) -> Iterator[None]:
    """Turn OSError into CacheFailed with the path and the system's reason."""
    try:
        yield
    except OSError as error:
        raise CacheFailed(f"{path}: {error.strerror or error}") from error


def get_file_identity(path: Path) -> FileIdentity | None:
    """A value that changes whenever `write_json` writes this file; None if there is none. Raises OSError."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def read_json(path: Path) -> dict[str, Any] | None:
    """A document written by `write_json`; None if there is none. Raises OSError, ValueError (damaged)."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path.name} is not of format {FORMAT}")
    return document


def write_json(path: Path, document: dict[str, Any], *, draft_folder: Path) -> None:
    """Replace `path` in one step; the draft lies in `draft_folder`, on the same disk. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=draft_folder)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps({"format": FORMAT, **document}, indent=1).encode())
            flush_to_disk(file)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    flush_folder(path.parent)


def flush_to_disk(file: BinaryIO) -> None:
    """Return once the file's bytes would survive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """The same for the names in a folder: only then is a rename on the disk. Windows has no call for it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
