"""The document a bot fetches: which release is live, and the digest of every file of it. Bytes in, a checked value out."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from runtime.errors import SnapshotRefused

MAX_BODY_BYTES = 1 << 20
"""A snapshot of three coins has about 3 kB."""

MAX_FILE_BYTES = 64 << 20
"""A V7 graph has 260 kB; a larger announcement than this is a mistake that must not fill the bot's disk."""

T = TypeVar("T")

logger = logging.getLogger(__name__)

_HEX = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,29}")
_LINE = re.compile(r"[A-Za-z0-9._-]{1,60}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class File:
    """One file of a bundle as announced: `sha256` in hex, `size` in bytes, `url` absolute or a path on the service."""

    name: str
    sha256: str
    size: int
    url: str


@dataclass(frozen=True, slots=True)
class Model:
    """One coin's bundle as announced; `bundle` and `schema_digest` read ``sha256:<hex>``."""

    coin: str
    bundle: str
    feature_schema: str
    schema_digest: str
    classes: tuple[str, ...]
    files: Mapping[str, File]


@dataclass(frozen=True)
class Snapshot:
    """Where the pointer stands. Offline: `line` and `release` are None and `models` is empty."""

    service: str
    revision: int
    line: str | None
    release: int | None
    moved_at: datetime
    reason: str
    is_simulated: bool
    models: Mapping[str, Model]

    @property
    def is_offline(self) -> bool:
        """Whether the pointer names nothing, so that bots answer neutral."""
        return self.release is None

    @cached_property
    def set_digest(self) -> str:
        """The sha256 (hex) of what decides which predictors there are, whichever release names them."""
        return _set_digest(self.line, self.is_simulated, self.models)

    @cached_property
    def content(self) -> str:
        """The sha256 (hex) of what decides what a bot runs; wording, times and addresses are left out."""
        decisive = [self.service, self.revision, self.line, self.release, _decisive(self.models)]
        return _sha256(decisive)


@dataclass(frozen=True)
class Announced:
    """A release that the pointer may name next, which a bot fetches ahead so that the move costs it no download."""

    release: int
    line: str
    is_simulated: bool
    models: Mapping[str, Model]

    @cached_property
    def set_digest(self) -> str:
        """As `Snapshot.set_digest`: equal where the snapshot that follows names this very set."""
        return _set_digest(self.line, self.is_simulated, self.models)


Named = Snapshot | Announced
"""What names a bundle for each coin of one release."""


def parse(body: bytes) -> tuple[dict[str, Any], Snapshot]:
    """Read and check a snapshot (DESIGN section 7); the document as it came, and what was read from it.

    Keys this client does not know are ignored. Raises SnapshotRefused with the place and the reason.
    """
    document = _object(_decode(body), "the document")
    return document, _snapshot(document)


def parse_time(document: Mapping[str, Any], key: str) -> datetime:
    """A time of the document, with its zone. Raises SnapshotRefused."""
    return _time(_field(document, key, str), key)


def announced(document: Mapping[str, Any], key: str) -> Announced | None:
    """The document's `next` or `fallback`. One that cannot be read is logged and left: it must not keep a bot from the
    pointer.
    """
    if document.get(key) is None:
        return None
    try:
        value = _object(document[key], key)
        models = _object(_field(value, "models", dict, key), f"{key}.models")
        return Announced(
            release=_positive(_field(value, "release", int, key), f"{key}.release"),
            line=_matching(_field(value, "line", str, key), _LINE, f"{key}.line"),
            is_simulated=_field(value, "simulated", bool, key),
            models={coin: _model(coin, model) for coin, model in sorted(models.items())},
        )
    except SnapshotRefused as error:
        logger.warning("what is announced as %s cannot be fetched ahead: %s", key, error)
        return None


def _set_digest(line: str | None, is_simulated: bool, models: Mapping[str, Model]) -> str:
    classes = {coin: model.classes for coin, model in models.items()}
    return _sha256([line, is_simulated, classes, _decisive(models)])


def _decisive(models: Mapping[str, Model]) -> dict[str, Any]:
    return {
        coin: [
            model.bundle,
            model.feature_schema,
            model.schema_digest,
            {file.name: [file.sha256, file.size] for file in model.files.values()},
        ]
        for coin, model in models.items()
    }


def _sha256(decisive: list[Any]) -> str:
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _snapshot(document: Mapping[str, Any]) -> Snapshot:
    release, line = _optional(document, "release", int), _optional(document, "line", str)
    models = _object(_field(document, "models", dict), "models")
    snapshot = Snapshot(
        service=_matching(_field(document, "service", str), re.compile(r"\S(.{0,198}\S)?"), "service"),
        revision=_positive(_field(document, "revision", int), "revision"),
        line=None if line is None else _matching(line, _LINE, "line"),
        release=None if release is None else _positive(release, "release"),
        moved_at=_time(_field(document, "moved_at", str), "moved_at"),
        reason=_printable(_field(document, "reason", str)),
        is_simulated=_field(document, "simulated", bool),
        models={coin: _model(coin, model) for coin, model in sorted(models.items())},
    )
    if len({snapshot.release is None, snapshot.line is None, not snapshot.models}) != 1:
        raise SnapshotRefused("line, release and models must be given together, or all be empty (offline)")
    return snapshot


def _decode(body: bytes) -> Any:
    if len(body) > MAX_BODY_BYTES:
        raise SnapshotRefused(f"{len(body):,} bytes are more than a snapshot can have ({MAX_BODY_BYTES:,})")
    try:
        return json.loads(body, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SnapshotRefused(f"it is not valid JSON: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON parsers differ in which of two equal keys wins; two readers must never see two different releases.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _model(coin: str, value: Any) -> Model:
    where = f"models.{coin}"
    _matching(coin, _COIN, f"the coin name {coin[:30]!r}")
    model = _object(value, where)
    files = _object(_field(model, "files", dict, where), f"{where}.files")
    if "manifest.json" not in files or "model.onnx" not in files:
        raise SnapshotRefused(f"{where}.files lacks manifest.json or model.onnx")
    return Model(
        coin=coin,
        bundle=_matching(_field(model, "bundle", str, where), _DIGEST, f"{where}.bundle"),
        feature_schema=_field(model, "feature_schema", str, where),
        schema_digest=_matching(
            _field(model, "schema_digest", str, where), _DIGEST, f"{where}.schema_digest"
        ),
        classes=_words(_field(model, "classes", list, where), f"{where}.classes"),
        files={name: _file(name, file, f"{where}.files") for name, file in sorted(files.items())},
    )


def _file(name: str, value: Any, where: str) -> File:
    where = f"{where}.{_matching(name, _FILE_NAME, f'the file name {name[:60]!r}')}"
    file = _object(value, where)
    size = _positive(_field(file, "size", int, where), f"{where}.size")
    if size > MAX_FILE_BYTES:
        raise SnapshotRefused(
            f"{where}.size: {size:,} bytes are more than a file may have ({MAX_FILE_BYTES:,})"
        )
    return File(
        name=name,
        sha256=_matching(_field(file, "sha256", str, where), _HEX, f"{where}.sha256"),
        size=size,
        url=_field(file, "url", str, where),
    )


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SnapshotRefused(f"{where} is not an object")
    return value


def _field(document: Mapping[str, Any], key: str, kind: type[T], where: str = "") -> T:
    place = f"{where}.{key}" if where else key
    if key not in document:
        raise SnapshotRefused(f"{place} is missing")
    value = document[key]
    # bool is an int to Python, and true is no revision.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise SnapshotRefused(f"{place} is not of type {kind.__name__}")
    return value


def _optional(document: Mapping[str, Any], key: str, kind: type[T]) -> T | None:
    if key in document and document[key] is None:
        return None
    return _field(document, key, kind)


def _matching(value: str, pattern: re.Pattern[str], where: str) -> str:
    if not pattern.fullmatch(value):
        raise SnapshotRefused(f"{where} is not of the form {pattern.pattern}")
    return value


def _positive(value: int, where: str) -> int:
    if value < 1:
        raise SnapshotRefused(f"{where} is {value}, and must be 1 or more")
    return value


def _printable(text: str) -> str:
    # People type it, and it ends in terminals and logs.
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _words(value: list[Any], where: str) -> tuple[str, ...]:
    if not all(isinstance(word, str) for word in value):
        raise SnapshotRefused(f"{where} holds something other than text")
    return tuple(value)


def _time(value: str, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except ValueError as error:
        raise SnapshotRefused(f"{where} is not a time: {value[:40]!r}") from error
    if time.tzinfo is None:
        raise SnapshotRefused(f"{where} has no time zone: {value!r}")
    return time
