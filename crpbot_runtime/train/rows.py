"""Features, labels and the purged split of a dataset, and the declaration of a model that was fitted on them.

All of it is computed by the modules that the gates themselves use: it is equal bit for bit on equal processors.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime
import polars as pl

from crpbot_runtime.errors import Misconfigured
from mlcore.bundle import graph_limits
from mlcore.bundle.predictor import softmax
from mlcore.constants import CLASSES
from mlcore.features.examples import Examples, build_examples, compute_fit_statistics
from mlcore.features.indicators import Schema, describe_inputs, find_schema
from mlcore.features.labels import HORIZON_BARS, Label, LabelKind
from mlcore.features.scaler import Scaler
from mlcore.features.splits import FIT_PERCENT, STOP_PERCENT, Shares


@dataclass(frozen=True)
class Window:
    """Consecutive rows, oldest first."""

    features: np.ndarray
    """float32 [n, 72], or windows of bars [n, L, 5]; unscaled."""
    labels: np.ndarray
    """int64 [n]: 0 down, 1 neutral, 2 up."""


@dataclass(frozen=True)
class Rows:
    """A dataset, prepared for one input, label and split. Everything learned comes from the fit window alone."""

    dataset: Mapping[str, Any]
    """As the service lists it."""
    candles: pl.DataFrame
    schema: Schema
    examples: Examples
    labels: np.ndarray
    cuts: tuple[float, float]
    scaler: Scaler
    """Mean and scale of each column, float64 [72] or [5]. A graph holds it if it begins with (features − mean) / scale."""
    class_weights: np.ndarray
    """float32 [3]: the rarer a class, the higher."""
    shares: Shares
    """Of the split."""

    @property
    def fit(self) -> Window:
        """To fit on."""
        return self._take(self.examples.split.fit)

    @property
    def stop(self) -> Window:
        """To stop by, and to compare models on. The gate window is left to the gates."""
        return self._take(self.examples.split.stop)

    @property
    def windows(self) -> dict[str, dict[str, str | int]]:
        """First bar, last bar, number of rows and digest of the fit, stop and gate window."""
        return self.examples.windows_with_digests()

    def declare(
        self, graph: bytes, *, has_scaler: bool, run: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """What the gates recompute of a model that was fitted on these rows (docs/models.md).

        `has_scaler`: whether the graph begins with (features − mean) / scale. `run` is the record of a tracker, kept with
        the model; nothing recomputes it. Raises BundleRefused for a graph that no gate takes, with what to change, and
        Misconfigured for one that answers something else than three finite logits.
        """
        logits = _run_by_row(graph, self.stop.features)
        true = self.stop.labels
        return {
            "dataset": self.dataset["digest"],
            "labels": {**self.examples.label.describe(), "cuts": list(self.cuts)},
            "split": asdict(self.shares),
            "windows": self.windows,
            "stop": {
                "loss": float(-np.log(softmax(logits)[np.arange(len(true)), true]).mean()),
                "accuracy": float((logits.argmax(axis=1) == true).mean()),
                "rows": len(true),
            },
            **({} if has_scaler else {"scaler": "none"}),
            **({} if run is None else {"run": dict(run)}),
        }

    def _take(self, rows: slice) -> Window:
        return Window(self.examples.features[rows], self.labels[rows])


def prepare(
    candles: pl.DataFrame,
    dataset: Mapping[str, Any],
    *,
    input: str = "relative72",
    label: str = LabelKind.TERCILES.value,
    horizon: int = HORIZON_BARS,
    cut: float | None = None,
    fit_percent: int = FIT_PERCENT,
    stop_percent: int = STOP_PERCENT,
) -> Rows:
    """The rows of these candles, which are those of the listed `dataset`, by the settings of a launch (docs/models.md).

    Raises Misconfigured for an input that there is not, InvalidParameter for another setting out of its bounds, and
    NotEnoughBars for too few candles.
    """
    schema = find_schema(input)
    if schema is None:
        raise Misconfigured(f"there is no input {input[:40]!r}; choose {describe_inputs()}")
    kind = LabelKind(label) if label in list(LabelKind) else label
    shares = Shares(fit_percent, stop_percent)
    examples = build_examples(candles, schema, Label(kind, horizon, cut), shares)  # type: ignore[arg-type]  # it refuses it
    statistics = vars(compute_fit_statistics(examples))
    return Rows(
        dataset=dataset, candles=candles, schema=schema, examples=examples, shares=shares, **statistics
    )


def _run_by_row(graph: bytes, rows: np.ndarray) -> np.ndarray:
    """float32 [n, 3]: each row alone, as the gates and the bots run a graph from outside."""
    graph_limits.check_graph(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        scores = [end.name for end in session.get_outputs() if end.type == "tensor(float)"]
        name = session.get_inputs()[0].name
        answers = [session.run(scores[:1], {name: rows[at : at + 1]})[0] for at in range(len(rows))]
    except Exception as error:  # onnxruntime's own classes share no narrower base
        raise Misconfigured(f"the graph cannot be run on these rows: {str(error)[:300]}") from error
    if any(answer.shape != (1, len(CLASSES)) for answer in answers):
        raise Misconfigured(
            f"the graph does not answer one row with {len(CLASSES)} logits, but with {answers[0].shape}"
        )
    logits = np.concatenate(answers)
    if not np.isfinite(logits).all():
        raise Misconfigured("the graph answers logits that are not finite")
    return logits
