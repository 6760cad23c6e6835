"""The only way a bundle is ever run: by the gate and by the bot alike, in onnxruntime on the CPU."""

from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from pathlib import Path

import numpy as np
import onnxruntime as ort
import polars as pl

from mlcore import parallel
from mlcore.bundle import format as bundle_format
from mlcore.constants import CLASSES
from mlcore.errors import BundleRefused, NotFinite
from mlcore.features import indicators

INPUT = "features"
OUTPUT = "logits"

_BATCH = 512
"""Rows run at once: what lies between the layers then stays in the processor's cache."""
_ROWS_A_THREAD = 8 * _BATCH

# onnxruntime logs a model's faults to stderr on its own; they are raised as BundleRefused instead.
_FATAL_ONLY = 4


@dataclass(frozen=True)
class Prediction:
    """What a bot acts on: a direction for the bars after `at`, and how sure the network is of each class."""

    direction: str
    probabilities: dict[str, float]
    logits: tuple[float, ...]
    at: datetime
    """Opening time of the last bar the prediction saw."""
    out_of_range: int | None = None
    """Features outside what the fit window held; None where the bundle does not say what that was."""


class Predictor:
    """A loaded bundle. Raises BundleRefused when the files are not what the manifest says, or cannot be run."""

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        loaded = bundle_format.verify(folder) if verify else bundle_format.read(folder)
        self.digest = loaded.digest
        self.manifest = loaded.manifest
        self.schema = self.manifest.schema
        if self.manifest.classes != CLASSES:
            raise BundleRefused(f"classes {self.manifest.classes}, this code predicts {CLASSES}")
        model = loaded.payload(bundle_format.MODEL_FILE) if verify else _unverified_model(folder)
        self._session = _session(model, len(self.schema.columns), len(CLASSES))
        self._seen = _seen(self.manifest.document.get("seen"), len(self.schema.columns))

    def logits(self, raw_features: np.ndarray) -> np.ndarray:
        """float32 [n, 3] from unscaled float32 features [n, 72]: the scaler is inside the graph.

        Raises BundleRefused when the graph fails on them.
        """
        rows = np.ascontiguousarray(raw_features, dtype=np.float32)
        try:
            stretches = parallel.chunks(len(rows), _ROWS_A_THREAD) or [slice(0, 0)]
            found = parallel.thread_map(lambda some: self._in_batches(rows[some]), stretches)
            return found[0] if len(found) == 1 else np.concatenate(found)
        except Exception as error:  # onnxruntime's own classes share no narrower base
            raise BundleRefused(
                f"{bundle_format.MODEL_FILE} fails on {len(rows)} rows: {str(error)[:200]}"
            ) from error

    def _in_batches(self, rows: np.ndarray) -> np.ndarray:
        batches = [rows[some] for some in parallel.chunks(len(rows), _BATCH)] or [rows]
        found = [self._session.run([OUTPUT], {INPUT: batch})[0] for batch in batches]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def probabilities(self, raw_features: np.ndarray) -> np.ndarray:
        """float64 [n, 3], each row summing to 1."""
        return softmax(self.logits(raw_features))

    def predict(self, frame: pl.DataFrame) -> Prediction:
        """From candles (at least the schema's lookback) to the direction after the last of them.

        Raises NotEnoughBars, FeaturesRefused, and NotFinite for logits that are no numbers.
        """
        row = indicators.compute_latest(frame, self.schema)
        logits = self.logits(row)
        if not np.isfinite(logits).all():
            raise NotFinite(f"the model answers {logits[0].tolist()}: not finite, not to be acted on")
        shares = dict(zip(CLASSES, softmax(logits)[0].tolist(), strict=True))
        direction = CLASSES[int(logits[0].argmax())]
        values, at = tuple(logits[0].tolist()), frame["timestamp"][-1]
        return Prediction(direction, shares, values, at, self._out_of_range(row))

    def _out_of_range(self, row: np.ndarray) -> int | None:
        if self._seen is None:
            return None
        least, greatest = self._seen
        return int(np.count_nonzero((row < least) | (row > greatest)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64, the greatest logit taken off first: no logit overflows."""
    wide = logits.astype(np.float64)
    greatest = reduce(
        np.maximum, np.moveaxis(wide, -1, 0)
    )  # class by class: NumPy is slow along so short an axis
    with np.errstate(invalid="ignore"):
        powers = np.exp(wide - greatest[..., np.newaxis])
    return powers / reduce(np.add, np.moveaxis(powers, -1, 0))[..., np.newaxis]


def _seen(found: object, n_features: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Least and greatest of each feature in the fit window, float32 [n]; None where the manifest does not say so."""
    try:
        least, greatest = (np.asarray(found[end], np.float32) for end in ("least", "greatest"))  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None
    return (least, greatest) if least.shape == greatest.shape == (n_features,) else None


def _unverified_model(folder: Path) -> bytes:
    try:
        return (folder / bundle_format.MODEL_FILE).read_bytes()
    except OSError as error:
        raise BundleRefused(f"{bundle_format.MODEL_FILE} cannot be read ({error.strerror})") from error


def _session(model: bytes, n_features: int, n_classes: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # One row is too little work to share out, and a bot's other threads want the cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no narrower base
        raise BundleRefused(f"{bundle_format.MODEL_FILE} cannot be loaded: {str(error)[:200]}") from error
    found = [(v.name, v.type, v.shape[1:]) for v in (*session.get_inputs(), *session.get_outputs())]
    if found != [(INPUT, "tensor(float)", [n_features]), (OUTPUT, "tensor(float)", [n_classes])]:
        raise BundleRefused(
            f"{bundle_format.MODEL_FILE} has inputs and outputs {found}, not {INPUT} → {OUTPUT}"
        )
    return session
