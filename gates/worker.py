"""A gate worker: claims a measurement, measures the stored files in a process of their own, and stores the result once."""

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings

from audit.hash_chain import to_canonical_json
from gates import baselines
from gates.models import Measurement
from mlcore.bundle import format as bundle_format
from mlcore.bundle.format import read_claim
from mlcore.features.terms import DEFAULT_TERMS, Terms
from training import artifact_store
from training.jobs import leases, sandbox
from training.models import Bundle, Dataset
from training.rules import ATTEMPTS_WITHOUT_PROGRESS, JobState

logger = logging.getLogger(__name__)

_MAX_FIGURES_BYTES = 16 * 2**20


class MeasuringFailed(Exception):
    """The measurement has no figures, for this reason."""


class MeasuringKilled(Exception):
    """The measuring process was killed from outside. That shows nothing about the bundle, so it is measured again."""


def run(measurement_id: int, *, worker_name: str) -> None:
    """Measure, if the row is free. A second delivery, or one for a measurement that ended, changes nothing."""
    measurement = leases.claim(
        Measurement, measurement_id, worker_name=worker_name, code_version=settings.CODE_VERSION
    )
    if measurement is None:
        return
    try:
        with leases.work_on(measurement):
            state, columns = _try_measuring(measurement)
        leases.finish(measurement, state, **columns)
    except MeasuringKilled as killed:
        logger.warning("%s: %s; it is measured again", measurement, killed)
        leases.give_back(measurement)
    except leases.ClaimLost as lost:
        logger.warning("%s; its figures are discarded", lost)


def _try_measuring(measurement: Measurement) -> tuple[JobState, dict[str, Any]]:
    """How the measuring ended, and the columns that go with it."""
    try:
        body = to_canonical_json(_measure(measurement))
    except MeasuringFailed as failed:
        return JobState.FAILED, {"failure": str(failed)}
    detail = {"sha256": hashlib.sha256(body.encode()).hexdigest()}
    return JobState.SUCCEEDED, {"body": body, "detail": detail}


