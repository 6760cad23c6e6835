"""A file system of a few megabytes, for faults that only a disk without room shows. Mounting it takes root."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_BLOCK = b"\0" * 65_536


@dataclass(frozen=True)
class SmallDisk:
    folder: Path

    def fill(self) -> None:
        """Leave not one byte."""
        for size in (len(_BLOCK), 1024, 1):
            with (self.folder / "filler").open("ab", buffering=0) as filler:
                try:
                    while filler.write(_BLOCK[:size]) == size:
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC, os.strerror(error.errno or 0)

    def make_room(self) -> None:
        (self.folder / "filler").unlink()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs of this size at a folder. Skips the test, with a note, where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        said = "" if done.returncode == 0 else done.stderr.strip()
    except OSError as error:
        said = str(error)
    if said:
        pytest.skip(
            f"NOTE: no small file system can be mounted here, so a full one is NOT tested: {said[:200]}"
        )
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
