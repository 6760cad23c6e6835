"""Checkpoints from outside: read in a process apart, and made a bundle like any other."""

import hashlib
import json
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from django.conf import settings
from django.db import transaction

from accounts.rules import Actor, Role
from audit import services as audit
from common.errors import InvalidInput, Unavailable
from mlcore.bundle import format as bundles
from mlcore.bundle.format import MANIFEST_FILE
from mlcore.errors import BundleRefused
from training import artifact_store
from training.jobs import sandbox
from training.models import Artifact, Bundle, Coin
from training.services.runs import plan

PRIVATE_BYTES = 3 * 2**30
"""What reading may take of memory; torch itself takes a tenth of it."""


@dataclass(frozen=True)
class Imported:
    """What an import came to."""

    bundle: Bundle
    notes: tuple[str, ...]
    """What the file did not say, or said otherwise: a person should know it."""
    is_new: bool


def read_checkpoint_file(path: Path) -> bytes:
    """The bytes of a plain file, no more than may be imported. Raises InvalidInput; a link is not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidInput(f"{path.name} is not a file.", field="file")
            return file.read(settings.CHECKPOINT_UPLOAD_LIMIT_BYTES + 1)
    except OSError as error:
        told = "is a link; name the file itself" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise InvalidInput(f"{path.name} {told}.", field="file") from error


def import_checkpoint(
    coin: Coin,
    data: bytes,
    *,
    name: str,
    line: str,
    actor: Actor,
    schema: str | None = None,
    layout: str | None = None,
    simulated: bool = False,
) -> Imported:
    """A bundle of `line` for `coin` from a torch checkpoint or an ONNX file.

    `schema` says which features it takes, `layout` whether BatchNorm stands before ReLU: neither is guessed. `name` is the
    file's, for messages. Raises InvalidInput saying what is wrong with the file or has to be said; then nothing was kept.
    """
    with audit.refusals_recorded("bundle.import", coin, actor=actor, reason=_name(name)):
        actor.require(Role.OPERATOR, "import a checkpoint")
        plan(line, {})
        _check_size(name, data)
        request = {
            "coin": coin.symbol,
            "line": line,
            "schema": schema,
            "layout": layout,
            "simulated": simulated,
            "code_version": settings.CODE_VERSION,
        }
        with tempfile.TemporaryDirectory(prefix="importing-", ignore_cleanup_errors=True) as folder:
            answer = _read_apart(Path(folder), data, request, _name(name))
            written = _verified(Path(folder) / "bundle", str(answer["digest"]), request, data)
            payload = {name: written.payload(name) for name in written.manifest.files}
        return _keep(coin, written, payload, answer["notes"], name=_name(name), actor=actor)


def _name(name: str) -> str:
    """The last part of the file's name, short enough for its row."""
    return PurePath(name).name[:110] or "a file"


def _check_size(name: str, data: bytes) -> None:
    limit = settings.CHECKPOINT_UPLOAD_LIMIT_BYTES
    if not data:
        raise InvalidInput(f"{_name(name)} is empty.", field="file")
    if len(data) > limit:
        raise InvalidInput(
            f"{_name(name)} has more than {limit:,} bytes; the network itself takes 260,000. Leave out what is not needed"
            " to predict.",
            field="file",
        )


def _read_apart(folder: Path, data: bytes, request: dict[str, Any], name: str) -> dict[str, Any]:
    """What the reading process answered. Raises InvalidInput for a file it refuses, or does not survive."""
    (folder / "checkpoint").write_bytes(data)
    (folder / "request.json").write_text(json.dumps(request))
    arguments = [
        "--file",
        "checkpoint",
        "--request",
        "request.json",
        "--bundle",
        "bundle",
        "--answer",
        "answer.json",
    ]
    try:
        sandbox.run(
            "mlcore.importers.convert",
            arguments,
            folder=folder,
            seconds=settings.IMPORT_TIME_LIMIT_SECONDS,
            private_bytes=PRIVATE_BYTES,
        )
        answer: dict[str, Any] = json.loads((folder / "answer.json").read_bytes())
    except sandbox.Killed as killed:
        raise Unavailable(
            f"The process that reads {name} was {killed}: try again, or look at the memory."
        ) from killed
    except sandbox.TookTooLong as late:
        raise InvalidInput(f"{name}: reading it took {late} and was stopped.", field="file") from late
    except (sandbox.EndedBadly, OSError, ValueError) as end:
        raise InvalidInput(f"{name} cannot be read: the process that reads it {end}.", field="file") from end
    if "refused" in answer:
        raise InvalidInput(f"{name}: {answer['refused']}.", field="file")
    return answer


def _verified(folder: Path, digest: str, request: dict[str, Any], data: bytes) -> bundles.Bundle:
    """The bundle as it was written, and of what was asked: the reading process is not taken at its word."""
    try:
        written = bundles.verify(folder, digest)
    except BundleRefused as refused:
        raise InvalidInput(f"No sound bundle came of it: {refused}.", field="file") from refused
    document = written.manifest.document
    asked = {name: request[name] for name in ("coin", "line", "simulated", "code_version")}
    said = {name: document.get(name) for name in asked}
    sources = [{"sha256": hashlib.sha256(data).hexdigest(), "kind": kind} for kind in ("torch", "onnx")]
    is_of_schema = written.manifest.schema_name == request["schema"]
    if said != asked or not is_of_schema or document.get("imported") not in sources:
        raise InvalidInput("The bundle that came of it is not the one that was asked for.", field="file")
    return written


def _keep(
    coin: Coin,
    written: bundles.Bundle,
    payload: dict[str, bytes],
    notes: list[str],
    *,
    name: str,
    actor: Actor,
) -> Imported:
    """The files first, then the rows: a row never names bytes that are not there."""
    manifest = bundles.to_canonical_json(written.manifest.document)
    artifacts = [
        Artifact(name=file, sha256=artifact_store.store(content), size=len(content))
        for file, content in sorted({**payload, MANIFEST_FILE: manifest}.items())
    ]
    source = written.manifest.document["imported"]["sha256"]
    with transaction.atomic():
        audit.lock_head()
        bundle, is_new = Bundle.objects.get_or_create(
            digest=written.digest,
            defaults={
                "coin": coin,
                "line": written.manifest.line,
                "origin": f"imported from {name} sha256:{source}",
                "manifest": manifest.decode(),
                "is_simulated": written.manifest.is_simulated,
            },
        )
        if is_new:
            for artifact in artifacts:
                artifact.bundle = bundle
            Artifact.objects.bulk_create(artifacts)
            detail = {
                "digest": bundle.digest,
                "file": f"sha256:{source}",
                "line": bundle.line,
                "schema": written.manifest.schema_name,
                "parameters": written.manifest.document["parameters"],
                "notes": notes,
            }
            audit.record("bundle.imported", bundle, actor=actor, reason=bundle.origin, detail=detail)
    return Imported(bundle, tuple(notes), is_new)
