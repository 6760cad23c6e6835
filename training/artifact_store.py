"""Content-addressed files: datasets and bundles are stored under their sha256, checkpoints under their run,
baselines under the key of what they were fitted on.

The code uses Django's default storage, so it works with a folder and with S3.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone
from s3transfer.exceptions import RetriesExceededError
from urllib3.exceptions import HTTPError

from common.errors import Conflict, Unavailable
from mlcore.data import candles
from training.models import Artifact, Bundle, Dataset

RENEWED_AFTER = timedelta(days=1)
STORE_ERRORS = (OSError, Boto3Error, BotoCoreError, ClientError, RetriesExceededError, HTTPError, KeyError)
"""What a folder or S3 raises when it does not answer: django-storages passes on the errors of four libraries.

KeyError: an answer was cut within its headers, and boto3 finds no ContentLength.
"""


class FileLost(Conflict):
    """A stored file is missing, or its bytes do not match its hash."""

    title = "File lost"


class StoreUnavailable(Unavailable):
    """The file store does not answer or is full; try again later."""


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Turn errors of the folder or of S3 into StoreUnavailable; FileNotFoundError is raised on."""
    try:
        yield
    except FileNotFoundError:
        raise
    except STORE_ERRORS as error:
        raise StoreUnavailable(f"The file store does not answer ({error}).") from error


def key(sha256: str) -> str:
    """The storage key of the file with this hash."""
    return f"sha256/{sha256[:2]}/{sha256}"


def store(data: bytes) -> str:
    """Store these bytes and return their sha256 (hex). Storing them again repairs a damaged copy.

    It also renews an old one, which no row may name yet: files that no row names are deleted by their age.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    if not is_intact(sha256, len(data)) or _is_old(key(sha256)):
        with _translate_errors():
            default_storage.save(key(sha256), ContentFile(data))
    return sha256


def _is_old(name: str) -> bool:
    with _translate_errors():
        return timezone.now() - default_storage.get_modified_time(name) > RENEWED_AFTER


def list_stored(prefix: str) -> set[str]:
    """The sha256 of each stored file that begins with these two letters. Raises StoreUnavailable."""
    return {name for name in _list(f"sha256/{prefix}")[1] if len(name) == 64}


def list_checkpoints() -> dict[int, list[str]]:
    """The keys of all stored resume states, by the number of their run. Raises StoreUnavailable."""
    folders = [name for name in _list("checkpoints")[0] if name.removeprefix("run-").isdecimal()]
    return {
        int(folder.removeprefix("run-")): [
            f"checkpoints/{folder}/{name}" for name in _list(f"checkpoints/{folder}")[1]
        ]
        for folder in folders
    }


def delete_older(name: str, than: datetime) -> bool:
    """Delete a file that was stored before this time; whether there was one. Raises StoreUnavailable."""
    with _translate_errors():
        try:
            if default_storage.get_modified_time(name) >= than:
                return False
        except FileNotFoundError:
            return False
        default_storage.delete(name)
    return True


def _list(folder: str) -> tuple[list[str], list[str]]:
    """The folders and the files in a folder of the store."""
    try:
        with _translate_errors():
            folders, files = default_storage.listdir(folder)
    except FileNotFoundError:
        return [], []
    return folders, files


def store_files(payload: Mapping[str, bytes]) -> list[Artifact]:
    """Store the files of a bundle; returns their rows, sorted by name and not yet saved."""
    return [
        Artifact(name=name, sha256=store(content), size=len(content))
        for name, content in sorted(payload.items())
    ]


def create_bundle(digest: str, artifacts: Sequence[Artifact], **columns: Any) -> tuple[Bundle, bool]:
    """Create the rows of a bundle whose files are stored; returns the existing bundle for a known digest."""
    bundle, is_new = Bundle.objects.get_or_create(digest=digest, defaults=columns)
    if is_new:
        for artifact in artifacts:
            artifact.bundle = bundle
        Artifact.objects.bulk_create(artifacts)
    return bundle, is_new


def open_stream(sha256: str) -> Any:
    """Open the stored file for binary reading. Raises FileLost when it is missing."""
    try:
        with _translate_errors():
            return default_storage.open(key(sha256), "rb")
    except FileNotFoundError:
        raise FileLost(
            f"The file sha256:{sha256} is missing from the store: restore it from a backup."
        ) from None


class VerifiedStream:
    """A stored file for reading that never passes on the end of other bytes than those of its hash.

    Bytes that change while they are read are noticed before the last of them is returned: what was copied from here is
    incomplete, and not wrong.
    """

    def __init__(self, stream: Any, sha256: str, size: int) -> None:
        self.size = size
        self._stream, self._sha256 = stream, sha256
        self._left, self._digest = size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes; empty at the end. Raises FileLost in place of the last ones if any byte was wrong."""
        if self._left == 0:
            return b""
        with _translate_errors():
            chunk: bytes = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._digest.update(chunk)
        self._left -= len(chunk)
        if not chunk or (self._left == 0 and self._digest.hexdigest() != self._sha256):
            raise _describe_damage(self._sha256, self.size)
        return chunk

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> "VerifiedStream":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_verified(sha256: str, size: int) -> VerifiedStream:
    """Open the stored file after reading and hashing all of it. Raises FileLost when it is missing or damaged."""
    stream = open_stream(sha256)
    try:
        with _translate_errors():
            is_whole = stream.size == size and hashlib.file_digest(stream, "sha256").hexdigest() == sha256
            stream.seek(0)
    except BaseException:
        stream.close()
        raise
    if not is_whole:
        stream.close()
        raise _describe_damage(sha256, size)
    return VerifiedStream(stream, sha256, size)


