"""A bundle: the immutable files of one trained coin, named by the digest of its manifest.

Reading and verifying needs neither onnx nor torch: the bot does it before every load. `writer` writes them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from mlcore.constants import HIDDEN_WIDTHS
from mlcore.errors import BundleRefused
from mlcore.features.indicators import Schema, find_schema
from mlcore.features.labels import Label
from mlcore.features.splits import Shares

FORMAT = 1

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "weights.safetensors"
SCALER_FILE = "scaler.json"
MANIFEST_FILE = "manifest.json"

PAYLOAD_FILES = (MODEL_FILE, WEIGHTS_FILE, SCALER_FILE)
"""The files that a manifest may list. Other names never become paths."""

NO_SCALER = "none"
"""What a manifest states as its scaler if the model needs none."""

_MAX_MANIFEST_BYTES = 1024 * 1024


class Layout(StrEnum):
    """What follows each linear layer first, ReLU or BatchNorm. The weights are the same in both cases."""

    RELU_BEFORE_BN = "relu-before-bn"
    BN_BEFORE_RELU = "bn-before-relu"


@dataclass(frozen=True)
class FileEntry:
    sha256: str
    """64 hex digits, without a prefix."""
    size: int


@dataclass(frozen=True)
class Manifest:
    """The fields of manifest.json that the code uses; `document` is the whole file."""

    coin: str
    line: str
    is_simulated: bool
    interval_seconds: int
    """Of the bars that it was trained on, and answers for."""
    schema_name: str
    schema_digest: str
    lookback: int
    classes: tuple[str, ...]
    label: Label
    """What it predicts."""
    cuts: tuple[float, float] | None
    """None for an imported model, whose cuts are not known."""
    shares: Shares
    """Of its fit, stop and gate window."""
    dataset_digest: str | None
    """None if it is not known what it was trained on."""
    code_version: str
    seed: int | None
    """None if it is not known."""
    files: Mapping[str, FileEntry]
    document: Mapping[str, Any]

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Raises BundleRefused if a field is missing or has another type."""
        if document.get("format") != FORMAT:
            raise BundleRefused(
                f"{MANIFEST_FILE}: format {document.get('format')!r}, this code reads {FORMAT}"
            )
        try:
            cuts = document["labels"]["cuts"]
            shares = document.get("split") or {}
            return cls(
                coin=str(document["coin"]),
                line=str(document["line"]),
                is_simulated=bool(document["simulated"]),
                interval_seconds=_parse_interval(document["interval_seconds"]),
                schema_name=str(document["schema"]["name"]),
                schema_digest=str(document["schema"]["digest"]),
                lookback=int(document["schema"]["lookback"]),
                classes=tuple(document["classes"]),
                label=Label.parse(document["labels"]),
                cuts=None if cuts is None else (float(cuts[0]), float(cuts[1])),
                shares=Shares(**{name: shares[name] for name in shares}),
                dataset_digest=None if document["dataset"] is None else str(document["dataset"]),
                code_version=str(document["code_version"]),
                seed=None if document["seed"] is None else int(document["seed"]),
                files={name: _parse_entry(name, entry) for name, entry in document["files"].items()},
                document=document,
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BundleRefused(
                f"{MANIFEST_FILE}: a field is missing or has another type ({error})"
            ) from error

    @property
    def schema(self) -> Schema:
        """This code's schema of that name. Raises BundleRefused if it is unknown or its digest differs."""
        schema = find_schema(self.schema_name)
        if schema is None:
            raise BundleRefused(f"feature schema {self.schema_name!r} is unknown here; update the client")
        if schema.digest != self.schema_digest:
            raise BundleRefused(
                f"feature schema {self.schema_name} is {self.schema_digest} in the bundle, {schema.digest} here: "
                "its features would mean something else; update the client"
            )
        return schema

    @property
    def needs_scaler(self) -> bool:
        """Whether a model without a scaler file lacks it. A graph that the service did not write may need none."""
        return self.document.get("scaler") != NO_SCALER

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """Of the perceptron, as claimed; the default ones if there is no usable claim."""
        claim = read_claim(self.document, "parameters", "hidden_widths")
        is_usable = isinstance(claim, list) and all(type(width) is int and width > 0 for width in claim)
        return tuple(claim) if is_usable and len(claim) == len(HIDDEN_WIDTHS) else HIDDEN_WIDTHS


@dataclass(frozen=True)
class Bundle:
    """A folder with a manifest; `verify` also checks the hash of every file."""

    folder: Path
    digest: str
    """`sha256:…` of manifest.json, which holds the canonical bytes."""
    manifest: Manifest

    def read_payload(self, name: str) -> bytes:
        """The bytes of one listed file, checked against its size and hash."""
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleRefused(f"{name} is not part of the bundle")
        data = read_file(self.folder / name)
        if len(data) != entry.size:
            raise BundleRefused(f"{name} has {len(data):,} bytes, the manifest says {entry.size:,}")
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleRefused(f"{name} is not the file the manifest names: its sha256 differs")
        return data


def to_canonical_json(document: Mapping[str, Any]) -> bytes:
    """Sorted keys, no spaces, no NaN, ASCII: equal content gives equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def read(folder: Path) -> Bundle:
    """The bundle in a folder by its manifest alone. Raises BundleRefused."""
    data = read_file(folder / MANIFEST_FILE, at_most=_MAX_MANIFEST_BYTES)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleRefused(f"{MANIFEST_FILE} is not JSON") from error
    if not isinstance(document, dict):
        raise BundleRefused(f"{MANIFEST_FILE} is not a JSON object")
    manifest = Manifest.parse(document)
    if not _is_canonical(document, data):
        raise BundleRefused(f"{MANIFEST_FILE} is not in canonical form: it was changed by hand")
    return Bundle(folder, f"sha256:{hashlib.sha256(data).hexdigest()}", manifest)


def _is_canonical(document: Mapping[str, Any], data: bytes) -> bool:
    try:
        return to_canonical_json(document) == data
    except ValueError:  # NaN or an infinity
        return False


def verify(folder: Path, digest: str | None = None) -> Bundle:
    """Reads the bundle and checks the size and sha256 of every file, and the digest if one is expected.

    Raises BundleRefused with the file and the reason.
    """
    bundle = read(folder)
    if digest is not None and bundle.digest != digest:
        raise BundleRefused(f"{MANIFEST_FILE} makes this bundle {bundle.digest}, expected {digest}")
    for name in bundle.manifest.files:
        bundle.read_payload(name)
    return bundle


def _parse_interval(seconds: Any) -> int:
    if type(seconds) is not int or seconds < 1:
        raise ValueError(f"an interval of {seconds!r} seconds")
    return seconds


def _parse_entry(name: str, entry: Mapping[str, Any]) -> FileEntry:
    if name not in PAYLOAD_FILES:
        raise ValueError(f"a file of the name {name!r}")
    return FileEntry(sha256=str(entry["sha256"]), size=int(entry["size"]))


def read_file(path: Path, *, at_most: int | None = None) -> bytes:
    try:
        if at_most is not None and path.stat().st_size > at_most:
            raise BundleRefused(f"{path.name} is larger than {at_most:,} bytes")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleRefused(f"{path.name} is missing") from error
    except OSError as error:
        raise BundleRefused(f"{path.name} cannot be read ({error.strerror})") from error


def read_claim(document: Any, *path: str) -> Any:
    """The manifest's value at a path; None if there is none."""
    for step in path:
        document = document.get(step) if isinstance(document, Mapping) else None
    return document


def read_claimed_number(document: Any, *path: str) -> int | float | None:
    """The same if it is a number, else None."""
    value = read_claim(document, *path)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
