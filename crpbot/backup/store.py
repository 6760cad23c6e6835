"""Where backups lie, and what one consists of.

    backups/20261129T094500Z-1234/rows.jsonl.gz   the rows of the database
    backups/20261129T094500Z-1234/manifest.json   signed, and written last: a backup without it is none
    files/sha256/ab/ab…                           the stored files, which backups share

The name has the time and the number of the last audit event. Where recipients are configured, rows and files are encrypted.
A stored file is named by the sha256 of what is stored: a file that is encrypted twice is two.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from django.apps import apps
from django.conf import settings
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import Storage, storages
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from audit.heads import KeptHead
from common.errors import Conflict, NotFound, Unavailable
from crpbot.backup import seal
from crpbot.backup.seal import Access
from training.artifact_store import STORE_ERRORS, VerifiedStream, key

FOLDER = "backups"
ROWS = "rows.jsonl.gz"
MANIFEST = "manifest.json"
COPY_BYTES = 1 << 20
_FORMAT = 1
_NAME = re.compile(r"\d{8}T\d{6}Z-\d+")


@dataclass(frozen=True)
class StoredFile:
    """A file of the service as it lies in the store of backups."""

    size: int
    """Bytes of the file itself."""
    stored_sha256: str
    """Of the bytes that lie there: those of the file, or encrypted."""
    stored_size: int


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
    """Of the bytes that are stored."""
    rows_size: int
    rows: Mapping[str, int] = field(default_factory=dict)
    """How many there are of each model."""
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    """Each file that a row names, by its sha256."""
    recipients: list[str] = field(default_factory=list)
    """Whose identities decrypt rows and files; without any, they are not encrypted."""
    lost: list[str] = field(default_factory=list)
    """Files that rows name and that the service itself no longer had: their sha256."""

    @property
    def age_seconds(self) -> float:
        return (datetime.now(UTC) - datetime.fromisoformat(self.created_at)).total_seconds()

    @property
    def size(self) -> int:
        """Bytes, with the files that other backups share."""
        return self.rows_size + sum(file.stored_size for file in self.files.values())


def get_time(name: str) -> datetime:
    """When the backup of this name was made."""
    return datetime.strptime(name.partition("-")[0], "%Y%m%dT%H%M%S%z")


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


def read_manifest(name: str = "", access: Access | None = None) -> Manifest:
    """The manifest of this backup, else of the newest, after its signature was verified: without `access`, by the own key.

    Raises NotFound, Unavailable, Conflict for one of another format or that another key signed.
    """
    name = _find_name(name)
    access = access or Access.build()
    try:
        manifest = _parse_manifest(seal.open_envelope(_read_envelope(name), access.public_hex))
        if manifest.name != name:
            raise Conflict(
                f"It is that of backup {manifest.name}. Restore that one by its name, or use another."
            )
    except Conflict as refusal:
        raise Conflict(f"The manifest of backup {name} cannot be trusted: {refusal.message}") from refusal
    return manifest


def read_unverified(name: str) -> Manifest:
    """A manifest whatever key signed it: to know what to keep, or to show. Nothing is restored by it."""
    return _parse_manifest(seal.read_unverified(_read_envelope(name)))


def _find_name(name: str) -> str:
    names = list_names()
    if not names:
        raise NotFound("There is no backup yet: `manage.py backup create` makes one.")
    name = name or names[-1]
    if name not in names:
        raise NotFound(
            f"There is no backup {name}. The newest is {names[-1]}; `manage.py backup list` shows all."
        )
    return name


def _read_envelope(name: str) -> bytes:
    return read(f"{FOLDER}/{name}/{MANIFEST}")


def _parse_manifest(payload: bytes) -> Manifest:
    try:
        document = json.loads(payload)
        if document.pop("format") != _FORMAT:
            raise ValueError("its format is another")
        files = {sha256: StoredFile(**file) for sha256, file in document["files"].items()}
        return Manifest(**{**document, "head": KeptHead(**document["head"]), "files": files})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Conflict(f"The manifest cannot be read ({error}). Use another backup.") from error


def write_manifest(manifest: Manifest) -> None:
    """Sign and save it. Raises Unavailable."""
    envelope = seal.sign(json.dumps({"format": _FORMAT, **asdict(manifest)}).encode())
    save(f"{FOLDER}/{manifest.name}/{MANIFEST}", ContentFile(envelope))


def save(name: str, content: Any) -> None:
    """Raises Unavailable when the store of backups does not answer or is full."""
    with _translate_errors(name):
        get_storage().save(name, content)


def read(name: str) -> bytes:
    """Raises Conflict where it is missing, Unavailable."""
    with _translate_errors(name), get_storage().open(name, "rb") as stream:
        content: bytes = stream.read()
    return content


@contextmanager
def spooled(stream: VerifiedStream) -> Iterator[IO[bytes]]:
    """The whole stream in a temporary file: nothing is saved before its last byte was verified."""
    with tempfile.TemporaryFile() as file:
        while chunk := stream.read(COPY_BYTES):
            file.write(chunk)
        file.seek(0)
        yield file


def delete_older(names: Iterable[str], age: timedelta) -> None:
    """Delete those of these files that were written longer ago. A missing one is ignored."""
    with _translate_errors(FOLDER):
        storage = get_storage()
        for name in names:
            if storage.exists(name) and timezone.now() - storage.get_modified_time(name) > age:
                storage.delete(name)


@contextmanager
def open_rows(manifest: Manifest, access: Access | None = None) -> Iterator[IO[bytes]]:
    """The rows as they are stored, verified; with `access` also decrypted.

    Raises Conflict where they are not those that were written, or cannot be decrypted.
    """
    name = f"{FOLDER}/{manifest.name}/{ROWS}"
    with _translate_errors(name):
        stream = get_storage().open(name, "rb")
    # A copy is verified and used: who can write to the store may change the file between two readings.
    with stream, tempfile.TemporaryFile() as copy:
        with _translate_errors(name):
            shutil.copyfileobj(stream, copy, COPY_BYTES)
        copy.seek(0)
        if hashlib.file_digest(copy, "sha256").hexdigest() != manifest.rows_sha256:
            raise Conflict(f"The rows of backup {manifest.name} are damaged. Use another backup.")
        copy.seek(0)
        if access is None or not manifest.recipients:
            yield copy
            return
        with tempfile.TemporaryFile() as plain:
            seal.decrypt(copy, plain, access)
            plain.seek(0)
            yield plain


def list_folder(folder: str) -> list[str]:
    """The names of the files in a folder of the store; none where there is no such folder."""
    with _translate_errors(folder):
        try:
            return get_storage().listdir(folder)[1]
        except FileNotFoundError:
            return []


def list_files() -> list[str]:
    """The sha256 of each stored file that any backup has."""
    with _translate_errors(FOLDER):
        storage = get_storage()
        try:
            folders = storage.listdir("files/sha256")[0]
        except FileNotFoundError:
            return []
        return [name for folder in folders for name in storage.listdir(f"files/sha256/{folder}")[1]]


def get_file_key(stored_sha256: str) -> str:
    return f"files/{key(stored_sha256)}"


def save_file(stream: VerifiedStream, sha256: str, recipients: Sequence[str]) -> StoredFile:
    """Save a file once all its bytes are read and were right, encrypted for these recipients, if any."""
    with spooled(stream) as plain:
        if not recipients:
            save(get_file_key(sha256), File(plain))
            return StoredFile(stream.size, sha256, stream.size)
        with tempfile.TemporaryFile() as encrypted:
            seal.encrypt(plain, encrypted, recipients)
            stored_size = encrypted.tell()
            encrypted.seek(0)
            stored_sha256 = hashlib.file_digest(encrypted, "sha256").hexdigest()
            encrypted.seek(0)
            save(get_file_key(stored_sha256), File(encrypted))
            return StoredFile(stream.size, stored_sha256, stored_size)


@contextmanager
def open_file(sha256: str, file: StoredFile, access: Access) -> Iterator[IO[bytes]]:
    """A stored file of a backup, verified and decrypted. Raises FileLost, a Conflict, where any byte is wrong."""
    with _open_stored(file) as stored, spooled(stored) as content:
        if file.stored_sha256 == sha256:
            yield content
            return
        with tempfile.TemporaryFile() as plain:
            seal.decrypt(content, plain, access)
            plain.seek(0)
            with spooled(VerifiedStream(plain, sha256, file.size)) as verified:
                yield verified


def _open_stored(file: StoredFile) -> VerifiedStream:
    """The bytes in the store. Their end is only returned when all bytes were right: else FileLost."""
    name = get_file_key(file.stored_sha256)
    with _translate_errors(name):
        return VerifiedStream(get_storage().open(name, "rb"), file.stored_sha256, file.stored_size)


def find_damage(manifest: Manifest) -> Iterator[str]:
    """Read the whole backup back; each part that is missing or damaged, in a sentence."""
    try:
        with open_rows(manifest):
            pass
    except Conflict as damage:
        yield damage.message
    yield from find_damaged_files(manifest.files.values())


def find_damaged_files(files: Iterable[StoredFile]) -> Iterator[str]:
    """Read these files of backups; each that is missing or damaged, in a sentence."""
    for file in files:
        try:
            with _open_stored(file) as stream:
                while stream.read(COPY_BYTES):
                    pass
        except Conflict as damage:
            yield damage.message


def list_migrations() -> list[str]:
    """The migrations that this database has had."""
    return sorted(
        f"{app}.{name}" for app, name in MigrationRecorder.Migration.objects.values_list("app", "name")
    )


def list_newer_migrations() -> list[str]:
    """The migrations of a newer version that this database has had: a version without them knows not all of its tables."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    known = set(loader.disk_migrations)
    known |= {key for migration in loader.disk_migrations.values() for key in migration.replaces}
    own = {app.label for app in apps.get_app_configs() if Path(app.path).parent == settings.BASE_DIR}
    applied = MigrationRecorder.Migration.objects.filter(app__in=own).values_list("app", "name")
    return sorted(f"{app}.{name}" for app, name in applied if (app, name) not in known)


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Turn a missing file into Conflict, and other errors of the folder or of S3 into Unavailable."""
    try:
        yield
    except FileNotFoundError as error:
        raise Conflict(f"The backup lacks {name}. Use another backup.") from error
    except STORE_ERRORS as error:
        raise Unavailable(
            f"The store of backups does not answer or is full ({error}). Check CRPBOT_BACKUP_BUCKET and its keys, or"
            " CRPBOT_BACKUP_DIR."
        ) from error
