"""The snapshot a bot fetches: which release is live, and the digest of each of its files. Bytes in, a checked value out."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from crpbot_runtime.errors import SnapshotRefused
from crpbot_runtime.version import FIRST_PROTOCOL, PROTOCOL

MAX_BODY_BYTES = 1 << 20
"""A snapshot of three coins has about 3 kB."""

MAX_FILE_BYTES = 64 << 20
"""A V7 graph has 260 kB. A larger file is a mistake, and must not fill the bot's disk."""

T = TypeVar("T")

logger = logging.getLogger(__name__)

_HEX = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,29}")
_SERVICE = re.compile(r"\S(.{0,198}\S)?")
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
class ModelSet:
    """One bundle for each coin of one release: of the current revision, or announced for bots to prefetch.

    Offline, `line`, `release` and `interval_seconds` are None and `models` is empty. `interval_seconds` is that of the
    bars that all models answer for.
    """

    release: int | None
    line: str | None
    interval_seconds: int | None
    is_simulated: bool
    models: Mapping[str, Model]

    @cached_property
    def set_digest(self) -> str:
        """The sha256 (hex) of everything that determines the predictors, whichever release names them."""
        classes = {coin: model.classes for coin, model in self.models.items()}
        return _hash_json(
            [self.line, self.interval_seconds, self.is_simulated, classes, self._describe_models()]
        )

    def _describe_models(self) -> dict[str, Any]:
        return {
            coin: [
                model.bundle,
                model.feature_schema,
                model.schema_digest,
                {file.name: [file.sha256, file.size] for file in model.files.values()},
            ]
            for coin, model in self.models.items()
        }


@dataclass(frozen=True)
class Snapshot(ModelSet):
    """The current revision."""

    service: str
    revision: int
    moved_at: datetime
    reason: str
    protocol: int

    @cached_property
    def content(self) -> str:
        """The sha256 (hex) of everything that determines what a bot runs, without wording, times and addresses."""
        return _hash_json([self.service, self.revision, self.line, self.release, self._describe_models()])


class Fields:
    """The fields of one JSON object. Each method parses one, and raises SnapshotRefused with its path and the reason."""

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, dict):
            raise SnapshotRefused(f"{path or 'the document'} is not an object")
        self.values, self._prefix = value, f"{path}." if path else ""

    def get(self, key: str, kind: type[T]) -> T:
        if key not in self.values:
            raise self.refuse(key, "is missing")
        value = self.values[key]
        # bool is a subclass of int, and true is no revision.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.refuse(key, f"is not of type {kind.__name__}")
        return value

    def get_match(self, key: str, pattern: re.Pattern[str]) -> str:
        return _require_match(self.get(key, str), pattern, f"{self._prefix}{key}")

    def get_positive(self, key: str) -> int:
        value = self.get(key, int)
        if value < 1:
            raise self.refuse(key, f"is {value}, and must be 1 or more")
        return value

    def get_time(self, key: str) -> datetime:
        text = self.get(key, str)
        try:
            time = datetime.fromisoformat(text)
        except ValueError as error:
            raise self.refuse(key, f"is not a time: {text[:40]!r}") from error
        if time.tzinfo is None:
            raise self.refuse(key, f"has no time zone: {text!r}")
        return time

    def get_texts(self, key: str) -> tuple[str, ...]:
        value = self.get(key, list)
        if not all(isinstance(text, str) for text in value):
            raise self.refuse(key, "holds something other than text")
        return tuple(value)

    def get_object(self, key: str) -> "Fields":
        return Fields(self.get(key, dict), f"{self._prefix}{key}")

    def get_objects(self, key: str, names: re.Pattern[str], noun: str) -> "dict[str, Fields]":
        """An object of objects by name, sorted; each name has the form `names` and is called a `noun`."""
        path, objects = f"{self._prefix}{key}", self.get(key, dict)
        for name in objects:
            _require_match(name, names, f"the {noun} name {name[:60]!r}")
        return {name: Fields(value, f"{path}.{name}") for name, value in sorted(objects.items())}

    def is_null(self, key: str) -> bool:
        return key in self.values and self.values[key] is None

    def refuse(self, key: str, reason: str) -> SnapshotRefused:
        return SnapshotRefused(f"{self._prefix}{key} {reason}")