def _measure(measurement: Measurement) -> dict[str, Any]:
    if measurement.attempt > ATTEMPTS_WITHOUT_PROGRESS:
        raise MeasuringFailed(
            f"{ATTEMPTS_WITHOUT_PROGRESS} attempts to measure it were killed: it may take more than the workers have"
        )
    with tempfile.TemporaryDirectory(prefix="measuring-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        arguments = [*_fetch(measurement, folder), "--digest", measurement.bundle.digest]
        baseline = _find_digest(folder / "baseline")
        _run(folder, "mlcore.evaluation.measure", [*arguments, "--output", "figures.json"])
        document = _read_document(folder / "figures.json")
    _require_subject(document, measurement, baseline)
    return document


def _require_subject(document: dict[str, Any], measurement: Measurement, baseline: str | None) -> None:
    """Raise MeasuringFailed for figures of another subject. A manifest that cannot be read names no coin."""
    coin = measurement.bundle.coin.symbol
    if document.get("dataset_digest") != measurement.dataset.digest:
        raise MeasuringFailed("the figures are of other candles than requested")
    if document.get("bundle_digest") != measurement.bundle.digest:
        raise MeasuringFailed("the figures are of another bundle than requested")
    if read_claim(document, "skill", "baseline", "digest") not in (None, baseline):
        raise MeasuringFailed("the figures compare with another V5 than the one that was given")
    second = _find_second_bundle(measurement)
    if read_claim(document, "reproduction", "bundle") not in (None, second and second.digest):
        raise MeasuringFailed("the figures compare with another second training than the one that was given")
    if document.get("coin") not in (None, coin):
        raise MeasuringFailed(f"its manifest says that it is a model of {document['coin']}, not of {coin}")


def _fetch(measurement: Measurement, folder: Path) -> list[str]:
    """Copy everything that is measured into the folder; returns the arguments that name it."""
    _fetch_candles(measurement.dataset, folder / "candles.canonical")
    arguments = ["--bundle", "bundle", "--candles", "candles.canonical"]
    trained_on = measurement.bundle.dataset or measurement.dataset
    if trained_on.digest != measurement.dataset.digest:
        _fetch_candles(trained_on, folder / "training.canonical")
        arguments += ["--training", "training.canonical"]
    arguments += _fetch_baseline(trained_on, _read_terms(measurement.bundle), folder)
    second = _find_second_bundle(measurement)
    if second is not None:
        _fetch_bundle(second, folder / "second")
        arguments += ["--second", "second"]
    _fetch_bundle(measurement.bundle, folder / "bundle")
    return arguments


def _find_second_bundle(measurement: Measurement) -> Bundle | None:
    """The result of a second training of the model; None where there was none, or it failed."""
    return measurement.second_run.bundle if measurement.second_run else None


def _read_terms(bundle: Bundle) -> Terms:
    """Of the candidate's manifest, which decides what it is judged by; the default ones where it cannot be read."""
    try:
        return Terms.parse(json.loads(bundle.manifest))
    except (KeyError, TypeError, ValueError, RecursionError):
        return DEFAULT_TERMS


def _fetch_baseline(trained_on: Dataset, terms: Terms, folder: Path) -> list[str]:
    """The V5 of the candidate's candles and terms. It is fitted before any file of the bundle is in the folder.

    Where it cannot be fitted, only the gate *skill* lacks its figures, and says why.
    """
    target = folder / "baseline"
    if not (_fetch_trained(trained_on, terms, target) or baselines.load(trained_on, target, terms)):
        candles = next(
            name for name in ("training.canonical", "candles.canonical") if (folder / name).exists()
        )
        arguments = ["--candles", candles, "--coin", trained_on.coin.symbol, "--output", target.name]
        arguments += ["--code-version", settings.CODE_VERSION, "--terms", json.dumps(terms.describe())]
        arguments += ["--simulated"] if trained_on.is_simulated else []
        try:
            _run(folder, "mlcore.evaluation.v5", arguments)
        except MeasuringFailed as failed:
            return ["--no-baseline", f"V5 was not fitted: {failed}"]
        baselines.store(trained_on, target, terms)
    return ["--baseline", target.name]


def _fetch_trained(trained_on: Dataset, terms: Terms, target: Path) -> bool:
    trained = baselines.find_trained(trained_on, terms)
    if trained is None:
        return False
    _fetch_bundle(trained, target)
    return baselines.is_whole(target)


def _find_digest(baseline: Path) -> str | None:
    """Of its model; none without a baseline."""
    if not baseline.exists():
        return None
    return f"sha256:{bundle_format.read(baseline).manifest.files[bundle_format.MODEL_FILE].sha256}"


def _fetch_bundle(bundle: Bundle, folder: Path) -> None:
    """The stored files as they are. The *bundle* gate finds one that is missing or damaged."""
    folder.mkdir()
    for artifact in bundle.artifacts.all():
        with (
            contextlib.suppress(artifact_store.FileLost),
            artifact_store.open_stream(artifact.sha256) as stream,
            (folder / artifact.name).open("wb") as out,
        ):
            shutil.copyfileobj(stream, out)


def _fetch_candles(dataset: Dataset, path: Path) -> None:
    try:
        path.write_bytes(artifact_store.read(dataset.digest.removeprefix("sha256:")))
    except artifact_store.FileLost as lost:
        raise MeasuringFailed(f"its candles cannot be read: {lost}") from lost


def _run(folder: Path, module: str, arguments: list[str]) -> None:
    """Raises MeasuringFailed unless the process succeeds within its time, MeasuringKilled when it is killed."""
    seconds = settings.MEASURING_TIME_LIMIT_SECONDS
    try:
        sandbox.run_module(module, arguments, folder=folder, seconds=seconds)
    except sandbox.ProcessTimedOut as late:
        raise MeasuringFailed(f"measuring took {late} and was stopped") from None
    except sandbox.ProcessKilled as killed:
        raise MeasuringKilled(f"the measuring process was {killed}") from None
    except sandbox.ProcessFailed as end:
        raise MeasuringFailed(f"the measuring process {end}") from None


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(sandbox.read_output(path, _MAX_FIGURES_BYTES))
        to_canonical_json(document)
    except (sandbox.ProcessFailed, ValueError, RecursionError) as error:
        raise MeasuringFailed(f"the measuring process left no usable figures: {error}") from error
    if not isinstance(document, dict):
        raise MeasuringFailed("the measuring process left no figures")
    return document