def _describe_damage(sha256: str, size: int) -> FileLost:
    return FileLost(
        f"The file sha256:{sha256} is damaged: the store no longer has its {size:,} bytes. Restore it from a backup."
    )


def read(sha256: str) -> bytes:
    """Read the file and check its hash. Raises FileLost when it is missing or damaged."""
    with _translate_errors(), open_stream(sha256) as stream:
        data: bytes = stream.read()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise FileLost(
            f"The file sha256:{sha256} is damaged: its {len(data):,} bytes do not match its hash."
            " Restore it from a backup."
        )
    return data


def is_intact(sha256: str, size: int) -> bool:
    """Whether the stored file is complete and undamaged; reads and hashes all of it."""
    try:
        open_verified(sha256, size).close()
    except FileLost:
        return False
    return True


def read_candles(dataset: Dataset) -> pl.DataFrame:
    """Read the candles of a dataset, checked against its digest. Raises FileLost."""
    return candles.decode_canonical(read(dataset.digest.removeprefix("sha256:")))


def store_baseline(key: str, data: bytes) -> None:
    """Keep the V5 that candidates are compared with, under the key of what it was fitted on."""
    with _translate_errors():
        default_storage.save(_get_baseline_key(key), ContentFile(data))


def find_baseline(key: str) -> bytes | None:
    """Its bytes, unchecked (gates.baselines checks them); None where there are none."""
    try:
        with _translate_errors(), default_storage.open(_get_baseline_key(key), "rb") as stream:
            data: bytes = stream.read()
    except FileNotFoundError:
        return None
    return data


def _get_baseline_key(key: str) -> str:
    return f"baselines/{key}"


def store_checkpoint(run_id: int, attempt: int, epoch: int, data: bytes) -> str:
    """Store the resume state of a run; returns its key, which no other attempt can overwrite."""
    with _translate_errors():
        return default_storage.save(f"checkpoints/run-{run_id}/{attempt}-{epoch}", ContentFile(data))


def read_checkpoint(checkpoint: str) -> bytes:
    """Read a resume state, unchecked (mlcore.fitting.checkpoint checks it). Raises FileLost when it is missing."""
    try:
        with _translate_errors(), default_storage.open(checkpoint, "rb") as stream:
            data: bytes = stream.read()
    except FileNotFoundError:
        raise FileLost(f"The checkpoint {checkpoint} is missing from the store.") from None
    return data


def delete_checkpoint(checkpoint: str) -> None:
    """Delete a resume state that is no longer needed; a missing one is ignored."""
    if checkpoint:
        with _translate_errors():
            default_storage.delete(checkpoint)
