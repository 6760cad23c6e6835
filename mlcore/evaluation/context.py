"""What is measured: a bundle's bytes, the candles it is judged on and those it was trained on.

Each thing is worked out once, when the first figure needs it, and whoever needs one that cannot be had gets an
MlcoreError that says why.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mlcore import parallel
from mlcore.bundle.format import Manifest
from mlcore.bundle.predictor import Predictor, softmax
from mlcore.data import candles
from mlcore.errors import BundleRefused, MlcoreError
from mlcore.evaluation import single_rows
from mlcore.evaluation.inspection import FAULTS, Inspection
from mlcore.features import examples, indicators, labels
from mlcore.features.examples import Examples
from mlcore.features.indicators import Schema

SINGLE_ROWS = 512

_SHARED = (
    ("examples", "files", "dataset_digest"),
    ("training", "logits", "single_logits", "stop_logits", "training_cuts"),
)
"""What many figures are made from, the second from the first; in each the longest first, so that none is left for last."""


@dataclass
class EvaluationContext:
    """One bundle on one series of candles. The manifest is a claim: what can be recomputed is."""

    inspection: Inspection
    frame: pl.DataFrame
    training_frame: pl.DataFrame | None = None
    """The candles of its training, where the caller has them; not looked for when `frame` is those."""
    baseline_folder: Path | None = None
    seed: int = 0
    _gathered: dict[tuple[int, str], Examples] = field(default_factory=dict)

    @cached_property
    def dataset_digest(self) -> str:
        return candles.compute_digest(self.frame)

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """What the bundle's files say without being run."""
        return {
            "bundle": self.inspection.bundle_part(),
            "scaler": self.inspection.scaler_part(),
            "weights": self.inspection.weights_part,
        }

    def prepare(self) -> None:
        """Work out what many figures share, side by side. What cannot be had says so to whoever needs it."""
        for names in _SHARED:
            parallel.thread_map(self._attempt, names)

    def _attempt(self, name: str) -> None:
        with suppress(*FAULTS):
            getattr(self, name)

    @property
    def manifest(self) -> Manifest:
        if self.inspection.bundle is None:
            raise BundleRefused("the manifest cannot be read")
        return self.inspection.bundle.manifest

    @property
    def predictor(self) -> Predictor:
        if self.inspection.predictor is None:
            raise BundleRefused("the bundle does not load, so nothing it does could be measured")
        return self.inspection.predictor

    @property
    def schema(self) -> Schema:
        """This code's schema of the manifest's name, though its digest may differ."""
        found = indicators.SCHEMAS.get(self.manifest.schema_name)
        if found is None:
            raise BundleRefused(f"feature schema {self.manifest.schema_name!r} is unknown here")
        return found

    def build_examples(self, schema: Schema) -> Examples:
        """The measured candles' rows under a schema."""
        return self._gather(self.frame, schema)

    @property
    def examples(self) -> Examples:
        return self.build_examples(self.schema)

    @cached_property
    def training_candles(self) -> pl.DataFrame | None:
        """Those the manifest names by digest; None where they are not at hand. Raises for others given instead."""
        named = self.manifest.dataset_digest
        if named == self.dataset_digest:
            return self.frame
        if named is None or self.training_frame is None:
            return None
        given = candles.compute_digest(self.training_frame)
        if given != named:
            raise MlcoreError(f"the training candles given are {given}, the manifest names {named}")
        return self.training_frame

    @property
    def training(self) -> Examples | None:
        """The rows of its training, recomputed from the candles; None where those are not at hand."""
        frame = self.training_candles
        return None if frame is None else self._gather(frame, self.schema)

    @cached_property
    def training_cuts(self) -> tuple[float, float] | None:
        """Where the classes must have been cut, recomputed; None where the training's candles are not at hand."""
        training = self.training
        return None if training is None else labels.compute_cuts(training.scaled_returns[training.split.fit])

    @cached_property
    def cuts(self) -> tuple[float, float]:
        """Recomputed; else what the manifest claims; else the terciles of the measured candles' own fit window."""
        claimed = self.training_cuts or self.manifest.cuts
        return claimed or labels.compute_cuts(self.examples.scaled_returns[self.examples.split.fit])

    @property
    def gate_bars(self) -> np.ndarray:
        return self.examples.bars[self.examples.split.gate]

    @property
    def gate_closes(self) -> tuple[np.ndarray, np.ndarray]:
        """Closes up to the gate window's last bar, from as far back as its rows look, and the rows' places among them."""
        first = max(0, int(self.gate_bars[0]) - labels.VOLATILITY_BARS - labels.HORIZON_BARS)
        return self.frame["close"].to_numpy()[first:], self.gate_bars - first

    @cached_property
    def logits(self) -> np.ndarray:
        """Of the gate window in one batch, float32 [n, 3], finite or not."""
        return self.predictor.logits(self.examples.features[self.examples.split.gate])

    @cached_property
    def stop_logits(self) -> np.ndarray | None:
        """Of its training's stop window, float32 [n, 3]; None where the training's candles are not at hand."""
        training = self.training
        return None if training is None else self.predictor.logits(training.features[training.split.stop])

    @cached_property
    def single_rows(self) -> np.ndarray:
        """Places in the gate window, evenly spread, of rows with a whole lookback before them; int64 [at most 512]."""
        able = np.flatnonzero(self.gate_bars >= self.schema.lookback - 1)
        return single_rows.sample_evenly(able, SINGLE_ROWS)

    @cached_property
    def single_features(self) -> np.ndarray:
        """float32 [n, 72]: of those rows, each from its lookback alone."""
        return indicators.compute_latest_at(self.frame, self.gate_bars[self.single_rows], self.schema)

    @cached_property
    def single_logits(self) -> np.ndarray:
        return single_rows.compute_single_logits(self.predictor, self.single_features)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """float64 [n, 3]. Raises BundleRefused when some have no class."""
        broken = int((~np.isfinite(self.logits).all(axis=1)).sum())
        if broken:
            raise BundleRefused(
                f"{broken:,} of {len(self.logits):,} predictions are not finite: they have no class"
            )
        return softmax(self.logits)

    @cached_property
    def true(self) -> np.ndarray:
        """int64 [n]: the gate window's classes."""
        return labels.assign_classes(self.examples.scaled_returns[self.examples.split.gate], self.cuts)

    @cached_property
    def predicted(self) -> np.ndarray:
        return self.probabilities.argmax(axis=1)

    @cached_property
    def hits(self) -> np.ndarray:
        return self.predicted == self.true

    def _gather(self, frame: pl.DataFrame, schema: Schema) -> Examples:
        key = id(frame), schema.name
        if key not in self._gathered:
            self._gathered[key] = examples.build_examples(frame, schema)
        return self._gathered[key]


def read_claim(document: Any, *path: str) -> Any:
    """What a manifest says at a path; None where it does not."""
    for step in path:
        document = document.get(step) if isinstance(document, Mapping) else None
    return document


def read_claimed_number(document: Any, *path: str) -> int | float | None:
    """The same, where it is a number."""
    found = read_claim(document, *path)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None
