"""No gate uses a bar after the row's own except for the truth, whatever input, label, horizon and interval."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from onnx import helper

from gates.evaluation import evaluate
from gates.policy import FULL_POLICY
from mlcore.bundle.format import Bundle
from mlcore.data import candles
from mlcore.errors import NotEnoughBars
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.inspection import Inspection
from mlcore.evaluation.measure import measure
from mlcore.evaluation.skill import score_naive_forecasts
from mlcore.features import labels
from mlcore.features.examples import build_examples
from mlcore.features.labels import Label
from mlcore.importers.convert import Request, import_model
from tests.faults.formula_faults import replace_formulas, use_next_bars_return
from tests.mlcore.drawn_terms import BARS, change_after, every, inputs, intervals, label_kinds, schema
from tests.model_files import onnx_file
from tests.scenarios import ALWAYS_JUDGED, context_of

GATES_OF_THE_TRUTH = {
    "accuracy", "skill", "too_good", "attempts", "lead", "label_balance", "calibration", "stability",
}  # fmt: skip
"""They compare predictions with what came: only these may change with the bars after the last row."""
SECTIONS_OF_THE_TRUTH = {
    "accuracy", "confusion", "reliability", "skill", "lead", "calibration", "stability",
}  # fmt: skip
NOT_COMPARED = {"dataset_digest", "seconds", "latency"}


@contextmanager
def declared(frame: pl.DataFrame, name: str, label: Label, seconds: int) -> Iterator[Bundle]:
    """A linear model of this input, declared for this label, with the windows and cuts of its candles."""
    taken = schema(name)
    examples = build_examples(frame, taken, label)
    try:
        cuts = label.compute_cuts(examples.scaled_returns[examples.split.fit])
    except NotEnoughBars:
        reject()  # a class has no bar in the fit window
    declaration = {
        "dataset": candles.compute_digest(frame),
        "labels": {**label.describe(), "cuts": list(cuts)},
        "split": {"fit_percent": 70, "stop_percent": 15},
        "windows": examples.windows_with_digests(),
        "stop": {"loss": 1.1, "accuracy": 0.3, "rows": len(examples.bars[examples.split.stop])},
        "scaler": "none",
    }
    request = Request("BTC", "v7_fixed", name, None, True, seconds, "tests", declaration)
    with tempfile.TemporaryDirectory() as folder:
        yield import_model(linear(taken.shape), request, Path(folder) / "bundle")[0]


def linear(shape: tuple[int, ...]) -> bytes:
    """The same weights in every test and in any order."""
    columns = int(np.prod(shape))
    weight = np.random.default_rng(4).normal(size=(3, columns)) / np.sqrt(columns)
    nodes = [
        helper.make_node("Flatten", ["x"], ["h"]),
        helper.make_node("Gemm", ["h", "w", "b"], ["y"], transB=1),
    ]
    tensors = {"w": weight.astype(np.float32), "b": np.zeros(3, np.float32)}
    return onnx_file(nodes, tensors, shape=("n", *shape))  # type: ignore[arg-type]  # a window has two dimensions


def find_differing(label: Label, name: str, seconds: int) -> tuple[set[str], set[str]]:
    """The sections of a measurement, and the gates, that change with the bars after the last row."""
    frame = every(seconds)
    last = int(build_examples(frame, schema(name), label).bars[-1])
    assert last == BARS - 1 - label.horizon
    with declared(frame, name, label, seconds) as bundle:
        one, other = (
            measure(
                bundle.folder,
                change_after(frame, last, times=times),
                expected_digest=bundle.digest,
                training_frame=frame,
            )
            for times in (1, 2)
        )
    sections = {section for section in one if one[section] != other[section]}
    before, after = (evaluate({**found, **context_of(found)}, FULL_POLICY) for found in (one, other))
    assert [outcome.gate for outcome in before] == ALWAYS_JUDGED
    return sections, {was.gate for was, now in zip(before, after, strict=True) if was != now}


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(label=label_kinds, name=inputs, seconds=intervals)
def test_bars_after_the_last_row_change_only_what_is_of_the_truth(
    label: Label, name: str, seconds: int
) -> None:
    sections, gates = find_differing(label, name, seconds)
    assert sections <= SECTIONS_OF_THE_TRUTH | NOT_COMPARED
    assert gates - NOT_COMPARED <= GATES_OF_THE_TRUTH
    assert "dataset_digest" in sections, "the bars are others"


def test_the_truth_itself_does_change() -> None:
    sections, gates = find_differing(Label(horizon=96), "relative72", 3_600)
    assert {"accuracy", "confusion", "lead", "calibration"} <= sections
    assert {"accuracy", "calibration", "stability"} <= gates


def test_a_feature_that_uses_the_next_bar_would_be_seen() -> None:
    with replace_formulas(use_next_bars_return()):
        sections, _ = find_differing(Label(), "relative72", 3_600)
    assert "single_sample" in sections - SECTIONS_OF_THE_TRUTH


@settings(max_examples=12, deadline=None)
@given(label=label_kinds, name=inputs, seconds=intervals, back=st.integers(100, 250))
def test_later_bars_change_no_prediction_and_no_settled_truth(
    label: Label, name: str, seconds: int, back: int
) -> None:
    frame, bar = every(seconds), BARS - back
    with declared(frame, name, label, seconds) as bundle:
        inspection = Inspection(bundle.folder, bundle.digest)
        one, other = (
            EvaluationContext(inspection, changed, frame) for changed in (frame, change_after(frame, bar))
        )
        assert np.array_equal(one.gate_bars, other.gate_bars)
        own, settled = one.gate_bars <= bar, one.gate_bars <= bar - label.horizon
        assert own.sum() > 50
        assert one.cuts == other.cuts
        assert one.logits[own].tobytes() == other.logits[own].tobytes()
        rows = one.gate_bars[one.single_rows] <= bar
        assert one.single_logits[rows].tobytes() == other.single_logits[rows].tobytes()
        assert one.true[settled].tobytes() == other.true[settled].tobytes()
        assert one.hits[settled].tobytes() == other.hits[settled].tobytes()
        naive = [score_naive_forecasts(context) for context in (one, other)]
        for forecaster in ("last_move", "reversal"):
            assert naive[0][forecaster][settled].tobytes() == naive[1][forecaster][settled].tobytes()
        volatility = [
            labels.compute_trailing_volatility(closes)[at]
            for closes, at in (context.gate_closes for context in (one, other))
        ]
        assert volatility[0][own].tobytes() == volatility[1][own].tobytes()
        assert one.logits.tobytes() != other.logits.tobytes(), "the change reaches later rows"
