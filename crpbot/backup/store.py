"""Where backups lie, and what one consists of.

    backups/20261129T094500Z-1234/rows.jsonl.gz   the rows of the database
    backups/20261129T094500Z-1234/manifest.json   written last: a backup without it is none
    files/sha256/ab/ab…                           the stored files, which backups share

The name has the time and the number of the last audit event.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import Storage, storages
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from audit.heads import KeptHead
from common.errors import Conflict, NotFound, Unavailable
from training.artifact_store import STORE_ERRORS, VerifiedStream, key

FOLDER = "backups"
ROWS = "rows.jsonl.gz"
MANIFEST = "manifest.json"
COPY_BYTES = 1 << 20
_FORMAT = 1
_NAME = re.compile(r"\d{8}T\d{6}Z-\d+")


@dataclass(frozen=True)
class Manifest:
    """What a backup contains."""

    name: str
    created_at: str
    """UTC, ISO 8601."""
    code_version: str
    head: KeptHead
    """The end of the audit chain: nothing up to it is missing."""
    revision: int | None
    """Of the pointer."""
    migrations: list[str]
    rows_sha256: str
    rows_size: int
    rows: Mapping[str, int] = field(default_factory=dict)
    """How many there are of each model."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each stored file, by its sha256."""
    lost: list[str] = field(default_factory=list)
    """Files that rows name and that the service itself no longer had: their sha256."""

    @property
    def age_seconds(self) -> float:
        return (datetime.now(UTC) - datetime.fromisoformat(self.created_at)).total_seconds()

    @property
    def size(self) -> int:
        """Bytes, with the files that other backups share."""
        return self.rows_size + sum(self.files.values())


def get_storage() -> Storage:
    return storages["backups"]


def list_names() -> list[str]:
    """The names of complete backups, the oldest first."""
    return [name for name, is_complete in _list_folders() if is_complete]


def list_unfinished() -> list[str]:
    """The names of backups that were begun: they are being written, or were never completed."""
    return [name for name, is_complete in _list_folders() if not is_complete]


def _list_folders() -> list[tuple[str, bool]]:
    storage = get_storage()
    with _translate_errors(FOLDER):
        try:
            folders = sorted(name for name in storage.listdir(FOLDER)[0] if _NAME.fullmatch(name))
        except FileNotFoundError:
            return []
        return [(name, storage.exists(f"{FOLDER}/{name}/{MANIFEST}")) for name in folders]


def read_manifest(name: str = "") -> Manifest:
    """The manifest of this backup, else of the newest. Raises NotFound, Conflict for one of another format."""
    names = list_names()
    if not names:
        raise NotFound("There is no backup yet: `manage.py backup create` makes one.")
    name = name or names[-1]
    if name not in names:
        raise NotFound(
            f"There is no backup {name}. The newest is {names[-1]}; `manage.py backup list` shows all."
        )
    try:
        document = json.loads(read(f"{FOLDER}/{name}/{MANIFEST}"))
        if document.pop("format") != _FORMAT:
            raise ValueError("its format is another")
        return Manifest(**{**document, "head": KeptHead(**document["head"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Conflict(
            f"The manifest of backup {name} cannot be read ({error}). Use another backup."
        ) from error


def write_manifest(manifest: Manifest) -> None:
    document = {"format": _FORMAT, **asdict(manifest)}
    save(f"{FOLDER}/{manifest.name}/{MANIFEST}", ContentFile(json.dumps(document, indent=1).encode()))


def save(name: str, content: Any) -> None:
    """Raises Unavailable when the store of backups does not answer or is full."""
    with _translate_errors(name):
        get_storage().save(name, content)


def read(name: str) -> bytes:
    """Raises Conflict where it is missing, Unavailable."""
    with _translate_errors(name), get_storage().open(name, "rb") as stream:
        content: bytes = stream.read()
    return content


def save_stream(stream: VerifiedStream, name: str) -> None:
    """Save a file once all its bytes are read and were right. Raises FileLost, Unavailable."""
    with spooled(stream) as file:
        save(name, file)


@contextmanager
def spooled(stream: VerifiedStream) -> "Iterator[File[bytes]]":
    """The whole stream in a temporary file: nothing is saved before its last byte was verified."""
    with tempfile.TemporaryFile() as file:
        while chunk := stream.read(COPY_BYTES):
            file.write(chunk)
        file.seek(0)
        yield File(file)


def delete_older(names: Iterable[str], age: timedelta) -> None:
    """Delete those of these files that were written longer ago. A missing one is ignored."""
    with _translate_errors(FOLDER):
        storage = get_storage()
        for name in names:
            if storage.exists(name) and timezone.now() - storage.get_modified_time(name) > age:
                storage.delete(name)


@contextmanager
def open_rows(manifest: Manifest) -> Iterator[Any]:
    """The rows, verified. Raises Conflict where they are not those that were written."""
    name = f"{FOLDER}/{manifest.name}/{ROWS}"
    with _translate_errors(name):
        stream = get_storage().open(name, "rb")
    with stream:
        with _translate_errors(name):
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
        if sha256 != manifest.rows_sha256:
            raise Conflict(f"The rows of backup {manifest.name} are damaged. Use another backup.")
        yield stream


def list_files() -> list[str]:
    """The sha256 of each stored file that any backup has."""
    with _translate_errors(FOLDER):
        storage = get_storage()
        try:
            folders = storage.listdir("files/sha256")[0]
        except FileNotFoundError:
            return []
        return [name for folder in folders for name in storage.listdir(f"files/sha256/{folder}")[1]]


def get_file_key(sha256: str) -> str:
    return f"files/{key(sha256)}"


def get_file_size(sha256: str) -> int:
    """In bytes; 0 where no backup has this file."""
    storage, name = get_storage(), get_file_key(sha256)
    with _translate_errors(name):
        return storage.size(name) if storage.exists(name) else 0


def open_file(sha256: str, size: int) -> VerifiedStream:
    """A stored file of a backup. Its end is only returned when all bytes were right: else FileLost, a Conflict."""
    name = get_file_key(sha256)
    with _translate_errors(name):
        return VerifiedStream(get_storage().open(name, "rb"), sha256, size)


def find_damage(manifest: Manifest) -> Iterator[str]:
    """Read the whole backup back; each part that is missing or damaged, in a sentence."""
    try:
        with open_rows(manifest):
            pass
    except Conflict as damage:
        yield damage.message
    yield from find_damaged_files(manifest.files)


def find_damaged_files(files: Mapping[str, int]) -> Iterator[str]:
    """Read these files of backups; each that is missing or damaged, in a sentence."""
    for sha256, size in files.items():
        try:
            with open_file(sha256, size) as stream:
                while stream.read(COPY_BYTES):
                    pass
        except Conflict as damage:
            yield damage.message


def list_migrations() -> list[str]:
    """The migrations that this database has had."""
    return sorted(
        f"{app}.{name}" for app, name in MigrationRecorder.Migration.objects.values_list("app", "name")
    )


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Turn a missing file into Conflict, and other errors of the folder or of S3 into Unavailable."""
    try:
        yield
    except FileNotFoundError as error:
        raise Conflict(f"The backup lacks {name}. Use another backup.") from error
    except STORE_ERRORS as error:
        raise Unavailable(
            f"The store of backups does not answer or is full ({error}). Check CRPBOT_BACKUP_BUCKET or CRPBOT_BACKUP_DIR."
        ) from error
