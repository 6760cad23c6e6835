"""The inputs of a measurement: a bundle's files, the candles it is judged on, and those it was trained on.

Each value is computed once, when it is first needed. If it cannot be computed, an MlcoreError says why.
"""

from contextlib import suppress
from dataclasses import dataclass, field, replace
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
from mlcore.evaluation.inspection import FAULTS, Inspection
from mlcore.features import indicators, labels
from mlcore.features.examples import Examples, build_examples
from mlcore.features.indicators import Schema
from mlcore.features.labels import Label

SINGLE_ROWS = 512

_SHARED = (
    ("examples", "files", "dataset_digest"),
    ("training", "logits", "single_logits", "stop_logits", "training_cuts"),
)
"""Values that several sections need; the second group needs the first. The slowest of each come first."""


@dataclass
class EvaluationContext:
    """One bundle on one series of candles. The manifest is only a claim: whatever can be recomputed is."""

    inspection: Inspection
    frame: pl.DataFrame
    training_frame: pl.DataFrame | None = None
    """The candles of the training, if the caller has them; not needed if they are `frame`."""
    baseline_folder: Path | None = None
    """Of the V5 that its skill is compared with."""
    no_baseline: str = "no baseline was given"
    """Why there is none."""
    second_folder: Path | None = None
    """Of the bundle that a second training of it gave, if there was one."""
    seed: int = 0
    judges_stop_window: bool = False
    """A notebook judges the stop window: figures of the gate window would cost an attempt, and only the service may take
    them. Its rows are then those of `split.gate` below."""
    _examples: dict[tuple[int, str], Examples] = field(default_factory=dict)
    # One bundle has one label, split and warm-up: those of its manifest. So the key needs none of them.

    @cached_property
    def dataset_digest(self) -> str:
        return candles.compute_digest(self.frame)

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """What the bundle's files contain, without running them."""
        return {
            "bundle": self.inspection.inspect_bundle(),
            "scaler": self.inspection.inspect_scaler(),
            "weights": self.inspection.weights,
        }

    def precompute(self) -> None:
        """Computes in parallel what several sections share. A failure is raised again where the value is used."""
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
        return self.inspection.require_predictor()

    @property
    def schema(self) -> Schema:
        """This code's schema of the manifest's name, even if its digest differs."""
        schema = indicators.find_schema(self.manifest.schema_name)
        if schema is None:
            raise BundleRefused(f"feature schema {self.manifest.schema_name!r} is unknown here")
        return schema

    @property
    def label(self) -> Label:
        """What the bundle says that it predicts, and so what it is judged by."""
        return self.manifest.label

    def build_examples(self, frame: pl.DataFrame, schema: Schema) -> Examples:
        """By the bundle's label, split and warm-up, whatever the schema. Built once for the same candles and schema."""
        key = id(frame), schema.name
        if key not in self._examples:
            self._examples[key] = build_examples(
                frame, schema, self.label, self.manifest.shares, warm_up=self.schema.warm_up
            )
        return self._examples[key]

    @property
    def examples(self) -> Examples:
        return self.build_judged_examples(self.schema)

    def build_judged_examples(self, schema: Schema) -> Examples:
        """Of the measured candles, with the judged window in place of the gate window."""
        examples = self.build_examples(self.frame, schema)
        if not self.judges_stop_window:
            return examples
        return replace(examples, split=replace(examples.split, gate=examples.split.stop))

    @cached_property
    def training_candles(self) -> pl.DataFrame | None:
        """The candles that the manifest names by digest; None if they are not available. Raises for other candles."""
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
        """The rows of the training, recomputed from its candles; None if these are not available."""
        frame = self.training_candles
        return None if frame is None else self.build_examples(frame, self.schema)

    @cached_property
    def training_cuts(self) -> tuple[float, float] | None:
        """The cuts of the training, recomputed; None if its candles are not available."""
        return None if self.training is None else _compute_cuts(self.training)

    @cached_property
    def cuts(self) -> tuple[float, float]:
        """Recomputed; else those in the manifest; else by the measured candles' own fit window."""
        return self.training_cuts or self.manifest.cuts or _compute_cuts(self.examples)

    @property
    def gate_bars(self) -> np.ndarray:
        return self.examples.bars[self.examples.split.gate]

    @property
    def gate_closes(self) -> tuple[np.ndarray, np.ndarray]:
        """The closes that the gate window's labels need, and the index of each row among them."""
        first = max(0, int(self.gate_bars[0]) - labels.VOLATILITY_BARS - self.label.horizon)
        return self.frame["close"].to_numpy()[first:], self.gate_bars - first

    @cached_property
    def logits(self) -> np.ndarray:
        """Of the gate window, float32 [n, 3], finite or not: each row alone, unless the graph is the service's own."""
        if self.inspection.is_own_graph:
            return self.batch_logits
        return self.inspection.compute_logits(self.examples.features[self.examples.split.gate])

    @cached_property
    def batch_logits(self) -> np.ndarray:
        """Of the gate window in batches, float32 [n, 3]. Only what a single row is compared with may be these."""
        return self.predictor.logits(self.examples.features[self.examples.split.gate])

    @cached_property
    def stop_logits(self) -> np.ndarray | None:
        """Of the training's stop window, float32 [n, 3]; None if the training's candles are not available."""
        training = self.training
        if training is None:
            return None
        return self.inspection.compute_logits(training.features[training.split.stop])

    @cached_property
    def single_rows(self) -> np.ndarray:
        """Evenly spaced indices in the gate window of rows with a whole lookback; int64 [at most 512]."""
        return sample_evenly(np.flatnonzero(self.gate_bars >= self.schema.lookback - 1), SINGLE_ROWS)

    @cached_property
    def single_features(self) -> np.ndarray:
        """float32 [n, 72] or [n, L, 5]: of those rows, each from its lookback alone."""
        return indicators.compute_latest_at(self.frame, self.gate_bars[self.single_rows], self.schema)

    @cached_property
    def single_logits(self) -> np.ndarray:
        """float32 [n, 3]: each of those rows in a batch of its own."""
        return self.predictor.logits_by_row(self.single_features)

    @cached_property
    def finite_logits(self) -> np.ndarray:
        """Raises BundleRefused if some are not finite."""
        non_finite = int((~np.isfinite(self.logits).all(axis=1)).sum())
        if non_finite:
            raise BundleRefused(
                f"{non_finite:,} of {len(self.logits):,} predictions are not finite: they have no class"
            )
        return self.logits

    @cached_property
    def probabilities(self) -> np.ndarray:
        """float64 [n, 3]. Raises BundleRefused if some have no class."""
        return softmax(self.finite_logits)

    @cached_property
    def true(self) -> np.ndarray:
        """int64 [n]: the gate window's classes."""
        return labels.assign_classes(self.examples.scaled_returns[self.examples.split.gate], self.cuts)

    @cached_property
    def predicted(self) -> np.ndarray:
        """The class that a bot acts on, by the logits: probabilities of unequal logits may be rounded to equal ones."""
        return self.finite_logits.argmax(axis=1)

    @cached_property
    def hits(self) -> np.ndarray:
        return self.predicted == self.true


def sample_evenly(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` along the first axis, evenly spaced, with the first and the last."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def _compute_cuts(examples: Examples) -> tuple[float, float]:
    return examples.label.compute_cuts(examples.scaled_returns[examples.split.fit])
