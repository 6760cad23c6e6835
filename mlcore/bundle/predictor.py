"""Runs a bundle in onnxruntime on the CPU. The gate and the bot both use it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from pathlib import Path

import numpy as np
import onnxruntime as ort
import polars as pl

from mlcore import parallel
from mlcore.bundle import format as bundle_format
from mlcore.bundle import graph_limits
from mlcore.bundle.format import MODEL_FILE
from mlcore.constants import CLASSES
from mlcore.errors import BundleRefused, NotFinite
from mlcore.features import indicators

INPUT = "features"
OUTPUT = "logits"

_BATCH_ROWS = 512
"""The activations of so many rows stay in the processor's cache."""


@dataclass(frozen=True)
class Prediction:
    """The direction of the bars after `at`, with the probability of each class."""

    direction: str
    probabilities: dict[str, float]
    logits: tuple[float, ...]
    at: datetime
    """Opening time of the last bar that was used."""
    out_of_range: int | None = None
    """Number of features outside their range in the fit window; None if the bundle states no range, as of a window."""


class Predictor:
    """A loaded bundle. Raises BundleRefused if the files do not match the manifest, or cannot be run."""

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        bundle = bundle_format.verify(folder) if verify else bundle_format.read(folder)
        self.digest = bundle.digest
        self.manifest = bundle.manifest
        self.schema = self.manifest.schema
        if self.manifest.classes != CLASSES:
            raise BundleRefused(f"classes {self.manifest.classes}, this code predicts {CLASSES}")
        model = bundle.read_payload(MODEL_FILE) if verify else bundle_format.read_file(folder / MODEL_FILE)
        self._session = _create_session(model, self.schema.shape)
        self._range = _parse_range(self.manifest.document.get("seen"), len(self.schema.columns))
        if self.schema.is_window:  # its range says nothing of a feature
            self._range = None

    def logits(self, raw_features: np.ndarray) -> np.ndarray:
        """float32 [n, 3] from unscaled float32 features [n, 72], or windows [n, L, 5]: the graph holds the scaler.

        In batches: a graph from outside may read one row's answer from a later row. Raises BundleRefused if the graph fails.
        """
        return self._map_batches(raw_features, self._run)

    def logits_by_row(self, raw_features: np.ndarray) -> np.ndarray:
        """The same with each row alone, as a bot asks: no row can know another."""

        def run(rows: np.ndarray) -> np.ndarray:
            answers = [self._run(rows[at : at + 1]) for at in range(len(rows))]
            if any(answer.shape != (1, len(CLASSES)) for answer in answers):
                raise BundleRefused(f"{MODEL_FILE} does not answer one row with {len(CLASSES)} logits")
            return np.concatenate(answers) if answers else self._run(rows)

        return self._map_batches(raw_features, run)

    def _map_batches(self, raw_features: np.ndarray, run: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        rows = np.ascontiguousarray(raw_features, dtype=np.float32)
        batches = parallel.chunks(len(rows), _BATCH_ROWS) or [slice(0, 0)]
        try:
            return np.concatenate(parallel.thread_map(lambda batch: run(rows[batch]), batches))
        except BundleRefused:
            raise
        except Exception as error:  # onnxruntime's own classes share no narrower base
            raise BundleRefused(f"{MODEL_FILE} fails on {len(rows)} rows: {str(error)[:200]}") from error

    def _run(self, rows: np.ndarray) -> np.ndarray:
        answer: np.ndarray = self._session.run([OUTPUT], {INPUT: rows})[0]
        return answer

    def predict(self, frame: pl.DataFrame) -> Prediction:
        """From candles (at least the schema's lookback) to the direction after the last bar.

        Raises NotEnoughBars, FeaturesRefused, and NotFinite for logits that are not finite.
        """
        row = indicators.compute_latest(frame, self.schema)
        logits = self.logits(row)
        if not np.isfinite(logits).all():
            raise NotFinite(f"the model answers {logits[0].tolist()}: not finite, not to be acted on")
        probabilities = dict(zip(CLASSES, softmax(logits)[0].tolist(), strict=True))
        direction = CLASSES[int(logits[0].argmax())]
        out_of_range = None
        if self._range is not None:
            out_of_range = int(np.count_nonzero((row < self._range[0]) | (row > self._range[1])))
        return Prediction(
            direction, probabilities, tuple(logits[0].tolist()), frame["timestamp"][-1], out_of_range
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64. The greatest logit is subtracted first, so that none overflows."""
    wide = logits.astype(np.float64)
    greatest = reduce(np.maximum, np.moveaxis(wide, -1, 0))  # by class: NumPy is slow along so short an axis
    with np.errstate(invalid="ignore"):
        powers = np.exp(wide - greatest[..., np.newaxis])
    return powers / reduce(np.add, np.moveaxis(powers, -1, 0))[..., np.newaxis]


def _parse_range(claim: object, n_features: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Least and greatest of each feature in the fit window, float32 [n]; None if the manifest does not state them."""
    try:
        least, greatest = (np.asarray(claim[end], np.float32) for end in ("least", "greatest"))  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None
    return (least, greatest) if least.shape == greatest.shape == (n_features,) else None


def _create_session(model: bytes, shape: tuple[int, ...]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # One row is too little work to share out, and a bot's other threads need the cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Fatal only: it logs a model's faults to stderr on its own, and they are raised as BundleRefused instead.
    options.log_severity_level = 4
    try:
        graph_limits.check_graph(model)
    except BundleRefused as refused:
        raise BundleRefused(f"{MODEL_FILE}: {refused}") from refused
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no narrower base
        raise BundleRefused(f"{MODEL_FILE} cannot be loaded: {str(error)[:200]}") from error
    ends = [(v.name, v.type, v.shape[1:]) for v in (*session.get_inputs(), *session.get_outputs())]
    if ends != [(INPUT, "tensor(float)", list(shape)), (OUTPUT, "tensor(float)", [len(CLASSES)])]:
        raise BundleRefused(f"{MODEL_FILE} has inputs and outputs {ends}, not {INPUT} → {OUTPUT}")
    return session