def parse_snapshot(body: bytes) -> tuple[Fields, Snapshot]:
    """Parse and check a snapshot; returns the document's fields and the parsed value.

    Unknown keys are ignored. Raises SnapshotRefused with the field and the reason.
    """
    fields = Fields(decode_json(body))
    protocol = _parse_protocol(fields)  # first: what a newer one says otherwise may be anything
    snapshot = Snapshot(
        service=fields.get_match("service", _SERVICE),
        revision=fields.get_positive("revision"),
        line=None if fields.is_null("line") else fields.get_match("line", _LINE),
        interval_seconds=(
            None if fields.is_null("interval_seconds") else fields.get_positive("interval_seconds")
        ),
        release=None if fields.is_null("release") else fields.get_positive("release"),
        moved_at=fields.get_time("moved_at"),
        reason=make_printable(fields.get("reason", str)),
        is_simulated=fields.get("simulated", bool),
        models=_parse_models(fields),
        protocol=protocol,
    )
    given = (snapshot.release, snapshot.line, snapshot.interval_seconds, snapshot.models or None)
    if len({value is None for value in given}) != 1:
        raise SnapshotRefused(
            "line, release, interval_seconds and models must be given together, or all be empty (offline)"
        )
    return fields, snapshot


def parse_announced(document: Fields, key: str) -> ModelSet | None:
    """The document's `next` or `fallback`. An invalid one is only logged, so that a bot still follows the pointer."""
    if document.values.get(key) is None:
        return None
    try:
        fields = document.get_object(key)
        return ModelSet(
            release=fields.get_positive("release"),
            line=fields.get_match("line", _LINE),
            interval_seconds=fields.get_positive("interval_seconds"),
            is_simulated=fields.get("simulated", bool),
            models=_parse_models(fields),
        )
    except SnapshotRefused as error:
        logger.warning("the announced release %s cannot be prefetched: %s", key, error)
        return None


def make_printable(text: str) -> str:
    """The text without control characters: people type it, and it ends in terminals and logs."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _parse_protocol(fields: Fields) -> int:
    """The protocol that a snapshot is written in. Raises SnapshotRefused where this client does not understand it."""
    if "protocol" not in fields.values:
        return FIRST_PROTOCOL
    stated = fields.get_object("protocol")
    version, oldest_reader = stated.get_positive("version"), stated.get_positive("oldest_reader")
    if oldest_reader > PROTOCOL:
        raise SnapshotRefused(
            f"it is written in protocol {version}, for clients of protocol {oldest_reader} or later, and this client has"
            f" protocol {PROTOCOL}: install the crpbot-runtime of the service's version"
        )
    return version


def _parse_models(fields: Fields) -> dict[str, Model]:
    models = fields.get_objects("models", _COIN, "coin")
    return {coin: _parse_model(coin, model) for coin, model in models.items()}


def _parse_model(coin: str, fields: Fields) -> Model:
    files = fields.get_objects("files", _FILE_NAME, "file")
    if "manifest.json" not in files or "model.onnx" not in files:
        raise fields.refuse("files", "lacks manifest.json or model.onnx")
    return Model(
        coin=coin,
        bundle=fields.get_match("bundle", _DIGEST),
        feature_schema=fields.get("feature_schema", str),
        schema_digest=fields.get_match("schema_digest", _DIGEST),
        classes=fields.get_texts("classes"),
        files={name: _parse_file(name, file) for name, file in files.items()},
    )


def _parse_file(name: str, fields: Fields) -> File:
    size = fields.get_positive("size")
    if size > MAX_FILE_BYTES:
        raise fields.refuse("size", f"is {size:,} bytes, more than a file may have ({MAX_FILE_BYTES:,})")
    return File(name=name, sha256=fields.get_match("sha256", _HEX), size=size, url=fields.get("url", str))


def _hash_json(document: list[Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def decode_json(body: bytes) -> Any:
    """A document of at most MAX_BODY_BYTES, without keys that occur twice. Raises SnapshotRefused."""
    if len(body) > MAX_BODY_BYTES:
        raise SnapshotRefused(f"{len(body):,} bytes are more than a snapshot can have ({MAX_BODY_BYTES:,})")
    try:
        return json.loads(body, object_pairs_hook=_reject_duplicate_keys, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise SnapshotRefused(f"it is not valid JSON: {error}") from error


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON parsers differ in which of two equal keys wins; two readers must never see two different releases.
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("one object has the same key twice")
    return document


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _require_match(value: str, pattern: re.Pattern[str], path: str) -> str:
    if not pattern.fullmatch(value):
        raise SnapshotRefused(f"{path} is not of the form {pattern.pattern}")
    return value
