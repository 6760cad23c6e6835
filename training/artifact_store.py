"""Bytes by their content: datasets and bundles under their sha256, checkpoints under their run.

The same code stands on a folder and on S3: it knows Django's default storage and nothing of what is behind it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from common.errors import Conflict, Unavailable
from mlcore.data import candles
from training.models import Dataset

_CHUNK_BYTES = 1024 * 1024


class FileLost(Conflict):
    """A stored file is missing, or its bytes are no longer those it is named by."""

    title = "File lost"


class StoreAway(Unavailable):
    """The file store does not answer, or has no room; asking again later helps."""


@contextmanager
def _store_answers() -> Iterator[None]:
    """A missing file passes through; every other trouble of a folder or of S3 becomes StoreAway."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, BotoCoreError, ClientError) as error:
        raise StoreAway(f"The file store does not answer ({error}).") from error


def key(sha256: str) -> str:
    """Where bytes of this hash are kept."""
    return f"sha256/{sha256[:2]}/{sha256}"


def store(data: bytes) -> str:
    """Keep these bytes; answers their sha256 (hex). Storing them again mends a damaged copy and changes no sound one."""
    sha256 = hashlib.sha256(data).hexdigest()
    if not is_intact(sha256, len(data)):
        with _store_answers():
            default_storage.save(key(sha256), ContentFile(data))
    return sha256


def open_stream(sha256: str) -> Any:
    """The stored file, opened for reading in binary. Raises FileLost when there is none."""
    try:
        with _store_answers():
            return default_storage.open(key(sha256), "rb")
    except FileNotFoundError:
        raise FileLost(
            f"The file sha256:{sha256} is missing from the store: bring it back from a copy."
        ) from None


def read(sha256: str) -> bytes:
    """The bytes of this hash, hashed again on the way. Raises FileLost when they are missing or not those."""
    with _store_answers(), open_stream(sha256) as stream:
        data: bytes = stream.read()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise FileLost(
            f"The file sha256:{sha256} is damaged: its {len(data):,} bytes are others than it is named by."
            " Bring it back from a copy."
        )
    return data


def is_intact(sha256: str, size: int) -> bool:
    """Whether the store holds exactly these bytes: all of them are read and hashed."""
    found = hashlib.sha256()
    length = 0
    try:
        for chunk in _chunks(sha256):
            found.update(chunk)
            length += len(chunk)
    except FileLost:
        return False
    return length == size and found.hexdigest() == sha256


def _chunks(sha256: str) -> Iterator[bytes]:
    with _store_answers(), open_stream(sha256) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def read_candles(dataset: Dataset) -> pl.DataFrame:
    """The candles of a dataset, verified against its digest and checked anew. Raises FileLost."""
    return candles.decode_canonical(read(dataset.digest.removeprefix("sha256:")))


def store_checkpoint(run_id: int, attempt: int, epoch: int, data: bytes) -> str:
    """Keep the resume state of a run; answers its key, which no other attempt can overwrite."""
    with _store_answers():
        return default_storage.save(f"checkpoints/run-{run_id}/{attempt}-{epoch}", ContentFile(data))


def read_checkpoint(checkpoint: str) -> bytes:
    """Raises FileLost when it is gone; whether the bytes are sound, `mlcore.fitting.checkpoint` tells."""
    try:
        with _store_answers(), default_storage.open(checkpoint, "rb") as stream:
            data: bytes = stream.read()
    except FileNotFoundError:
        raise FileLost(f"The checkpoint {checkpoint} is missing from the store.") from None
    return data


def delete_checkpoint(checkpoint: str) -> None:
    """Drop a resume state nobody needs any more; one that is gone already is no matter."""
    if checkpoint:
        with _store_answers():
            default_storage.delete(checkpoint)
