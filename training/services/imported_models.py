"""Imported models: files from outside, read in a sandbox and stored as bundles."""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from django.conf import settings

from accounts.roles import Actor, Role
from audit import services as audit
from common.errors import InvalidInput, Unavailable
from mlcore.bundle import format as bundles
from mlcore.bundle.format import MANIFEST_FILE
from mlcore.errors import BundleRefused, ImportRefused
from mlcore.fitting.recipes import FLAT_LINE
from mlcore.importers.declaration import Declaration
from training import artifact_store
from training.jobs import sandbox
from training.models import Bundle, Coin, Dataset
from training.rules import DEFAULT_INTERVAL_SECONDS, INTERVAL_SECONDS
from training.services.lines import find_line

PRIVATE_BYTES = 3 * 2**30
"""Memory limit of the reading process; torch itself takes a tenth of it."""
OUTPUT_BYTES = 256 * 2**20
_MAX_ANSWER_BYTES = 64 * 1024
MAX_DECLARATION_BYTES = 64 * 1024


@dataclass(frozen=True)
class ImportedModel:
    """An imported bundle."""

    bundle: Bundle
    notes: tuple[str, ...]
    """What the file did not contain, or contained in another form."""
    is_new: bool


def read_model_file(path: Path) -> bytes:
    """Read a regular file, up to one byte more than the limit. Raises InvalidInput; follows no symbolic link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidInput(f"{path.name} is not a file.", field="file")
            return file.read(settings.IMPORTED_MODEL_UPLOAD_LIMIT_BYTES + 1)
    except OSError as error:
        problem = (
            "is a link; name the file itself" if path.is_symlink() else f"cannot be read: {error.strerror}"
        )
        raise InvalidInput(f"{path.name} {problem}.", field="file") from error


def import_model(
    coin: Coin,
    data: bytes,
    *,
    name: str,
    line: str,
    actor: Actor,
    schema: str | None = None,
    layout: str | None = None,
    interval_seconds: int = DEFAULT_INTERVAL_SECONDS,
    simulated: bool = False,
    declaration: Mapping[str, Any] | None = None,
) -> ImportedModel:
    """Make a bundle of `line` for `coin` from a torch checkpoint or an ONNX file.

    `schema` names the features of the model, `layout` the order of BatchNorm and ReLU: neither is guessed.
    `interval_seconds` is that of the bars it was trained on. `declaration` says what it was trained on and with which
    figures, so that every gate can recompute them. `name` is the file name, for messages. Raises InvalidInput for a file
    that cannot be imported or a missing option; nothing is stored then.
    """
    name = PurePath(name).name[:110] or "a file"  # cut to fit its column
    with audit.record_refusals("bundle.import", coin, actor=actor, reason=name):
        actor.require(Role.OPERATOR, "import a model")
        if find_line(line).recipe == FLAT_LINE:
            raise InvalidInput(
                f"{line} is not imported: launch a release of it with the purpose fallback.", field="line"
            )
        if interval_seconds not in INTERVAL_SECONDS:
            choices = ", ".join(f"{seconds:,}" for seconds in INTERVAL_SECONDS)
            raise InvalidInput(
                f"A bar interval of {interval_seconds:,} s: choose one of {choices}.",
                field="interval_seconds",
            )
        _check_size(name, data)
        dataset = None
        if declaration is not None:
            dataset = _find_declared_dataset(coin, declaration, interval_seconds, simulated)
        request = {
            "coin": coin.symbol,
            "line": line,
            "schema": schema,
            "layout": layout,
            "simulated": simulated,
            "interval_seconds": interval_seconds,
            "code_version": settings.CODE_VERSION,
            "declaration": declaration,
        }
        with tempfile.TemporaryDirectory(prefix="importing-", ignore_cleanup_errors=True) as folder:
            answer = _convert(Path(folder), data, request, name)
            written = _verify(Path(folder) / "bundle", str(answer["digest"]), request, data)
            payload = {part: written.read_payload(part) for part in written.manifest.files}
        return _store(coin, written, payload, answer["notes"], name=name, dataset=dataset, actor=actor)


def read_declaration(data: bytes) -> Mapping[str, Any]:
    """A declaration from the bytes of a JSON file. Raises InvalidInput."""
    if len(data) > MAX_DECLARATION_BYTES:
        raise InvalidInput(f"A declaration has at most {MAX_DECLARATION_BYTES:,} bytes.", field="declaration")
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The declaration is not JSON.", field="declaration") from error
    if not isinstance(document, dict):
        raise InvalidInput("The declaration is no JSON object.", field="declaration")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not finite")


def _find_declared_dataset(
    coin: Coin, document: Mapping[str, Any], interval_seconds: int, simulated: bool
) -> Dataset:
    """The dataset that is declared. Raises InvalidInput for a declaration that is not whole, or does not fit it."""
    try:
        declared = Declaration.parse(document)
    except ImportRefused as refused:
        raise InvalidInput(f"{str(refused)[:1].upper()}{str(refused)[1:]}.", field="declaration") from refused
    dataset = Dataset.objects.not_withdrawn().filter(coin=coin, digest=declared.dataset).first()
    if dataset is None:
        why = f"{coin} has no dataset {declared.dataset}: import the candles of its training first."
    elif dataset.interval_seconds != interval_seconds:
        why = (
            f"Dataset {dataset.pk} has bars of {dataset.interval_seconds:,} s, not of {interval_seconds:,} s."
        )
    elif dataset.is_simulated != simulated:
        kind = "simulated" if dataset.is_simulated else "real"
        why = f"Dataset {dataset.pk} is {kind}: say the same of the model."
    else:
        return dataset
    raise InvalidInput(why, field="declaration")


def _check_size(name: str, data: bytes) -> None:
    limit = settings.IMPORTED_MODEL_UPLOAD_LIMIT_BYTES
    if not data:
        raise InvalidInput(f"{name} is empty.", field="file")
    if len(data) > limit:
        raise InvalidInput(
            f"{name} has more than {limit:,} bytes; the network alone takes 260,000. Remove what prediction"
            " does not need.",
            field="file",
        )


def _convert(folder: Path, data: bytes, request: dict[str, Any], name: str) -> dict[str, Any]:
    """Run the conversion in a sandbox. Raises InvalidInput for a file that it refuses or that ends it."""
    (folder / "model").write_bytes(data)
    (folder / "request.json").write_text(json.dumps(request))
    try:
        sandbox.run_module(
            "mlcore.importers.convert",
            ["--file", "model", "--request", "request.json", "--bundle", "bundle", "--answer", "answer.json"],
            folder=folder,
            seconds=settings.IMPORT_TIME_LIMIT_SECONDS,
            private_bytes=PRIVATE_BYTES,
            output_bytes=OUTPUT_BYTES,
        )
        answer = _read_answer(folder)
    except sandbox.ProcessKilled as killed:
        raise Unavailable(
            f"The process that reads {name} was {killed}: try again, or check the machine's memory."
        ) from killed
    except sandbox.ProcessTimedOut as late:
        raise InvalidInput(f"{name}: reading it took {late} and was stopped.", field="file") from late
    except sandbox.ProcessFailed as failure:
        raise InvalidInput(
            f"{name} cannot be read: the process that reads it {failure}.", field="file"
        ) from failure
    if "refused" in answer:
        raise InvalidInput(f"{name}: {answer['refused']}.", field="file")
    return answer


def _read_answer(folder: Path) -> dict[str, Any]:
    """Digest and notes, or the reason of a refusal. Raises ProcessFailed for anything else."""
    try:
        answer = json.loads(sandbox.read_output(folder / "answer.json", _MAX_ANSWER_BYTES))
    except (ValueError, RecursionError) as error:
        raise sandbox.ProcessFailed("left no usable answer") from error
    if not isinstance(answer, dict):
        raise sandbox.ProcessFailed("left no usable answer")
    if isinstance(answer.get("refused"), str):
        return {"refused": _make_printable(answer["refused"])}
    notes = answer.get("notes")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise sandbox.ProcessFailed("left no usable answer")
    return {"digest": str(answer.get("digest")), "notes": [_make_printable(note) for note in notes[:20]]}


def _make_printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:2000]


def _verify(folder: Path, digest: str, request: dict[str, Any], data: bytes) -> bundles.Bundle:
    """Load the written bundle and check it against the request: the reading process is not trusted."""
    try:
        written = bundles.verify(folder, digest)
    except BundleRefused as refused:
        raise InvalidInput(f"The file did not give a valid bundle: {refused}.", field="file") from refused
    document = written.manifest.document
    requested = {
        name: request[name] for name in ("coin", "line", "simulated", "interval_seconds", "code_version")
    }
    requested["dataset"] = request["declaration"] and request["declaration"]["dataset"]
    requested["run"] = request["declaration"] and request["declaration"].get("run")
    stored = {name: document.get(name) for name in requested}
    sources = [{"sha256": hashlib.sha256(data).hexdigest(), "kind": kind} for kind in ("torch", "onnx")]
    is_of_schema = written.manifest.schema_name == request["schema"]
    if stored != requested or not is_of_schema or document.get("imported") not in sources:
        raise InvalidInput("The bundle made from the file does not match the request.", field="file")
    return written


def _store(
    coin: Coin,
    written: bundles.Bundle,
    payload: dict[str, bytes],
    notes: list[str],
    *,
    name: str,
    dataset: Dataset | None,
    actor: Actor,
) -> ImportedModel:
    """Store the files, then the rows: a row never names missing bytes."""
    manifest = bundles.to_canonical_json(written.manifest.document)
    artifacts = artifact_store.store_files({**payload, MANIFEST_FILE: manifest})
    source = written.manifest.document["imported"]["sha256"]
    with audit.locked():
        bundle, is_new = artifact_store.create_bundle(
            written.digest,
            artifacts,
            coin=coin,
            line=written.manifest.line,
            dataset=dataset,
            interval_seconds=written.manifest.interval_seconds,
            origin=f"imported from {name} sha256:{source}",
            manifest=manifest.decode(),
            tracked_run=written.manifest.document.get("run"),
            is_simulated=written.manifest.is_simulated,
        )
        if is_new:
            detail = {
                "digest": bundle.digest,
                "file": f"sha256:{source}",
                "line": bundle.line,
                "schema": written.manifest.schema_name,
                "interval_seconds": bundle.interval_seconds,
                "parameters": written.manifest.document["parameters"],
                "notes": notes,
                "dataset": dataset and dataset.digest,
            }
            audit.record("bundle.imported", bundle, actor=actor, reason=bundle.origin, detail=detail)
    return ImportedModel(bundle, tuple(notes), is_new)
